/* What the page asks of the service, and how it notices that this is gone. */

/** An answer that is no success. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask for something.
 * @param {string} path with its parameters
 * @param {object} options as of fetch */
export async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-cache", ...options });
  if (answer.status === 204) return null;
  let body = null;
  try {
    body = await answer.json();
  } catch {
    /* An answer that is no JSON says nothing that could be shown. */
  }
  if (!answer.ok) throw new Refused(answer.status, body?.error ?? `the service answered ${answer.status}`);
  return body;
}

/** A path of the API with parameters; those that are null are left out. */
export function path(base, params) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length ? `${base}?${query}` : base;
}

const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 5000;

/** The stream of what changes. It is opened again for as long as the page is there. */
export class Live {
  /** @param {{onState: (message: object) => void, onGone: (since: number) => void,
   *    onBack: () => void, onLogin: () => void}} told */
  constructor(told) {
    this.told = told;
    this.wait = SHORTEST_WAIT;
    this.goneSince = null;
    this.source = null;
    this.waiting = null;
  }

  /** Whether it is open, or is going to be opened again. */
  get tries() {
    return this.source !== null || this.waiting !== null;
  }

  /** @param {string|null} pipeline of which pipeline */
  open(pipeline) {
    this.close();
    this.pipeline = pipeline;
    const source = new EventSource(path("api/live", { pipeline }));
    this.source = source;
    source.addEventListener("state", (event) => {
      if (this.source !== source) return;
      this.wait = SHORTEST_WAIT;
      if (this.goneSince !== null) {
        this.goneSince = null;
        this.told.onBack();
      }
      this.told.onState(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      if (this.source === source) this.#failed();
    });
  }

  close() {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.source?.close();
    this.source = null;
  }

  async #failed() {
    this.close();
    try {
      const session = await ask("api/session");
      if (!session.may_read) {
        this.told.onLogin();
        return;
      }
    } catch {
      /* It is gone, or has too much to do: both pass. */
    }
    if (this.source) return; // opened again meanwhile
    this.goneSince ??= Date.now();
    this.told.onGone(this.goneSince);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.open(this.pipeline), this.wait);
    this.wait = Math.min(this.wait * 1.6, LONGEST_WAIT);
  }
}

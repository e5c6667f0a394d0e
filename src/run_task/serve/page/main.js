/* The page: which view is shown, and what is told in all of them. */

import { ask, Live, path, Refused } from "./requests.js";
import { attribute, h, named, put, shownSeconds, shownTime } from "./dom.js";
import { ErrorsView } from "./errors.js";
import { Overview } from "./overview.js";
import { running, ShardsView } from "./shards.js";
import { SourcesView } from "./sources.js";
import { StageView } from "./stage.js";

const HEALTH = { ok: "Healthy", warning: "Warning", failing: "Failing", unknown: "Connecting" };
/* How many announcements are kept: those who hear the page may not yet have heard the last ones. */
const MOST_TOLD = 8;
const VIEWS = [["Overview", "overview", Overview], ["Sources", "sources", SourcesView], ["Shards", "shards", ShardsView],
  ["Errors", "errors", ErrorsView]];
/* The parts of a state of which only what has changed is told. */
const PARTS = ["stages", "sources", "sinks", "shards"];
const $ = (id) => document.getElementById(id);

/** Everything that views share. */
class App {
  constructor() {
    this.pipeline = undefined; // not known yet; null: there is none
    this.state = null;
    this.topology = null;
    this.session = null;
    this.held = false;
    this.gone = false;
    this.view = null;
    this.alarms = null;
    this.shards = null;
    this.linkTo = (...parts) => `#/${[this.pipeline ?? "", ...parts].map(encodeURIComponent).join("/")}`;
    this.live = new Live({
      onState: (message) => this.#take(message),
      onGone: (since) => this.#isGone(since),
      onBack: () => this.#isBack(),
      onLogin: () => this.#enter(),
    });
  }

  /** Say something to those who hear the page. */
  announce(text) {
    const log = $("announcer");
    log.append(h("p", {}, text));
    while (log.children.length > MOST_TOLD) log.firstElementChild.remove();
  }

  async start() {
    try {
      this.session = await ask("api/session");
      if (!this.session.may_read) {
        this.#enter();
        return;
      }
      const { pipelines } = await ask("api/pipelines");
      this.names = pipelines.map((each) => each.name);
    } catch (error) {
      this.#isGone(Date.now(), error instanceof Refused ? error.message : null);
      setTimeout(() => this.start(), 2000);
      return;
    }
    this.#isBack();
    $("session").hidden = !this.session.changes_possible;
    put($("session"), this.session.may_change ? "Log out" : "Log in");
    const select = $("pipelines");
    select.replaceChildren(...this.names.map((name) => h("option", { value: name }, name)));
    select.closest("label").hidden = this.names.length < 2;
    this.route();
  }

  /** Show what the address says. */
  route() {
    if (!this.names) return;
    const parts = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
    const [pipeline] = parts;
    const known = this.names.includes(pipeline) ? pipeline : this.names[0] ?? null;
    const [, kind, name] = parts;
    this.name = name;
    const View = VIEWS.find(([, word]) => word === kind)?.[2] ?? Overview;
    if (known !== this.pipeline) this.#follow(known);
    else if (!this.live.tries) this.live.open(known);
    this.view?.destroy();
    this.view = kind === "stage" && name ? new StageView(this, name) : new View(this);
    this.kind = kind === "stage" ? "stage" : View === Overview ? "overview" : kind;
    $("main").replaceChildren(this.view.element);
    document.title = `${this.view.title}: ${this.pipeline ?? "run-task"}`;
    this.#navigation(name);
    if (this.topology) this.view.topologyChanged(this);
    this.#draw();
  }

  /** Whether whoever sees the page may change something; asks for the token if that is missing. */
  async mayChange() {
    try {
      this.session = await ask("api/session");
    } catch {
      return false;
    }
    if (this.session.may_change) return true;
    if (!this.session.changes_possible) return false;
    return this.#logIn("To change something, the token is needed.");
  }

  hold(held) {
    this.held = held;
    attribute($("hold"), "aria-pressed", String(held));
    put($("hold"), held ? "Go on" : "Pause updates");
    if (!held) this.#draw();
  }

  restyle() {
    this.view?.restyle?.();
  }

  async toggleSession() {
    if (this.session?.may_change) {
      await ask("api/session", { method: "DELETE" });
      location.reload();
    } else if (!this.session?.may_read) this.#enter();
    else await this.#logIn("The token of this service, as its token file or environment has it.");
  }

  /** Ask for the token without which there is nothing to see. */
  async #enter() {
    this.gone = true;
    const banner = $("connection");
    put(banner, "To see how the pipelines do, log in with the token of this service.");
    banner.hidden = false;
    $("session").hidden = false;
    if (await this.#logIn("To see this page, its token is needed.")) this.start();
  }

  #follow(pipeline) {
    this.pipeline = pipeline;
    this.state = null;
    this.topology = null;
    this.alarms = null;
    this.shards = null;
    $("pipeline-name").replaceChildren(pipeline === null ? "run-task" : named(pipeline));
    $("pipelines").value = pipeline ?? "";
    this.live.open(pipeline);
  }

  #navigation(name) {
    const items = VIEWS.filter(([, word]) => word !== "shards" || this.kind === word || this.#shards().length)
      .map(([title, word]) => ({ title, word, href: this.linkTo(word) }));
    if (this.kind === "stage") items.push({ title: name, word: "stage", href: this.linkTo("stage", name) });
    $("views").replaceChildren(...items.map(({ title, word, href }) => h("li", {},
      h("a", { href, "aria-current": word === this.kind ? "page" : null }, named(title), h("span.count", { "data-word": word })))));
  }

  #shards() {
    return Object.values(this.state?.shards ?? {});
  }

  #take(message) {
    const restarted = this.state && message.began_ms !== this.state.began_ms;
    const had = this.#shards().length;
    if (message.full || !this.state) this.state = message;
    else {
      const { state } = this;
      for (const part of PARTS) Object.assign(state[part], message[part]);
      for (const stage of message.gone) delete state.stages[stage];
      for (const [name, value] of Object.entries(message)) {
        if (![...PARTS, "gone", "full"].includes(name)) state[name] = value;
      }
    }
    if (!had !== !this.#shards().length) this.#navigation(this.name);
    if (restarted) {
      this.topology = null;
      this.view?.restarted?.();
      this.announce("The pipeline was started again.");
    }
    if (!this.topology || this.topology.topology !== this.state.topology) this.#topology();
    this.#told();
    if (!this.pending) {
      this.pending = true;
      requestAnimationFrame(() => {
        this.pending = false;
        if (!this.held) this.#draw();
      });
    }
  }

  async #topology() {
    if (this.asking) return;
    this.asking = true;
    const { pipeline } = this;
    try {
      const topology = await ask(path("api/pipeline", { pipeline }));
      if (pipeline !== this.pipeline) return;
      this.topology = topology;
      this.view?.topologyChanged(this);
      this.#draw();
    } catch {
      /* Asked again with the next message. */
    } finally {
      this.asking = false;
    }
  }

  #draw() {
    if (!this.state) return;
    this.#health();
    this.view?.update(this);
  }

  #health() {
    const { state } = this;
    const { status } = state.health;
    attribute($("health"), "data-status", this.gone ? "unknown" : status);
    put($("health-text"), this.gone ? "Not known" : HEALTH[status] ?? status);
    $("health").title = state.health.reasons.join("\n");
    put($("run"), `${state.state}, for ${shownSeconds(Math.max(0, Math.floor((state.at_ms - state.began_ms) / 1000)))}`);
    const errors = document.querySelector('[data-word="errors"]');
    if (errors) put(errors, state.errors?.length ? ` ${state.errors.length}` : "");
    const shards = document.querySelector('[data-word="shards"]');
    const gone = this.#shards().length - running(this.#shards());
    if (shards) put(shards, gone ? ` ${gone} ▲` : "");
    const overview = document.querySelector('[data-word="overview"]');
    if (overview) put(overview, state.alarms?.length ? ` ${state.alarms.length} ▲` : "");
  }

  /** Tell those who hear the page what has changed about health and alarms. */
  #told() {
    const { status, reasons } = this.state.health;
    const alarms = new Set((this.state.alarms ?? []).map((each) => `${each.task} of ${each.stage}${each.key === null ? "" : ` for ${each.key}`}`));
    const told = [];
    const shards = new Map(this.#shards().map((shard) => [shard.name, shard]));
    if (this.shards) {
      for (const [name, { state, restarts }] of shards) {
        const before = this.shards.get(name);
        if (before?.state !== state) told.push(`${name}: ${state}`);
        // It went and came back between two messages.
        else if (before.restarts !== restarts) told.push(`${name}: ${state} again`);
      }
    }
    this.shards = shards;
    if (this.lastStatus !== undefined && this.lastStatus !== status) {
      told.push([HEALTH[status] ?? status, ...reasons].join(". "));
    }
    if (this.alarms) {
      for (const alarm of alarms) if (!this.alarms.has(alarm)) told.push(`Alarm on: ${alarm}`);
      for (const alarm of this.alarms) if (!alarms.has(alarm)) told.push(`Alarm off: ${alarm}`);
    }
    this.lastStatus = status;
    this.alarms = alarms;
    if (told.length) this.announce(told.slice(0, 3).join(". "));
  }

  #isGone(since, why = null) {
    this.gone = true;
    document.body.classList.add("stale");
    const banner = $("connection");
    banner.hidden = false;
    put(banner, why ? `The service refuses: ${why}. The page tries again.`
      : `The service does not answer, since ${shownTime(since)}. What stands here is from before; the page tries again.`);
    attribute($("health"), "data-status", "unknown");
    put($("health-text"), "Not known");
    this.#draw();
  }

  #isBack() {
    if (!this.gone) return;
    this.gone = false;
    document.body.classList.remove("stale");
    $("connection").hidden = true;
    this.announce("The service answers again.");
  }

  /** Ask for the token. @returns {Promise<boolean>} whether it was right */
  #logIn(why) {
    const dialog = $("login");
    put($("login-why"), why);
    put($("login-error"), "");
    $("login-token").value = "";
    if (!dialog.open) dialog.showModal();
    return new Promise((done) => {
      const finish = (result) => {
        dialog.close();
        put($("session"), result ? "Log out" : "Log in");
        done(result);
      };
      $("login-cancel").onclick = () => finish(false);
      dialog.oncancel = () => finish(false);
      dialog.querySelector("form").onsubmit = async (event) => {
        event.preventDefault();
        try {
          await ask("api/session", { method: "POST", headers: { Authorization: `Bearer ${$("login-token").value}` } });
          this.session = await ask("api/session");
          finish(true);
        } catch (error) {
          put($("login-error"), error instanceof Refused && error.status === 401 ? "This is not the token." : error.message);
        }
      };
    });
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const app = new App();
$("hold").addEventListener("click", () => app.hold(!app.held));
$("session").addEventListener("click", () => app.toggleSession());
$("pipelines").addEventListener("change", (event) => {
  location.hash = `#/${encodeURIComponent(event.target.value)}/overview`;
});
const theme = $("theme");
theme.value = document.documentElement.dataset.theme ?? "";
theme.addEventListener("change", () => {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("run-task-theme", theme.value);
  } catch {
    /* It holds until the page is left. */
  }
  app.restyle();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.restyle());
addEventListener("hashchange", () => {
  app.route();
  $("main").focus({ preventScroll: false });
});
app.start();

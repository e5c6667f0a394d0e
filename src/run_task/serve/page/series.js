/* Numbers of the last hour, as they come: no more of them than can be seen. */

import { ask, path } from "./requests.js";

const HOUR = 3600;
/* Up to this age, in seconds, all windows are kept; before that, one a second. */
const FINE = 30;
const MOST = 6000;

/** The numbers of a stage, or of one key of it. */
export class Series {
  /** @param {{pipeline: string|null, stage: string, key?: string|number|null}} of */
  constructor(of) {
    this.of = of;
    this.clear();
  }

  clear() {
    this.times = [];
    this.columns = {};
    this.next = null;
    this.asking = false;
  }

  /** The names of those that have any number. */
  drawable() {
    return Object.keys(this.columns).filter((name) => this.columns[name].some((value) => value !== null));
  }

  /** Ask for what is new. @returns {Promise<boolean>} whether there is any */
  async more() {
    if (this.asking) return false;
    this.asking = true;
    try {
      const { pipeline, stage, key = null } = this.of;
      const got = await ask(path("api/results", { pipeline, stage, key, since: this.next }));
      this.next = got.next;
      return this.#take(got);
    } finally {
      this.asking = false;
    }
  }

  #take(got) {
    const last = this.times.at(-1) ?? -Infinity;
    const from = got.ends_ms.findIndex((end) => end / 1e3 > last);
    if (from < 0) return false;
    for (const end of got.ends_ms.slice(from)) this.times.push(end / 1e3);
    for (const name of Object.keys(got.columns)) {
      this.columns[name] ??= Array(this.times.length - got.ends_ms.length + from).fill(null);
    }
    for (const [name, values] of Object.entries(this.columns)) {
      const fresh = got.columns[name]?.slice(from) ?? [];
      for (const value of fresh) values.push(value);
      while (values.length < this.times.length) values.push(null);
    }
    if (this.times.length > MOST) this.#thin();
    return true;
  }

  /** Forget what is older than an hour, and most of what is not of the last moments. */
  #thin() {
    const now = this.times.at(-1);
    const kept = [];
    let second = -Infinity;
    this.times.forEach((time, i) => {
      if (time < now - HOUR) return;
      if (time < now - FINE && time - second < 1) return;
      second = time;
      kept.push(i);
    });
    this.times = kept.map((i) => this.times[i]);
    for (const name of Object.keys(this.columns)) {
      this.columns[name] = kept.map((i) => this.columns[name][i]);
    }
  }
}

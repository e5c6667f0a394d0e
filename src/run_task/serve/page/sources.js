/* Where rows come from, and what became of them. */

import { ask, path } from "./requests.js";
import { Charts } from "./charts.js";
import { attribute, h, keep, named, put, shownCount, shownRate, shownTime, table, widePanel } from "./dom.js";

const STORED = "stored";
const OTHERS = ["late", "ahead", "malformed", "rejected", "expired", "duplicate"];
const FATES = [STORED, ...OTHERS];
const COUNTS = ["received", "stored", "late", "ahead", "malformed", "rejected", "expired", "duplicate", "waiting", "unseen", "dropped", "restarts"];
const TROUBLE = new Set(["ahead", "malformed", "rejected", "expired", "dropped", "unseen"]);
/* How often counts over time are asked for, in milliseconds: the service notes them every 5 s. */
const EVERY = 2500;
const HOUR = 3600;

/** The view of all sources. */
export class SourcesView {
  constructor(app) {
    this.app = app;
    this.title = "Sources";
    this.table = table("Rows by source", ["Source", ["Rows/s", "number"], "Connection", ["Behind", "number"],
      ["Last row", "number"], ...COUNTS.map((name) => [name, "number"])]);
    this.charts = new Charts("Fates of rows");
    this.asked = 0;
    this.clear();
    this.element = h("div.view", {}, widePanel("Rows by source", this.table.frame,
      h("p.muted.hint", {}, "Late rows are among those stored or expired; all other counts are apart from one another.")),
    widePanel("Fates of rows over time, rows a second", this.charts.element));
  }

  clear() {
    this.fates = new Map();
  }

  restarted() {
    this.clear();
  }

  topologyChanged() {
    this.asked = 0;
  }

  restyle() {
    this.charts.restyle();
  }

  destroy() {
    this.gone = true;
    this.charts.destroy();
  }

  update({ state, topology }) {
    if (!state || !topology) return;
    const sources = Object.entries(state.sources);
    keep(this.table.body, sources, ([name]) => name,
      ([name]) => h("tr", {}, h("th", { scope: "row" }, named(name)), h("td.number"), h("td"),
        ...Array.from({ length: 2 + COUNTS.length }, () => h("td.number"))),
      (row, [, now]) => {
        const connection = now.removed ? "removed" : now.connected === null ? "does not tell" : now.connected ? "connected" : "not connected";
        const told = [shownRate(now.rate, "rows"), connection, now.lag === null ? "–" : shownCount(now.lag),
          shownTime(now.last_row_ms), ...COUNTS.map((name) => shownCount(now[name]))];
        told.forEach((text, i) => put(row.children[i + 1], text));
        COUNTS.forEach((name, i) => row.children[i + 5].classList.toggle("notable", TROUBLE.has(name) && now[name] > 0));
        attribute(row, "data-status", now.connected === false ? "failing" : "ok");
      });
    const moment = performance.now();
    if (moment - this.asked > EVERY) {
      this.asked = moment;
      for (const [name] of sources) this.#more(name);
    }
  }

  async #more(source) {
    const before = this.fates.get(source) ?? { times: [], counts: {}, next: null };
    try {
      const got = await ask(path("api/fates", { pipeline: this.app.pipeline, source, since: before.next }));
      if (this.gone) return;
      const times = [...before.times, ...got.times_ms.map((ms) => ms / 1e3)];
      const from = times.findIndex((time) => time >= times.at(-1) - HOUR);
      const counts = {};
      for (const name of FATES) {
        counts[name] = [...(before.counts[name] ?? []), ...(got.columns[name] ?? got.times_ms.map(() => null))].slice(from);
      }
      this.fates.set(source, { times: times.slice(from), counts, next: got.next });
    } catch {
      return; // asked again soon
    }
    this.#arrange();
  }

  /** For each source a chart of the rows that are stored, and one of those that are not as most. */
  #arrange() {
    const wanted = [];
    for (const { name } of this.app.topology?.sources ?? []) {
      const { times, counts } = this.fates.get(name) ?? {};
      if (!times?.length) continue;
      const others = OTHERS.filter((fate) => counts[fate].at(-1) > 0);
      for (const [title, names] of [["stored", [STORED]], ["other fates", others]]) {
        if (names.length) wanted.push({ id: `${title} ${name}`, title: `${name}: ${title}`, names, times, counts });
      }
    }
    this.charts.arrange(wanted);
    for (const { id, names, times, counts } of wanted) {
      this.charts.set(id, times.slice(1), names.map((fate) => rates(times, counts[fate])));
    }
  }
}

/** How many a second, between the moments at which they were counted. */
function rates(times, counts) {
  return counts.slice(1).map((count, i) => (count === null ? null : (count - counts[i]) / (times[i + 1] - times[i])));
}

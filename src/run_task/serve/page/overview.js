/* The first view: is it well, how does it hang together, how does each part do. */

import { Graph } from "./graph.js";
import { shownShards } from "./shards.js";
import { attribute, h, keep, named, panel, put, shownCount, shownKey, shownRate, shownSeconds, shownTime, shownValue, table, widePanel } from "./dom.js";

/** What all of a pipeline looks like. */
export class Overview {
  /** @param {{linkTo: (...parts: string[]) => string}} app */
  constructor(app) {
    this.app = app;
    this.title = "Overview";
    this.reasons = h("ul.reasons");
    this.facts = h("dl.facts.short");
    this.alarms = h("ul.alarms");
    this.noAlarms = h("p.muted", {}, "No alarm is on.");
    this.graph = new Graph((stage) => app.linkTo("stage", stage));
    this.filter = h("input", { type: "search", "aria-label": "Find a stage", placeholder: "Find a stage",
      input: () => this.update(app) });
    this.stages = table("Stages", ["Stage", ["Windows/s", "number"], ["Newest window", "number"],
      ["Late p50", "number"], ["p99", "number"], ["Takes p50", "number"], ["p99", "number"],
      ["Missed", "number"], ["Errors", "number"], "State"]);
    this.sinks = table("Sinks", ["Sink", ["Results", "number"], ["Written", "number"], ["Waiting", "number"],
      ["Refused", "number"], ["Dropped", "number"], ["Lost", "number"], ["Failures", "number"]]);
    this.sinksPanel = panel("Sinks", this.sinks.frame);
    this.checkpoints = h("p");
    this.element = h("div.view", {},
      panel("Health", this.reasons, this.facts),
      panel("Alarms", this.noAlarms, this.alarms),
      widePanel("Pipeline", this.graph.element),
      widePanel("Stages", h("p", {}, this.filter), this.stages.frame),
      this.sinksPanel,
      panel("Checkpoints", this.checkpoints));
  }

  topologyChanged(app) {
    this.graph.arrange(app.topology);
  }

  destroy() {
    this.graph.destroy();
  }

  update({ state, topology, linkTo, gone }) {
    if (!state || !topology) return;
    if (!this.graph.topology) this.graph.arrange(topology);
    this.graph.update(state);
    this.#health(state, gone);
    this.#alarms(state.alarms ?? [], linkTo);
    this.#stages(state, topology, linkTo);
    this.#sinks(state);
    const saved = state.checkpoints;
    put(this.checkpoints, saved
      ? `Number ${saved.number}${saved.last_ms ? `, written ${shownTime(saved.last_ms)}` : ""}: ${
        shownCount(saved.written)} written, ${shownCount(saved.skipped)} left out, ${
        shownCount(saved.failed)} failed, ${shownCount(saved.bytes)} bytes in all.${
        saved.seconds_behind ? ` Another one is due for ${shownSeconds(saved.seconds_behind)}.` : ""}`
      : "This pipeline keeps none.");
  }

  #health(state, gone) {
    const reasons = gone ? ["The service does not answer."]
      : state.health.reasons.length ? state.health.reasons : ["Nothing is wrong."];
    keep(this.reasons, reasons, (text) => text, (text) => h("li", { dir: "auto" }, text), () => {});
    const stages = Object.values(state.stages);
    const sources = Object.values(state.sources);
    const most = (of) => stages.reduce((worst, stage) => Math.max(worst, of(stage)), 0);
    const sum = (things, of) => things.reduce((all, thing) => all + of(thing), 0);
    const shards = Object.values(state.shards);
    const facts = [
      ["Rows", shownRate(sum(sources, (each) => each.rate), "rows")],
      ["Windows", shownRate(sum(stages, (each) => each.rate), "windows")],
      ["Most late, p99", shownSeconds(most((each) => each.lateness.p99))],
      ["Longest, p99", shownSeconds(most((each) => each.duration.p99))],
      ["Results missing", shownCount(sum(stages, (each) => each.failed))],
      ["Windows missed", shownCount(sum(stages, (each) => each.missed))],
      ["Results not yet written", shownCount(state.waiting)],
      ...(shards.length ? [["Shards", shownShards(shards)]] : []),
    ];
    keep(this.facts, facts, ([name]) => name,
      ([name]) => h("div", {}, h("dt", {}, name), h("dd")),
      (node, [, value]) => put(node.lastChild, value));
  }

  #alarms(alarms, linkTo) {
    this.noAlarms.hidden = alarms.length > 0;
    keep(this.alarms, alarms, (alarm) => JSON.stringify([alarm.stage, alarm.task, alarm.key]),
      (alarm) => h("li", {}, h("strong", {}, named(alarm.task)), " of ",
        h("a", { href: linkTo("stage", alarm.stage) }, named(alarm.stage)),
        ...(alarm.key === null ? [] : [", key ", named(shownKey(alarm.key))]), h("span.muted")),
      (node, alarm) => put(node.lastChild, alarm.since_ms ? `, since ${shownTime(alarm.since_ms)}` : ""));
  }

  #stages(state, topology, linkTo) {
    const wanted = this.filter.value.toLowerCase();
    const stages = topology.stages.filter((stage) => stage.name.toLowerCase().includes(wanted));
    keep(this.stages.body, stages, (stage) => stage.name,
      (stage) => h("tr", {}, h("th", { scope: "row" }, h("a", { href: linkTo("stage", stage.name) }, named(stage.name))),
        ...Array.from({ length: 8 }, () => h("td.number")), h("td")),
      (row, stage) => {
        const now = state.stages[stage.name];
        if (!now) return;
        const status = now.failing.length ? "failing" : now.paused ? "paused"
          : now.paused_tasks.length ? "tasks paused" : now.failed ? "had errors" : "well";
        const told = [shownValue(Number(now.rate.toPrecision(3))), shownTime(now.end_ms),
          shownSeconds(now.lateness.p50), shownSeconds(now.lateness.p99), shownSeconds(now.duration.p50),
          shownSeconds(now.duration.p99), shownCount(now.missed), shownCount(now.failed), status];
        told.forEach((text, i) => put(row.children[i + 1], text));
        attribute(row, "data-status", now.failing.length ? "failing" : now.paused || now.paused_tasks.length || now.failed ? "warning" : "ok");
      });
  }

  #sinks(state) {
    const sinks = Object.entries(state.sinks);
    this.sinksPanel.hidden = !sinks.length;
    keep(this.sinks.body, sinks, ([name]) => name,
      ([name]) => h("tr", {}, h("th", { scope: "row" }, named(name)),
        ...Array.from({ length: 7 }, () => h("td.number"))),
      (row, [, now]) => [now.results, now.written, now.waiting, now.refused, now.dropped, now.lost, now.failures]
        .forEach((count, i) => put(row.children[i + 1], shownCount(count))));
  }
}

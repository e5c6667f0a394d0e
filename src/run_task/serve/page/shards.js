/* Where stages by key are run: how each shard does, and each node. */

import { attribute, h, keep, named, panel, put, shownCount, shownSeconds, table, widePanel } from "./dom.js";

const MARKS = { running: "●", "coming back": "▲", lost: "■" };
const STATUS = { running: "ok", lost: "failing", ended: "ok" };

/** How many shards are there. */
export const running = (shards) => shards.filter((shard) => shard.state === "running").length;

const isWell = (shard) => shard.state === "running" && !shard.reason;

/** Shards in a few words. */
export function shownShards(shards) {
  const there = running(shards);
  const nodes = new Set(shards.flatMap((shard) => shard.node ?? [])).size;
  return `${there < shards.length ? `${there} of ` : ""}${shards.length} on ${nodes} node${nodes === 1 ? "" : "s"}`;
}

/** The view of all shards. */
export class ShardsView {
  constructor(app) {
    this.title = "Shards";
    this.facts = h("dl.facts.short");
    this.filter = h("input", { type: "search", "aria-label": "Find a shard or a node", placeholder: "Find a shard or a node",
      input: () => this.update(app) });
    this.none = h("p.muted", {}, "This pipeline does not run over shards.");
    this.table = table("Shards", ["Shard", "State", "Node", ["Process", "number"], ["Keys", "number"], ["Rows", "number"],
      ["Results", "number"], ["Windows", "number"], ["Last window", "number"], ["Restarts", "number"],
      ["Windows behind", "number"], ["Waited for", "number"]]);
    this.reasons = h("ul.reasons.many", { tabindex: 0 });
    this.reasonsPanel = widePanel("What is wrong", this.reasons);
    this.nodes = table("Nodes", ["Node", ["Shards", "number"], ["Keys", "number"], ["Rows", "number"],
      ["Results", "number"], ["Restarts", "number"]]);
    this.element = h("div.view", {}, panel("All shards", this.none, this.facts), panel("Nodes", this.nodes.frame),
      this.reasonsPanel, widePanel("Shards", h("p", {}, this.filter), this.table.frame,
        h("p.muted.hint", {}, "Keys are those of the last window. A shard that is coming back is waited for; without one that is lost, "
          + "windows go on, and it catches up with them once it is back.")));
  }

  topologyChanged() {}

  destroy() {}

  update({ state }) {
    if (!state) return;
    const shards = Object.values(state.shards);
    this.none.hidden = shards.length > 0;
    this.#facts(shards);
    this.#nodes(shards);
    this.#shards(shards);
  }

  #facts(shards) {
    const sum = (of) => shownCount(shards.reduce((all, shard) => all + of(shard), 0));
    const most = (of) => shards.reduce((worst, shard) => Math.max(worst, of(shard)), 0);
    const facts = !shards.length ? [] : [
      ["Running", `${shownCount(running(shards))} of ${shownCount(shards.length)}`],
      ["Keys", sum((shard) => shard.keys)],
      ["Most keys in one", shownCount(most((shard) => shard.keys))],
      ["Longest last window", shownSeconds(most((shard) => shard.seconds))],
      ["Restarts", sum((shard) => shard.restarts)],
      ["Windows behind", sum((shard) => shard.windows_behind)],
    ];
    keep(this.facts, facts, ([name]) => name,
      ([name]) => h("div", {}, h("dt", {}, name), h("dd")),
      (node, [, value]) => put(node.lastChild, value));
  }

  #nodes(shards) {
    const nodes = new Map();
    for (const shard of shards) {
      if (shard.node !== null) nodes.set(shard.node, [...(nodes.get(shard.node) ?? []), shard]);
    }
    keep(this.nodes.body, [...nodes].sort(), ([node]) => node,
      ([node]) => h("tr", {}, h("th", { scope: "row" }, named(node)), ...Array.from({ length: 5 }, () => h("td.number"))),
      (row, [, of]) => {
        put(row.children[1], shownCount(of.length));
        ["keys", "rows", "results", "restarts"].forEach((count, i) => put(row.children[i + 2],
          shownCount(of.reduce((all, shard) => all + shard[count], 0))));
      });
  }

  /** Those that something is wrong with come first. */
  #shards(shards) {
    const wanted = this.filter.value.toLowerCase();
    const shown = shards.filter((shard) => `${shard.name} ${shard.node ?? ""}`.toLowerCase().includes(wanted))
      .sort((one, other) => isWell(one) - isWell(other) || one.number - other.number);
    const wrong = shown.filter((shard) => shard.reason);
    this.reasonsPanel.hidden = !wrong.length;
    keep(this.reasons, wrong, (shard) => String(shard.number), () => h("li", { dir: "auto" }),
      (item, shard) => put(item, `${shard.name}: ${shard.reason}`));
    keep(this.table.body, shown, (shard) => String(shard.number),
      (shard) => h("tr", {}, h("th", { scope: "row" }, shard.name), h("td.shard-state", {}, h("span", { "aria-hidden": "true" }), h("span")),
        h("td", {}, named("")), ...Array.from({ length: 9 }, () => h("td.number"))),
      (row, shard) => {
        const [, state, node, ...cells] = row.children;
        put(state.firstChild, `${MARKS[shard.state] ?? "○"} `);
        put(state.lastChild, shard.state);
        put(node.firstChild, shard.node ?? "–");
        attribute(node.firstChild, "title", shard.node ?? "");
        const told = [shard.process ?? "–", shownCount(shard.keys), shownCount(shard.rows), shownCount(shard.results),
          shownCount(shard.windows), shownSeconds(shard.seconds), shownCount(shard.restarts), shownCount(shard.windows_behind),
          shownSeconds(shard.seconds_behind)];
        told.forEach((text, i) => put(cells[i], String(text)));
        attribute(row, "data-status", shard.state === "running" && !isWell(shard) ? "warning" : STATUS[shard.state] ?? "warning");
      });
  }
}

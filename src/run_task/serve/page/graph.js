/* The pipeline as boxes and arrows, with what goes along them; dagre says where they are. */
/* global dagre */

import { attribute, h, named, put, shownCount, shownRate, shownSeconds } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 184;
const HEIGHT = { source: 66, data: 50, stage: 102, sink: 66 };
const KINDS = { source: "source", data: "data", stage: "stage", sink: "sink" };
/* Below this width, in pixels, it goes from top to bottom. */
const NARROW = 700;

/** The graph of one pipeline. */
export class Graph {
  /** @param {(stage: string) => string} linkTo the address of a stage's view */
  constructor(linkTo) {
    this.linkTo = linkTo;
    this.list = h("ol.graph-nodes");
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("aria-hidden", "true");
    this.canvas = h("div.graph-canvas", {}, this.svg, this.list);
    this.element = h("div.scroll.graph", { tabindex: 0, role: "group",
      "aria-label": "Graph of the pipeline: sources, data, stages and sinks" }, this.canvas);
    this.nodes = new Map();
    this.labels = [];
    this.resized = new ResizeObserver(() => {
      if (this.topology && this.#down() !== this.down) this.arrange(this.topology);
    });
    this.resized.observe(this.element);
  }

  destroy() {
    this.resized.disconnect();
  }

  #down() {
    return this.element.clientWidth > 0 && this.element.clientWidth < NARROW;
  }

  /** Lay out what there is. */
  arrange(topology) {
    this.topology = topology;
    this.down = this.#down();
    const graph = new dagre.graphlib.Graph();
    graph.setGraph({ rankdir: this.down ? "TB" : "LR", nodesep: 14, ranksep: 70, marginx: 8, marginy: 8 });
    graph.setDefaultEdgeLabel(() => ({}));
    const all = [
      ...topology.sources.map((node) => ({ ...node, kind: KINDS.source, title: node.name })),
      ...topology.data.map((node) => ({ ...node, kind: KINDS.data })),
      ...topology.stages.map((node) => ({ ...node, kind: KINDS.stage, title: node.name })),
      ...topology.sinks.map((node) => ({ ...node, kind: KINDS.sink })),
    ];
    const titles = new Map(all.map((node) => [node.id, node.title]));
    for (const node of all) graph.setNode(node.id, { width: WIDTH, height: HEIGHT[node.kind] });
    const edges = topology.edges.filter(([from, to]) => from !== to && titles.has(from) && titles.has(to));
    // dagre puts what it was told of last first.
    for (const [from, to] of [...edges].reverse()) graph.setEdge(from, to);
    dagre.layout(graph);
    const { width, height } = graph.graph();
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", height);
    this.nodes.clear();
    this.list.replaceChildren(...all.map((node) => {
      const to = edges.filter(([from]) => from === node.id).map(([, end]) => titles.get(end));
      const { x, y } = graph.node(node.id);
      return this.#box(node, x, y, to);
    }));
    this.#arrows(graph, edges);
  }

  #box(node, x, y, to) {
    const lines = h("span.graph-lines");
    const title = node.kind === KINDS.stage
      ? h("a", { href: this.linkTo(node.name) }, named(node.title)) : named(node.title);
    const item = h(`li.graph-node.is-${node.kind}`, {},
      h("span.graph-kind", {}, node.kind), h("span.graph-title", {}, title), lines,
      h("span.hidden", {}, to.length ? `. Goes to ${to.join(", ")}.` : "."));
    Object.assign(item.style, { left: `${x - WIDTH / 2}px`, top: `${y - HEIGHT[node.kind] / 2}px`,
      width: `${WIDTH}px`, height: `${HEIGHT[node.kind]}px` });
    this.nodes.set(node.id, { node, item, lines });
    if (node.kind === KINDS.data) {
      const columns = node.columns.map((name) => (name === node.key ? `${name} (key)` : name));
      lines.append(h("span.one-line", { title: columns.join(", "), dir: "auto" }, columns.join(", ")));
    }
    return item;
  }

  #arrows(graph, edges) {
    this.labels = [];
    const marker = document.createElementNS(SVG, "marker");
    for (const [name, value] of Object.entries({ id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4,
      markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse" })) marker.setAttribute(name, value);
    const tip = document.createElementNS(SVG, "path");
    tip.setAttribute("d", "M0 0L8 4L0 8z");
    tip.setAttribute("class", "graph-tip");
    marker.append(tip);
    const defs = document.createElementNS(SVG, "defs");
    defs.append(marker);
    this.svg.replaceChildren(defs);
    for (const [from, to] of edges) {
      const { points } = graph.edge(from, to);
      const line = document.createElementNS(SVG, "path");
      line.setAttribute("d", curve(points, this.down));
      line.setAttribute("class", "graph-edge");
      line.setAttribute("marker-end", "url(#arrow)");
      const text = document.createElementNS(SVG, "text");
      const { x, y } = middle(points);
      text.setAttribute("x", x);
      text.setAttribute("y", y - 6);
      text.setAttribute("class", "graph-rate");
      this.svg.append(line, text);
      this.labels.push({ from, to, text });
    }
  }

  /** Show how it goes now.
   * @param {object} state what the stream has told up to now */
  update(state) {
    for (const { node, item, lines } of this.nodes.values()) {
      if (node.kind === KINDS.source) this.#source(item, lines, state.sources[node.name]);
      if (node.kind === KINDS.stage) this.#stage(item, lines, state.stages[node.name]);
      if (node.kind === KINDS.sink) this.#sink(item, lines, state.sinks[node.title]);
    }
    for (const { from, to, text } of this.labels) {
      const [kind, name] = split(from);
      const of = kind === "source" ? state.sources[name] : kind === "stage" ? state.stages[name] : null;
      const rate = of ? shownRate(of.rate, kind === "source" ? "rows" : "") : "";
      put(text, rate);
      text.previousSibling.classList.toggle("is-still", !!of && !of.rate && !to.startsWith("sink"));
    }
  }

  #source(item, lines, now) {
    if (!now) return;
    const bad = now.malformed + now.rejected + now.ahead + now.expired;
    const status = now.connected === false ? "not connected" : now.rate ? "rows come" : "no rows now";
    rows(lines, [
      [`${shownCount(now.stored)} stored, ${shownCount(now.late)} late`, now.late > 0],
      [`${status}${bad ? `, ${shownCount(bad)} not stored` : ""}`, bad > 0 || now.connected === false],
    ]);
    attribute(item, "data-status", now.connected === false ? "failing" : bad ? "warning" : "ok");
  }

  #stage(item, lines, now) {
    if (!now) return;
    const failing = now.failing.length;
    rows(lines, [
      [spread("late", now.lateness), false],
      [spread("takes", now.duration), false],
      [now.keys ? `${shownCount(now.keys.count)} keys` : `${shownCount(now.windows)} windows`, false],
      [now.paused ? "paused" : `${shownCount(now.failed)} error${now.failed === 1 ? "" : "s"}${failing ? `, ${failing} failing` : ""}`,
        now.failed > 0 || now.paused],
    ]);
    attribute(item, "data-status", failing ? "failing" : now.paused || now.failed || now.missed ? "warning" : "ok");
  }

  #sink(item, lines, now) {
    if (!now) return;
    const bad = now.refused + now.dropped + now.lost + now.failures;
    rows(lines, [
      [`${shownCount(now.written)} written, ${shownCount(now.waiting)} wait`, false],
      [bad ? `${shownCount(bad)} refused, lost or failed` : "", bad > 0],
    ]);
    attribute(item, "data-status", bad ? "warning" : "ok");
  }
}

/** Lines of a box: a text each, and whether it is to be noticed. */
function rows(element, told) {
  told = told.filter(([text]) => text);
  while (element.children.length < told.length) element.append(h("span.one-line"));
  while (element.children.length > told.length) element.lastChild.remove();
  told.forEach(([text, notable], i) => {
    put(element.children[i], text);
    element.children[i].classList.toggle("notable", notable);
  });
}

const spread = (what, of) => `${what} ${shownSeconds(of.p50, 2)}, p99 ${shownSeconds(of.p99, 2)}`;

const split = (id) => [id.slice(0, id.indexOf(":")), id.slice(id.indexOf(":") + 1)];

function middle(points) {
  return points[Math.floor(points.length / 2)];
}

/** A path through points that leaves and enters boxes straight. */
function curve(points, down) {
  const [first, ...rest] = points;
  let path = `M${first.x} ${first.y}`;
  let before = first;
  for (const point of rest) {
    const half = down ? (before.y + point.y) / 2 : (before.x + point.x) / 2;
    path += down ? `C${before.x} ${half} ${point.x} ${half} ${point.x} ${point.y}`
      : `C${half} ${before.y} ${half} ${point.y} ${point.x} ${point.y}`;
    before = point;
  }
  return path;
}


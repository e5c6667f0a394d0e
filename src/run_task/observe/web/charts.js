/* Lines over time, drawn by uPlot: of the page of a service, of notebooks and of reports.

It imports nothing, so that it can stand in one file with what uses it; uPlot is a global. */
/* global uPlot */

/* Steps between marks of the axis of time, in seconds. */
const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
  3600, 7200, 10800, 21600, 43200, ...[1, 2, 3, 7, 14, 30, 60, 91, 182, 365, 730, 1825, 3650, 18250].map((days) => days * 86400)];
const DASHES = [[], [6, 3], [2, 3], [10, 3, 2, 3]];
const COLOURS = 10;
const SECOND = 1;
/* How often the text that stands for a drawing is written anew, in milliseconds. */
const TOLD_EVERY = 5000;

const numbers = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A number as people read it. */
export function shownNumber(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e12 || size < 1e-4)) return value.toExponential(3);
  return Number.isInteger(value) || size >= 1e5 ? plain.format(value) : numbers.format(value);
}

/** Make an element.
 * @param {string} tag its name, and classes after dots
 * @param {object} props attributes; functions are listeners
 * @param {...(Node|string)} children what it holds */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Set or remove an attribute where it is another than before. */
export function attribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Moments along the axis: the time as precise as their step, and the day where it is another one.
 * @param {number[]} at seconds since the Unix epoch
 * @param {number} step how many seconds lie between them */
function moments(at, step, zone) {
  const parts = new Intl.DateTimeFormat("en", { timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit",
    day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
  let before = null;
  return at.map((seconds) => {
    const of = Object.fromEntries(parts.formatToParts(new Date(seconds * 1e3)).map(({ type, value }) => [type, value]));
    const day = `${of.year}-${of.month}-${of.day}`;
    if (step >= 86400) return day;
    const time = [of.hour, of.minute, ...(step < 60 ? [of.second] : [])].join(":") + (step < 1 ? `.${of.fractionalSecond}` : "");
    const shown = before === day ? time : `${time}\n${day}`;
    before = day;
    return shown;
  });
}

/** The parts of a chart's look that depend on whether the page is light or dark. */
function colours(element) {
  // What a colour is there, light or dark, an element says that has it: as a property, it is two.
  const probe = h("span");
  element.append(probe);
  const style = getComputedStyle(probe);
  const of = (name, otherwise) => {
    probe.style.color = `var(${name}, ${otherwise})`;
    return style.color;
  };
  const found = {
    text: of("--muted", "#6b7280"),
    grid: of("--grid", "rgba(128,128,128,0.22)"),
    lines: Array.from({ length: COLOURS }, (_, i) => of(`--line-${i}`, "#4477aa")),
  };
  probe.remove();
  return found;
}

/** How the line of a place in a chart looks: its colour, and the dashes that tell it from others. */
function strokeOf(look, place) {
  return {
    stroke: look.lines[place % COLOURS],
    dash: DASHES[Math.floor(place / COLOURS) % DASHES.length],
  };
}

/** One chart: some lines over one axis of time, which can be zoomed by dragging. */
export class Lines {
  /**
   * @param {HTMLElement} host where it goes; as wide as that is
   * @param {{title: string, names: string[], height?: number, zone?: string, dated?: boolean, sync?: string,
   *   onZoom?: (from: number, to: number) => void, onReset?: () => void}} told
   */
  constructor(host, told) {
    this.told = told;
    this.columns = told.names.map(() => []);
    this.times = [];
    this.range = null;
    this.lastTold = 0;
    this.figure = document.createElement("figure");
    this.figure.className = "chart";
    this.caption = document.createElement("figcaption");
    const title = document.createElement("bdi");
    title.textContent = told.title;
    this.caption.append(title);
    this.picture = document.createElement("div");
    this.picture.className = "chart-picture";
    this.picture.setAttribute("role", "img");
    this.picture.setAttribute("aria-label", told.title);
    this.legend = document.createElement("ul");
    this.legend.className = "chart-legend";
    this.figure.append(this.caption, this.picture, this.legend);
    host.append(this.figure);
    this.resized = new ResizeObserver(() => this.#fit());
    this.resized.observe(this.picture);
    this.#draw();
  }

  /** Take what there is now; it is drawn unless the chart is out of sight.
   * @param {number[]} times seconds since the Unix epoch, ascending
   * @param {(number|null)[][]} columns for each name, one value a time
   * @param {[number, number]|null} range what to show of it; null: all
   */
  set(times, columns, range) {
    this.times = times;
    this.columns = columns;
    this.range = range;
    this.#show();
    this.#tell();
  }

  /** Draw anew, in the colours that hold now. */
  restyle() {
    this.plot.destroy();
    this.#draw();
  }

  destroy() {
    this.resized.disconnect();
    this.plot.destroy();
    this.figure.remove();
  }

  #draw() {
    const look = colours(this.figure);
    const axis = { stroke: look.text, grid: { stroke: look.grid, width: 1 }, ticks: { show: false } };
    this.plot = new uPlot(
      {
        width: Math.max(this.picture.clientWidth, 120),
        height: this.told.height ?? 180,
        legend: { show: false },
        cursor: {
          sync: this.told.sync ? { key: this.told.sync } : undefined,
          drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => () => (this.told.onReset?.(), null) },
        },
        tzDate: (at) => (this.told.zone ? uPlot.tzDate(new Date(at * 1e3), this.told.zone) : new Date(at * 1e3)),
        scales: {
          x: { time: this.told.dated !== false, range: (_, low, high) => this.#across(low, high) },
          y: { range: (_, low, high) => upAndDown(low, high) },
        },
        axes: [
          { ...axis, space: 76, size: 40, ...(this.told.dated === false ? {} : { incrs: STEPS }), values: (_, at, __, ___, step) =>
            (this.told.dated === false ? at.map(shownNumber) : moments(at, step, this.told.zone)) },
          { ...axis, size: 64, values: (_, at) => at.map(shownNumber) },
        ],
        series: [
          {},
          ...this.told.names.map((name, i) => ({
            label: name,
            width: 1.6,
            spanGaps: false,
            points: { show: (_, __, first, last) => last - first < 60 },
            ...strokeOf(look, i),
          })),
        ],
        hooks: {
          setSelect: [(plot) => this.#zoomed(plot)],
          setCursor: [(plot) => this.#atCursor(plot.cursor.idx)],
        },
      },
      [this.times, ...this.columns],
      this.picture,
    );
    this.legend.replaceChildren(
      ...this.told.names.map((name, i) => {
        const item = document.createElement("li");
        const mark = document.createElement("span");
        mark.className = "chart-mark";
        mark.style.background = look.lines[i % COLOURS];
        const label = document.createElement("bdi");
        label.textContent = name;
        const value = document.createElement("span");
        value.className = "chart-value";
        item.append(mark, label, value);
        return item;
      }),
    );
    this.#atCursor(null);
  }

  #across(low, high) {
    const [from, to] = this.range ?? [low ?? 0, high ?? 1];
    return to > from ? [from, to] : [from - SECOND, from + SECOND];
  }

  #zoomed(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const from = plot.posToVal(left, "x");
    const to = plot.posToVal(left + width, "x");
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.told.onZoom?.(from, to);
  }

  #atCursor(place) {
    const at = place ?? this.times.length - 1;
    [...this.legend.children].forEach((item, i) => {
      const text = shownNumber(this.columns[i]?.[at]);
      if (item.lastChild.textContent !== text) item.lastChild.textContent = text;
    });
  }

  #show() {
    this.plot.setData([this.times, ...this.columns]);
    if (this.plot.cursor.idx == null) this.#atCursor(null);
  }

  #fit() {
    const width = this.picture.clientWidth;
    if (width > 0 && width !== this.plot.width) {
      this.plot.setSize({ width, height: this.told.height ?? 180 });
    }
  }

  #tell() {
    const now = performance.now();
    if (this.lastTold && now - this.lastTold < TOLD_EVERY) return;
    this.lastTold = now;
    const [from, to] = this.range ?? [this.times[0], this.times.at(-1)];
    const lines = this.told.names.map((name, i) => {
      let low = Infinity;
      let high = -Infinity;
      let last = null;
      this.columns[i]?.forEach((value, at) => {
        if (value === null || value === undefined || this.times[at] < from || this.times[at] > to) return;
        low = Math.min(low, value);
        high = Math.max(high, value);
        last = value;
      });
      if (last === null) return `${name}: no numbers`;
      return `${name}: last ${shownNumber(last)}, from ${shownNumber(low)} to ${shownNumber(high)}`;
    });
    const over = to > from ? `, over ${Math.round(to - from)} seconds` : "";
    this.picture.setAttribute("aria-label", `${this.told.title}${over}. ${lines.join("; ")}`);
  }
}

/** The range of the axis of values: what there is, with some room around. */
function upAndDown(low, high) {
  if (low === null || low === undefined) return [0, 1];
  if (low === high) {
    if (low === 0) return [0, 1];
    const room = Math.abs(low) * 0.1;
    return [low - room, high + room];
  }
  const room = (high - low) * 0.08;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

const SPANS = [["1 minute", 60], ["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600]];
let made = 0;

/** Charts with one range, and what it takes to zoom and to move them, and to pause those that go on. */
export class Charts {
  /**
   * @param {string} label what they are of
   * @param {{zone?: string, dated?: boolean, moving?: boolean, span?: number|null}} told in which zone times are
   *   shown, or else in the reader's; whether they are times at all, or else numbers; whether more comes, so that they
   *   can be paused; of how many seconds, up to the newest, they show to begin with, null: all */
  constructor(label, { zone, dated, moving = true, span = moving ? 300 : null } = {}) {
    this.sync = `charts-${(made += 1)}`;
    this.zone = zone;
    this.dated = dated;
    this.span = span;
    this.zoom = null;
    this.paused = false;
    this.charts = new Map();
    this.shown = new Map();
    this.pauseButton = h("button", { type: "button", "aria-pressed": "false",
      click: () => this.pause(!this.paused) }, "Pause charts");
    this.latest = h("button", { type: "button", click: () => this.reset() }, moving ? "Latest" : "All");
    const spans = span === null ? [["all", ""], ...SPANS] : SPANS;
    const select = h("select", { change: () => { this.span = Number(select.value) || null; this.reset(); } },
      ...spans.map(([text, seconds]) => h("option", { value: seconds, selected: seconds === this.span }, text)));
    const button = (text, label_, act) =>
      h("button", { type: "button", "aria-label": label_, title: label_, click: act }, text);
    this.tools = h("div.chart-tools", { role: "toolbar", "aria-label": `${label}: what is shown` },
      ...(moving ? [h("label", {}, "Show ", select)] : []),
      button("+", "Zoom in", () => this.#scale(0.5)),
      button("−", "Zoom out", () => this.#scale(2)),
      button("◀", "Earlier", () => this.#move(-0.5)),
      button("▶", "Later", () => this.#move(0.5)),
      this.latest, ...(moving ? [this.pauseButton] : []));
    this.grid = h("div.charts");
    this.element = h("div", {}, this.tools, this.grid,
      h("p.muted.hint", {}, `Drag across a chart to zoom, double-click for ${moving ? "the latest" : "all"}.`));
    this.#told();
  }

  /** Which charts there are: those that stay are kept.
   * @param {Array<{id: string, title: string, names: string[], height?: number}>} wanted */
  arrange(wanted) {
    const ids = new Map(wanted.map((each) => [each.id, `${each.title}\n${each.names.join("\n")}`]));
    for (const [id, { chart, what }] of this.charts) {
      if (ids.get(id) !== what) {
        chart.destroy();
        this.charts.delete(id);
      }
    }
    for (const each of wanted) {
      if (this.charts.has(each.id)) continue;
      const chart = new Lines(this.grid, { ...each, sync: this.sync, zone: this.zone, dated: this.dated,
        onZoom: (from, to) => this.#to(from, to), onReset: () => this.reset() });
      this.charts.set(each.id, { chart, what: ids.get(each.id) });
    }
    wanted.forEach((each, place) => {
      const { figure } = this.charts.get(each.id).chart;
      if (this.grid.children[place] !== figure) this.grid.insertBefore(figure, this.grid.children[place] ?? null);
    });
  }

  /** Draw what there is now, unless paused.
   * @param {string} id @param {number[]} times @param {Array} columns */
  set(id, times, columns) {
    if (this.paused) return;
    this.shown.set(id, { times, columns });
    this.charts.get(id)?.chart.set(times, columns, this.#range());
  }

  /** @param {boolean} paused whether they stand still */
  pause(paused) {
    this.paused = paused;
    if (paused) { // what comes goes into the same arrays
      for (const [id, { times, columns }] of this.shown) {
        this.shown.set(id, { times: times.slice(), columns: columns.map((each) => each.slice()) });
      }
      this.#again();
    }
    this.#told();
  }

  reset() {
    this.zoom = null;
    this.#again();
  }

  restyle() {
    for (const { chart } of this.charts.values()) chart.restyle();
    this.#again();
  }

  destroy() {
    for (const { chart } of this.charts.values()) chart.destroy();
    this.charts.clear();
    this.shown.clear();
  }

  #range() {
    if (this.zoom) return this.zoom;
    let [oldest, newest] = [Infinity, -Infinity];
    for (const { times } of this.shown.values()) {
      oldest = Math.min(oldest, times[0] ?? Infinity);
      newest = Math.max(newest, times.at(-1) ?? -Infinity);
    }
    if (!Number.isFinite(newest)) return null;
    return [this.span === null ? oldest : Math.max(oldest, newest - this.span), newest];
  }

  #to(from, to) {
    const span = Math.min(Math.max(to - from, 0.5), this.span === null ? Infinity : 3600);
    const middle = (from + to) / 2;
    this.zoom = [middle - span / 2, middle + span / 2];
    this.#again();
  }

  #scale(by) {
    const [from, to] = this.#range() ?? [0, 0];
    const end = this.zoom ? (from + to) / 2 + ((to - from) * by) / 2 : to;
    this.#to(end - (to - from) * by, end);
  }

  #move(by) {
    const [from, to] = this.#range() ?? [0, 0];
    this.#to(from + (to - from) * by, to + (to - from) * by);
  }

  #again() {
    for (const [id, { times, columns }] of this.shown) {
      this.charts.get(id)?.chart.set(times, columns, this.#range());
    }
    this.#told();
  }

  #told() {
    attribute(this.pauseButton, "aria-pressed", String(this.paused));
    attribute(this.latest, "disabled", this.zoom ? null : "");
  }
}

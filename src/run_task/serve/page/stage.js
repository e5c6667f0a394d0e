/* One stage: its tasks, their values, and how they move. */

import { ask, path, Refused } from "./requests.js";
import { Charts } from "./charts.js";
import { ErrorList } from "./errors.js";
import { KeyTable } from "./keys.js";
import { Series } from "./series.js";
import { attribute, h, keep, named, panel, put, shownCount, shownKey, shownRate, shownSeconds, shownTime, shownValue, table } from "./dom.js";

/* How many tasks are drawn to begin with, and how many keys at most. */
const DRAWN_FIRST = 6;
const MOST_KEYS = 10;
const MOST_FURTHEST = 5;
/* How often numbers of the keys that are drawn are asked for, in milliseconds. */
const KEYS_EVERY = 1000;

/** The view of a stage. */
export class StageView {
  constructor(app, name) {
    this.app = app;
    this.name = name;
    this.title = `Stage ${name}`;
    this.about = h("p.muted", { dir: "auto" });
    this.pauseButton = h("button", { type: "button", click: () => this.#pause() }, "Pause stage");
    this.pauseTold = h("p.muted", { role: "status" });
    this.facts = h("dl.facts");
    this.mode = h("select", { change: () => this.#arrange() },
      h("option", { value: "each" }, "a chart for each"), h("option", { value: "one" }, "all in one chart"));
    this.charts = new Charts(`Stage ${name}`);
    this.modeLine = h("p", {}, h("label", {}, "Draw ", this.mode));
    this.chartsPanel = panel("Over time", this.modeLine, this.charts.element);
    this.noNumbers = h("p.muted", {}, "Nothing to draw yet.");
    this.chartsPanel.append(this.noNumbers);
    this.errors = new ErrorList(app, name);
    this.element = h("div.view", {}, h("p.missing", { hidden: true }, "There is no such stage (any more)."));
    this.series = new Map();
    this.checked = null;
    this.lastEnd = null;
    this.asked = 0;
  }

  topologyChanged(app) {
    const stage = app.topology.stages.find((each) => each.name === this.name);
    this.element.firstChild.hidden = !!stage;
    if (!stage) return;
    const tasks = stage.tasks.map((task) => task.name);
    const before = this.stage && shapeOf(this.stage);
    this.stage = stage;
    put(this.about, [`every ${stage.every}`, stage.window && `over ${stage.window}`, stage.grace && `grace ${stage.grace}`,
      stage.by && `by ${stage.by}`, stage.executor].filter(Boolean).join(", "));
    if (before === shapeOf(stage)) return;
    this.checked = new Set(tasks.slice(0, DRAWN_FIRST));
    this.tasks = stage.by
      ? table("Tasks", ["Draw", "Task", "Returns", ["Keys", "number"], ["Failed", "number"], ["Lowest", "number"],
        ["Median", "number"], ["Highest", "number"], "State", "Pause"])
      : table("Tasks", ["Draw", "Task", "Returns", ["Last value", "number"], "State", "Pause"]);
    this.keys?.destroy();
    this.keys = stage.by ? new KeyTable({ pipeline: app.pipeline, stage: this.name, by: stage.by, tasks,
      onToggle: (key) => this.#toggle(key), isDrawn: (key) => this.series.has(key) }) : null;
    this.#compose();
    if (!stage.by) this.series.set(null, new Series({ pipeline: app.pipeline, stage: this.name }));
    this.lastEnd = null;
  }

  #compose() {
    const { stage } = this;
    const parts = [
      panel("Stage", h("p.stage-name", {}, named(this.name)), this.about, this.facts, h("p", {}, this.pauseButton), this.pauseTold),
      panel("Tasks", this.tasks.frame),
    ];
    if (stage.by) {
      this.watched = h("ul.chips", { "aria-label": "Keys that are drawn" });
      this.worth = table("Keys worth a look", [stage.by, "Why", "Results"]);
      this.worthPanel = panel("Worth a look", this.worth.frame);
      parts.push(panel(`By ${stage.by}`, this.keys.element));
      this.modeLine.replaceWith(this.watched);
      this.noNumbers.textContent = "Choose keys in the table to draw them.";
    }
    this.chartsPanel.classList.toggle("wide", !stage.by);
    parts.push(this.chartsPanel, ...(stage.by ? [this.worthPanel] : []), panel("Errors of this stage", this.errors.element));
    this.element.replaceChildren(this.element.firstChild, ...parts);
  }

  destroy() {
    this.keys?.destroy();
    this.charts.destroy();
    this.errors.destroy();
    this.gone = true;
  }

  restarted() {
    for (const series of this.series.values()) series.clear();
    this.lastEnd = null;
    this.errors.restarted();
  }

  restyle() {
    this.charts.restyle();
  }

  update(app) {
    const now = app.state?.stages[this.name];
    if (!this.stage || !now) return;
    this.#facts(now);
    this.#tasks(now);
    this.errors.update(app);
    attribute(this.pauseButton, "aria-pressed", String(now.paused));
    put(this.pauseButton, now.paused ? "Resume stage" : "Pause stage");
    if (now.keys) this.#worth(now.keys.worth);
    if (now.end_ms !== this.lastEnd || this.keysNew) this.#numbers(now);
  }

  #facts(now) {
    const facts = [
      ["Windows", `${shownCount(now.windows)}, ${shownRate(now.rate, "windows")}`],
      ["Newest window", shownTime(now.end_ms)],
      ["Late p50 / p99 / most", [now.lateness.p50, now.lateness.p99, now.lateness.max].map((each) => shownSeconds(each)).join(" / ")],
      ["Takes p50 / p99 / most", [now.duration.p50, now.duration.p99, now.duration.max].map((each) => shownSeconds(each)).join(" / ")],
      ["Missed", shownCount(now.missed)], ["Empty", shownCount(now.empty)], ["Results missing", shownCount(now.failed)],
      ...(now.keys ? [["Keys", shownCount(now.keys.count)]] : []),
    ];
    keep(this.facts, facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")),
      (node, [, value]) => put(node.lastChild, value));
  }

  #tasks(now) {
    const failing = new Set(now.failing), paused = new Set(now.paused_tasks);
    keep(this.tasks.body, this.stage.tasks, (task) => task.name,
      (task) => {
        const box = h("input", { type: "checkbox", checked: this.checked.has(task.name), "aria-label": `Draw ${task.name}`,
          change: () => {
            if (box.checked) this.checked.add(task.name);
            else this.checked.delete(task.name);
            this.#arrange();
          } });
        const numbers = this.stage.by ? 5 : 1;
        return h("tr", {}, h("td", {}, box), h("th", { scope: "row" }, named(task.name)), h("td.muted", {}, task.returns),
          ...Array.from({ length: numbers }, () => h("td.number", { dir: "auto" })), h("td"),
          h("td", {}, h("button", { type: "button", click: () => this.#pause(task.name) })));
      },
      (row, task) => {
        const over = now.keys?.tasks[task.name];
        const told = this.stage.by
          ? [shownCount(over?.done), shownCount(over?.failed), ...[over?.low, over?.middle, over?.high].map(shownValue)]
          : [shownValue(now.values[task.name])];
        const fails = failing.has(task.name) || over?.failed, isPaused = paused.has(task.name);
        told.forEach((text, i) => put(row.children[3 + i], isPaused ? "–" : text));
        put(row.children[3 + told.length], isPaused ? "paused" : fails ? "fails" : "well");
        attribute(row, "data-status", isPaused ? "warning" : fails ? "failing" : "ok");
        const button = row.lastChild.firstChild;
        put(button, isPaused ? "Resume" : "Pause");
        attribute(button, "aria-label", `${isPaused ? "Resume" : "Pause"} task ${task.name}`);
        attribute(button, "aria-disabled", String(!isPaused && task.needed !== null));
      });
  }

  #worth(told) {
    // Some keys are always the furthest from the others: a few of them tell as much as all.
    const furthest = told.filter((each) => each.why === "furthest").slice(0, MOST_FURTHEST);
    const worth = told.filter((each) => each.why !== "furthest" || furthest.includes(each));
    this.worthPanel.hidden = !worth.length;
    keep(this.worth.body, worth, (each) => `${each.why} ${JSON.stringify(each.key)}`,
      (each) => h("tr", {}, h("th", { scope: "row" },
        h("button.link", { type: "button", click: () => { this.#toggle(each.key); this.keys.redraw(); } }, named(shownKey(each.key)))),
        h("td", {}, each.why), h("td", { dir: "auto" })),
      (row, each) => put(row.lastChild, Object.entries(each.results).map(([task, value]) => `${task} ${shownValue(value)}`).join(", ")));
  }

  #toggle(key) {
    if (this.series.has(key)) this.series.delete(key);
    else if (this.series.size >= MOST_KEYS) {
      this.app.announce(`${MOST_KEYS} keys are drawn, which is as many as can be told apart`);
      return;
    } else this.series.set(key, new Series({ pipeline: this.app.pipeline, stage: this.name, key }));
    keep(this.watched, [...this.series.keys()], String,
      (each) => h("li", {}, named(shownKey(each)), h("button", { type: "button", "aria-label": `Stop drawing ${shownKey(each)}`,
        click: () => { this.#toggle(each); this.keys.redraw(); } }, "×")), () => {});
    this.keysNew = true;
    this.#arrange();
    this.update(this.app);
  }

  async #numbers(now) {
    const moment = performance.now();
    if (this.keys) this.keys.refresh();
    if (this.keys && !this.keysNew && moment - this.asked < KEYS_EVERY) return;
    this.asked = moment;
    this.lastEnd = now.end_ms;
    this.keysNew = false;
    try {
      const fresh = await Promise.all([...this.series.values()].map((series) => series.more()));
      if (!this.gone && fresh.some(Boolean)) this.#arrange();
    } catch {
      this.lastEnd = null; // asked again with what comes next
    }
  }

  /** Which charts there are, and what is in them. */
  #arrange() {
    if (!this.checked) return;
    const all = [...this.series.values()];
    const there = [...new Set(all.flatMap((series) => series.drawable()))];
    const tasks = this.stage.tasks.map((task) => task.name);
    const names = there.filter((name) => this.checked.has(taskOf(name, tasks)));
    this.noNumbers.hidden = names.length > 0;
    if (this.stage.by) {
      const keys = [...this.series.keys()];
      this.charts.arrange(names.map((name) => ({ id: name, title: name, names: keys.map(shownKey) })));
      const times = union(all.map((series) => series.times));
      for (const name of names) {
        this.charts.set(name, times, all.map((series) => placed(times, series.times, series.columns[name])));
      }
    } else if (this.mode.value === "one") {
      this.charts.arrange(names.length ? [{ id: "all", title: names.length === 1 ? names[0] : `${names.length} numbers`, names, height: 320 }] : []);
      const [series] = all;
      if (names.length) this.charts.set("all", series.times, names.map((name) => series.columns[name]));
    } else {
      this.charts.arrange(names.map((name) => ({ id: name, title: name, names: [name] })));
      for (const name of names) this.charts.set(name, all[0].times, [all[0].columns[name]]);
    }
  }

  /** Pause or resume a task, or, without one, the stage. */
  async #pause(task = null) {
    const now = this.app.state.stages[this.name];
    const pause = task === null ? !now.paused : !now.paused_tasks.includes(task);
    const needed = pause && this.stage.tasks.find((each) => each.name === task)?.needed;
    if (needed) {
      put(this.pauseTold, `Task ${task} cannot be paused: ${needed}.`);
      return;
    }
    if (!(await this.app.mayChange())) {
      put(this.pauseTold, "Not allowed: the service has no token by which it could be, or none was given.");
      return;
    }
    try {
      await ask(path(`api/stages/${encodeURIComponent(this.name)}/${pause ? "pause" : "resume"}`,
        { pipeline: this.app.pipeline, task }), { method: "POST" });
      put(this.pauseTold, !pause ? `${task ?? "It"} goes on.`
        : task === null ? "Paused: windows that fall due are counted as missed."
          : `${task} is paused: windows give no result of it, and its state stays as it is.`);
    } catch (error) {
      put(this.pauseTold, error instanceof Refused ? `Refused: ${error.message}` : "The service does not answer.");
    }
  }
}

/** What of a stage its tables and charts are made for. */
function shapeOf(stage) {
  return JSON.stringify([stage.by, stage.tasks.map((task) => [task.name, task.returns])]);
}

/** Which task a number is of: of its own name, or with that of a field behind it. */
function taskOf(name, tasks) {
  if (tasks.includes(name)) return name;
  return tasks.filter((task) => name.startsWith(`${task}_`)).sort((a, b) => b.length - a.length)[0];
}

/** All times of several rows of times, in ascending order. */
function union(rows) {
  if (rows.length === 1) return rows[0];
  return [...new Set(rows.flat())].sort((a, b) => a - b);
}

/** Values at the times where they are, among others. */
function placed(times, own, values) {
  if (!values) return times.map(() => null);
  if (times === own) return values;
  const at = new Map(own.map((time, i) => [time, values[i]]));
  return times.map((time) => at.get(time) ?? null);
}

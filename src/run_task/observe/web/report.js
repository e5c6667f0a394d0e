/* A report: what is told in its block of JSON, as tables and charts. It follows charts.js in one script. */

const told = JSON.parse(document.getElementById("told").textContent);

const named = (text) => h("bdi", {}, text);
const heading = (level, text) => h(`h${level}`, { dir: "auto" }, text);
const shownSeconds = (seconds) => {
  if (seconds === null) return "–";
  for (const [unit, name] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (seconds >= unit || unit === 1e-6) return `${shownNumber(Number((seconds / unit).toPrecision(3)))} ${name}`;
  }
};

function table(label, heads, rows) {
  const kind = (i) => (typeof rows[0]?.[i] === "object" ? "" : ".number");
  return h("div.scroll", { tabindex: 0, role: "group", "aria-label": label }, h("table", {},
    h("caption.hidden", {}, label),
    h("thead", {}, h("tr", {}, ...heads.map((head, i) => h(`th${kind(i)}`, { scope: "col" }, head)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, i) => h(i ? `td${kind(i)}` : "th", i ? {} : { scope: "row" }, cell)))))));
}

function stage(of) {
  const section = h("section.panel", { "aria-label": of.name }, heading(2, of.name), h("p.muted", { dir: "auto" }, of.about));
  main.append(section);
  section.append(table(`Tasks of ${of.name}`, ["Task", "Results", "Errors", "Takes, mean", "Longest"],
    of.tasks.map((task) => [named(task.name), shownNumber(task.results), shownNumber(task.errors), shownSeconds(task.mean), shownSeconds(task.longest)])));
  if (of.left_out.length) section.append(h("p.muted", { dir: "auto" }, `Not drawn: ${of.left_out.join(", ")}`));
  draw(section, of.name, of.zone, of.charts);
}

function draw(section, name, zone, told) {
  const charts = new Charts(name, { zone: zone ?? undefined, dated: zone !== null, moving: false });
  section.append(charts.element);
  charts.arrange(told.map((chart, i) => ({ id: String(i), title: chart.title, names: chart.names })));
  told.forEach((chart, i) => charts.set(String(i), chart.times, chart.columns));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.restyle());
}

function sources() {
  const kinds = Object.keys(told.sources[0].counts);
  const section = h("section.panel", { "aria-label": "Fates of rows" }, heading(2, "Fates of rows"),
    table("Fates of rows", ["Source", ...kinds],
      told.sources.map((source) => [named(source.name), ...kinds.map((kind) => shownNumber(source.counts[kind]))])),
    ...told.warnings.map((text) => h("p.notable", { dir: "auto" }, text)));
  main.append(section);
  if (told.fates.length) draw(section, "Fates of rows", told.zone, told.fates);
}

function failures() {
  main.append(h("section.panel", { "aria-label": "Errors" }, heading(2, "Errors"),
    ...(told.failures.length ? [] : [h("p.muted", {}, "No task has failed.")]),
    ...told.failures.map((failure) => h("details", {},
      h("summary", {}, h("strong", { dir: "auto" }, failure.what), ` ${shownNumber(failure.times)} ×, task `, named(failure.task), " of ",
        named(failure.stage), ...(failure.key === null ? [] : [", last of key ", named(failure.key)])),
      h("pre", { tabindex: 0, dir: "ltr" }, failure.traceback ?? "There is no traceback.")))));
}

const main = document.querySelector("main");
main.replaceChildren(h("h1", { dir: "auto" }, told.title), h("p.muted", {}, told.made),
  h("dl.facts", {}, ...told.facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value)))));
told.stages.forEach(stage);
if (told.sources.length) sources();
failures();

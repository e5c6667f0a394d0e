/* Charts of a pipeline in a notebook, as a widget; it follows uPlot and charts.js in one module. */

/** Whether what is around an element is dark: a notebook has a theme of its own. */
function isDark(element) {
  const parts = getComputedStyle(element).color.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0];
  return parts[0] + parts[1] + parts[2] > 380; // of text that is light
}

class Shown {
  constructor(el) {
    this.title = h("p.show-title", { dir: "auto" });
    this.stages = h("div");
    this.root = h("div.run-task-show", {}, this.title, this.stages);
    el.append(this.root);
    this.root.dataset.theme = isDark(el) ? "dark" : "light";
    this.parts = new Map();
  }

  update(told) {
    if (!told.name) return;
    this.title.textContent = `${told.name}: ${told.state}`;
    for (const stage of told.stages) this.#stage(stage);
  }

  destroy() {
    for (const { charts } of this.parts.values()) charts.destroy();
  }

  #stage(stage) {
    if (!this.parts.has(stage.name)) {
      const charts = new Charts(stage.name, { span: null });
      const about = h("p.show-about", { dir: "auto" });
      this.stages.append(h("section", { "aria-label": stage.name }, h("h4", { dir: "auto" }, stage.name), about, charts.element));
      this.parts.set(stage.name, { charts, about });
    }
    const { charts, about } = this.parts.get(stage.name);
    if (about.textContent !== stage.about) about.textContent = stage.about;
    charts.arrange(stage.charts.map(({ title, names }) => ({ id: title, title, names })));
    for (const { title, columns } of stage.charts) charts.set(title, stage.times, columns);
  }
}

export default {
  render({ model, el }) {
    const shown = new Shown(el);
    const update = () => shown.update(model.get("told"));
    model.on("change:told", update);
    update();
    return () => {
      model.off("change:told", update);
      shown.destroy();
    };
  },
};

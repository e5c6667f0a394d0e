/* What tasks failed by, each cause once, the newest first. */

import { ask, path } from "./requests.js";
import { h, keep, named, put, shownCount, shownKey, shownTime, widePanel } from "./dom.js";

/* How long the order stays as it is, in milliseconds: errors that take turns would change places. */
const ORDER_FOR = 3000;

/** A list of errors, of all stages or of one. */
export class ErrorList {
  constructor(app, stage = null) {
    this.app = app;
    this.stage = stage;
    this.none = h("p.muted", {}, "No task has failed.");
    this.list = h("ul.errors");
    this.element = h("div", {}, this.none, this.list);
    this.order = [];
    this.orderedAt = 0;
    this.tracebacks = new Map();
  }

  restarted() {
    this.tracebacks.clear();
  }

  destroy() {
    this.gone = true;
  }

  update({ state, linkTo }) {
    const errors = (state?.errors ?? []).filter((error) => this.stage === null || error.stage === this.stage);
    this.none.hidden = errors.length > 0;
    keep(this.list, this.#ordered(errors), (error) => error.id, (error) => this.#item(error, linkTo), (node, error) => {
      const [count, last] = node.querySelectorAll("[data-told]");
      put(count, `${shownCount(error.times)} ×`);
      put(last, `last ${shownTime(error.last_ms)}, first ${shownTime(error.first_ms)}${
        error.key === null ? "" : `, last of key ${shownKey(error.key)}`}`);
    });
  }

  /** In the order of before while somebody reads it, and else the newest first. */
  #ordered(errors) {
    const now = performance.now();
    const read = this.list.matches(":hover, :focus-within");
    if (now - this.orderedAt > ORDER_FOR && !read) {
      this.orderedAt = now;
      this.order = errors.map((error) => error.id);
    }
    const place = new Map(this.order.map((id, i) => [id, i]));
    return [...errors].sort((one, other) => (place.get(one.id) ?? -1) - (place.get(other.id) ?? -1));
  }

  #item(error, linkTo) {
    const trace = h("pre", { tabindex: 0, dir: "ltr" }, "Loading");
    const details = h("details", { toggle: () => details.open && this.#show(error.id, trace) },
      h("summary", {}, h("strong", { dir: "auto" }, error.what), " ", h("span.count", { "data-told": true })), trace);
    return h("li", {}, details, h("p.muted", {}, "Task ", named(error.task), " of ",
      h("a", { href: linkTo("stage", error.stage) }, named(error.stage)), `, ${error.cause}. `, h("span", { "data-told": true })));
  }

  async #show(id, trace) {
    if (!this.tracebacks.has(id)) {
      try {
        const { errors } = await ask(path("api/errors", { pipeline: this.app.pipeline }));
        for (const error of errors) this.tracebacks.set(error.id, error.traceback ?? "There is no traceback.");
      } catch (failure) {
        put(trace, failure.message);
        return;
      }
    }
    put(trace, this.tracebacks.get(id) ?? "It is no longer among the latest errors.");
  }
}

/** The view of all errors. */
export class ErrorsView {
  constructor(app) {
    this.title = "Errors";
    this.errors = new ErrorList(app);
    this.element = h("div.view", {}, widePanel("Errors, the newest first", this.errors.element));
  }

  topologyChanged() {}

  restarted() {
    this.errors.restarted();
  }

  update(app) {
    this.errors.update(app);
  }

  destroy() {
    this.errors.destroy();
  }
}

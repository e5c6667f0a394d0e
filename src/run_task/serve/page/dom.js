/* Elements and texts. All text is text: nothing that a pipeline says is ever taken for HTML. */

import { attribute, h, shownNumber } from "./charts.js";

export { attribute, h };

/** A name of the user's: in its own direction, and whole for those who point at it. */
export const named = (text) => h("bdi.name", { title: text }, text);

/** Put a text where it is another than before: what does not change is not drawn again. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Keep the children of an element in step with items: those that stay are the same nodes.
 * @param {HTMLElement} parent
 * @param {Array} items
 * @param {(item) => string} keyOf
 * @param {(item) => HTMLElement} make
 * @param {(node: HTMLElement, item) => void} update */
export function keep(parent, items, keyOf, make, update) {
  const before = new Map([...parent.children].map((node) => [node.dataset.item, node]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = before.get(key);
    before.delete(key);
    if (!node) {
      node = make(item);
      node.dataset.item = key;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  for (const node of before.values()) node.remove();
}

/** A length of time, given in seconds, by so many digits. */
export function shownSeconds(seconds, digits = 3) {
  if (seconds === null || seconds === undefined) return "–";
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  for (const [unit, name] of [[1e-6, "µs"], [1e-3, "ms"], [1, "s"]]) {
    if (size < unit * 1e3 && (unit < 1 || size < 100)) return `${shownNumber(Number((seconds / unit).toPrecision(digits)))} ${name}`;
  }
  const whole = Math.round(size);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const from = parts.findIndex(([unit]) => whole >= unit);
  let rest = whole;
  return parts.slice(from, from + 2).map(([unit, name]) => {
    const count = Math.floor(rest / unit);
    rest %= unit;
    return `${count} ${name}`;
  }).join(" ");
}

/** How many a second. */
export const shownRate = (rate, what) => `${shownNumber(Number((rate ?? 0).toPrecision(3)))} ${what}/s`.replace(" /", "/");

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A moment, given in milliseconds since the epoch: with its day, unless that is today. */
export function shownTime(ms) {
  if (ms === null || ms === undefined) return "–";
  const at = new Date(ms);
  return (at.toDateString() === new Date().toDateString() ? clock : day).format(at);
}

/** A result of any kind. */
export function shownValue(value) {
  if (typeof value === "number") return shownNumber(value);
  if (value === null || value === undefined) return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A key, also one without a character, which would leave nothing to see or to click on. */
export const shownKey = (key) => (key === "" ? "(empty)" : String(key));

export const shownCount = (count) => (count ?? 0).toLocaleString("en");

/** A table of the page in a frame that scrolls sideways where there is no room, also by keyboard.
 * @param {string} label what it is of
 * @param {Array<string|[string, string]>} heads the columns; a pair: with a class
 * @returns {{frame: HTMLElement, body: HTMLElement}} */
export function table(label, heads) {
  const body = h("tbody");
  const cells = heads.map((head) => {
    const [text, kind] = Array.isArray(head) ? head : [head, ""];
    return h(`th${kind ? `.${kind}` : ""}`, { scope: "col" }, text);
  });
  const frame = h("div.scroll", { tabindex: 0, role: "group", "aria-label": label },
    h("table", {}, h("caption.hidden", {}, label), h("thead", {}, h("tr", {}, ...cells)), body));
  return { frame, body };
}

let panels = 0;

/** A part of a view, with a heading. */
export function panel(title, ...children) {
  const id = `panel-${(panels += 1)}`;
  return h("section.panel", { "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

/** One that is as wide as the view where others stand beside each other. */
export function widePanel(title, ...children) {
  const made = panel(title, ...children);
  made.classList.add("wide");
  return made;
}

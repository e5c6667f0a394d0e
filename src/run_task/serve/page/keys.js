/* The results of a window by key: a table of which only the rows in sight are asked for. */
/* global agGrid */

import { ask, path, Refused } from "./requests.js";
import { attribute, h, put, shownCount, shownKey, shownTime, shownValue } from "./dom.js";

const BLOCK = 100;
/* How often, at most, rows in sight are asked for anew, in milliseconds. */
const EVERY = 250;

const WHERE_HINT = "Comparisons joined by and: a task, or a field of its result as task_field; = != < <= > >=; "
  + "a number, a text in quotes, true, false or null. What is missing is only found by = null.";

const same = (one, other) => one.search === other.search && one.where === other.where;

/** A table of keys that is sorted and searched by the service. */
export class KeyTable {
  /** @param {{pipeline: string|null, stage: string, by: string, tasks: string[],
   *   onToggle: (key: string|number) => void, isDrawn: (key: string|number) => boolean}} of */
  constructor(of) {
    this.of = of;
    this.sort = { sort: null, descending: false };
    this.asked = 0;
    this.refused = null; // what could not be searched for
    this.count = h("p.muted", { role: "status" });
    this.search = h("input", { type: "search", placeholder: `Find a ${of.by}`, "aria-label": `Find a ${of.by}`,
      input: () => this.#anew() });
    const example = of.tasks[0] ? `${of.tasks[0]} > 3` : "";
    this.where = h("input.where", { type: "search", placeholder: `Only where … as ${example}`,
      "aria-label": "Only keys where", title: WHERE_HINT, "aria-describedby": "where-fault",
      spellcheck: "false", autocomplete: "off", input: () => this.#anew() });
    this.fault = h("p.error", { role: "status", id: "where-fault" });
    this.host = h("div.key-grid.ag-theme-quartz");
    this.element = h("div", {}, h("div.key-tools", {}, this.search, this.where, this.count),
      this.fault,
      h("p.muted.hint", {}, "A click on a row, or Enter in it, draws its key. A click on a heading, or Enter on it, sorts."),
      this.host);
    const column = (field, value, more = {}) => ({ colId: field, valueGetter: (row) => row.data && value(row.data),
      valueFormatter: (cell) => (cell.data ? shownValue(cell.value) : ""), sortable: true, ...more });
    this.grid = agGrid.createGrid(this.host, {
      theme: "legacy",
      rowModelType: "infinite",
      cacheBlockSize: BLOCK,
      maxBlocksInCache: 10,
      infiniteInitialRowCount: 1,
      rowHeight: 32,
      headerHeight: 36,
      suppressMultiSort: true,
      suppressDragLeaveHidesColumns: true,
      enableCellTextSelection: true,
      ensureDomOrder: true,
      defaultColDef: { minWidth: 110, flex: 1, resizable: true, comparator: () => 0, suppressMovable: true },
      columnDefs: [
        column("drawn", (row) => (of.isDrawn(row.key) ? "drawn" : ""), { headerName: "Drawn", sortable: false,
          flex: 0, width: 90, minWidth: 80 }),
        column("key", (row) => row.key, { headerName: of.by, minWidth: 160, flex: 2,
          valueFormatter: (cell) => (cell.data ? shownKey(cell.value) : "") }),
        ...of.tasks.map((task, i) => column(`task-${i}`, (row) => row.results[task] ?? null, { headerName: task,
          cellClass: "number" })),
        column("errors", (row) => Object.entries(row.errors).map(([task, why]) => `${task}: ${why}`).join("; "),
          { headerName: "Errors", sortable: false, minWidth: 160, flex: 2, cellClass: "error" }),
      ],
      datasource: { getRows: (params) => this.#rows(params) },
      onRowClicked: (event) => event.data && this.#toggle(event.data.key),
      onCellKeyDown: (event) => {
        if (event.event.key === "Enter" && event.data) this.#toggle(event.data.key);
      },
    });
  }

  /** What the search and the condition hold. */
  get searched() {
    return { search: this.search.value.trim() || null, where: this.where.value.trim() || null };
  }

  /** There is another window: the rows in sight are asked for. */
  async refresh() {
    const now = performance.now();
    if (this.refused && same(this.refused, this.searched)) return; // it would be again
    if (this.busy || now - this.asked < EVERY) return;
    this.asked = now;
    this.busy = true;
    try {
      const first = Math.max(this.grid.getFirstDisplayedRowIndex(), 0);
      const last = Math.max(this.grid.getLastDisplayedRowIndex(), first + 20);
      const { searched, sort } = { searched: this.searched, sort: this.sort };
      const page = await this.#page(first, last - first + 1);
      if (this.gone || !same(searched, this.searched) || sort !== this.sort) return;
      if (page.matching !== this.matching) this.grid.setRowCount(page.matching, true);
      this.#told(page);
      page.rows.forEach((row, i) => this.grid.getDisplayedRowAtIndex(first + i)?.setData(row));
    } catch {
      /* The next window asks again; the banner tells if the service is gone. */
    } finally {
      this.busy = false;
    }
  }

  /** Which keys are drawn has changed. */
  redraw() {
    this.grid.refreshCells({ force: true, columns: ["drawn"] });
  }

  destroy() {
    this.gone = true;
    this.grid.destroy();
  }

  #toggle(key) {
    this.of.onToggle(key);
    this.redraw();
  }

  #anew() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.grid.purgeInfiniteCache(), 150);
  }

  #page(offset, limit) {
    const { pipeline, stage } = this.of;
    const { sort, descending } = this.sort;
    return ask(path("api/keys", { pipeline, stage, ...this.searched, sort, descending, offset, limit }));
  }

  async #rows({ startRow, endRow, sortModel, successCallback, failCallback }) {
    const [by] = sortModel;
    // Without a task it is sorted by key.
    this.sort = { sort: by && by.colId !== "key" ? this.of.tasks[Number(by.colId.slice(5))] : null,
      descending: by?.sort === "desc" };
    const searched = this.searched;
    try {
      const page = await this.#page(startRow, endRow - startRow);
      if (this.gone) return;
      this.#told(page);
      successCallback(page.rows, page.matching);
    } catch (error) {
      if (this.gone) return;
      if (searched.where && same(searched, this.searched) && error instanceof Refused && error.status < 500) {
        this.#refuse(searched, error.message);
        successCallback([], 0);
      } else failCallback();
    }
  }

  /** The condition cannot be read. */
  #refuse(searched, message) {
    this.refused = searched;
    put(this.fault, message);
    attribute(this.where, "aria-invalid", "true");
    put(this.count, "");
    this.matching = 0;
  }

  #told(page) {
    this.matching = page.matching;
    this.refused = null;
    put(this.fault, "");
    attribute(this.where, "aria-invalid", "false");
    const { search, where } = this.searched;
    const found = search || where ? `${shownCount(page.matching)} of ${shownCount(page.count)} keys` : `${shownCount(page.count)} keys`;
    put(this.count, found);
    this.count.title = page.end_ms === null ? "" : `of the window that ended at ${shownTime(page.end_ms)}`;
  }
}

// The review of records that a model wrote: a accepts, r rejects, e edits, j and k move, while the focus is in the table
// (WCAG 2.1.4); all of it by mouse, too.

import { call, RequestRefused } from "./api.js";
import { closest, find, findAll } from "./dom.js";
import { number } from "./format.js";

/** @typedef {"draft" | "accepted" | "rejected"} DraftState */

/** @param {HTMLElement} root */
export function start(root) {
  new DraftReview(root);
}

class DraftReview {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.address = root.dataset.address ?? "";
    this.#focus(this.#rows[0], false);
    find(root, "table").addEventListener("keydown", (event) => this.#press(event));
    root.addEventListener("click", (event) => this.#click(event));
    root.addEventListener("change", (event) => this.#edited(event));
    root.addEventListener("focusin", (event) => this.#choose(closest(event, "[data-draft]")));
  }

  get #rows() {
    return findAll(this.root, "[data-draft]");
  }

  /** @param {HTMLElement} row */
  #cells(row) {
    return findAll(row, "[data-cell]").filter((cell) => cell instanceof HTMLTextAreaElement);
  }

  get #current() {
    return this.#rows.find((row) => row.tabIndex === 0) ?? this.#rows[0];
  }

  // One row is in the order of Tab: the one that keys are about.
  /** @param {HTMLElement | null} row */
  #choose(row) {
    if (!row) return;
    for (const other of this.#rows) other.tabIndex = other === row ? 0 : -1;
  }

  /**
   * @param {HTMLElement | undefined} row
   * @param {boolean} [isMoved] whether the keyboard goes there
   */
  #focus(row, isMoved = true) {
    if (!row) return;
    this.#choose(row);
    if (isMoved) row.focus();
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    const isWriting = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
    if (isWriting) {
      if (event.key === "Escape") this.#focus(closest(event, "[data-draft]") ?? undefined);
      return;
    }
    const row = this.#current;
    const step = { j: 1, k: -1 }[event.key];
    if (step) this.#focus(this.#rows[this.#rows.indexOf(row) + step]);
    else if (event.key === "a") this.#decide(row, "accepted", true);
    else if (event.key === "r") this.#decide(row, "rejected", true);
    else if (event.key === "e") this.#cells(row)[0]?.focus();
    else return;
    event.preventDefault();
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const row = closest(event, "[data-draft]");
    const button = closest(event, "[data-set]");
    if (row && button) {
      const state = /** @type {DraftState} */ (button.dataset.set);
      this.#decide(row, row.dataset.state === state ? "draft" : state, false);
    }
    if (closest(event, "[data-accept-all]")) this.#acceptAll();
  }

  async #acceptAll() {
    const counts = await this.#send("POST", "/review", { state: "accepted" });
    if (counts) location.reload();
  }

  /**
   * @param {HTMLElement} row
   * @param {DraftState} state
   * @param {boolean} movesOn to the next row
   */
  async #decide(row, state, movesOn) {
    if (movesOn) this.#focus(this.#rows[this.#rows.indexOf(row) + 1] ?? row);
    await this.#change(row, { state });
  }

  /** @param {Event} event */
  #edited(event) {
    const row = closest(event, "[data-draft]");
    if (row && closest(event, "[data-cell]")) this.#change(row, { cells: this.#cells(row).map((cell) => cell.value) });
  }

  // Changes are sent one after another, so that the last one of a record stays.
  #queue = Promise.resolve();

  /**
   * @param {HTMLElement} row
   * @param {object} body
   */
  #change(row, body) {
    this.#queue = this.#queue.then(async () => {
      const draft = await this.#send("PUT", `/records/${row.dataset.draft}`, body);
      if (draft) this.#show(row, draft);
    });
    return this.#queue;
  }

  /**
   * @param {HTMLElement} row
   * @param {{ state: DraftState }} draft
   */
  #show(row, { state }) {
    const before = row.dataset.state;
    row.dataset.state = state;
    const word = find(row, "[data-state-word]");
    word.textContent = word.dataset[`${state}Word`] ?? "";
    find(this.root, "[data-status]").textContent = `${row.ariaLabel}: ${word.textContent}`;
    for (const button of findAll(row, "[data-set]")) button.ariaPressed = String(button.dataset.set === state);
    if (before !== state) {
      this.#count(before, -1);
      this.#count(state, 1);
    }
  }

  /**
   * @param {string | undefined} state
   * @param {number} change
   */
  #count(state, change) {
    for (const element of findAll(document, `[data-count="${state}"]`)) {
      const count = Number(element.dataset.n ?? element.textContent?.replace(/\D/g, "")) + change;
      element.dataset.n = String(count);
      element.textContent = number(count);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object} body
   */
  async #send(method, path, body) {
    const alert = find(this.root, "[data-error]");
    try {
      const answer = await call(method, this.address + path, body);
      alert.hidden = true;
      return answer;
    } catch (error) {
      alert.hidden = false;
      find(alert, "p").textContent = error instanceof RequestRefused ? error.message : (this.root.dataset.away ?? "");
      return null;
    }
  }
}

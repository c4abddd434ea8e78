// Searches the log of a job on the server: the lines that contain a text or are warnings or errors. A click on one shows
// the lines around it.

import { closest, find, findAll } from "./dom.js";
import { fillPlural } from "./format.js";

const SEARCH_AFTER = 250; // milliseconds without another key
const PAGE = 50; // lines shown at once

/** @typedef {{ offset: number, text: string, level: string }} LogLine */

export class LogSearch {
  #abort = new AbortController();
  #timer = 0;
  #next = "";

  /**
   * @param {HTMLElement} root the card of the log
   * @param {string} address of the log's lines
   */
  constructor(root, address) {
    this.root = root;
    this.address = address;
    this.text = find(root, "[data-log-text]", HTMLInputElement);
    this.level = find(root, "[data-log-level]", HTMLSelectElement);
    this.list = find(root, "[data-log-hits]");
    this.status = find(root, "[data-log-status]");
    this.more = find(root, "[data-log-more]");
    this.text.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#search(), SEARCH_AFTER);
    });
    this.level.addEventListener("change", () => this.#search());
    this.more.addEventListener("click", () => this.#load());
    this.list.addEventListener("click", (event) => {
      const button = closest(event, "[data-offset]");
      if (button) this.#toggle(button);
    });
    if (this.text.value || this.level.value) this.#search(); // the browser kept them when the page was loaded again
  }

  async #search() {
    const isSearching = Boolean(this.text.value || this.level.value);
    this.root.toggleAttribute("data-searching", isSearching);
    this.list.replaceChildren();
    this.#next = "0";
    if (isSearching) await this.#load();
    else this.#abort.abort();
  }

  // A page of hits. The server reads some megabytes at a time, so that it may take many requests to find them.
  async #load() {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.more.hidden = true;
    this.status.textContent = this.status.dataset.loading ?? "";
    for (let wanted = PAGE; wanted > 0 && this.#next; ) {
      const page = await this.#fetch({ after: this.#next, limit: String(wanted) }, signal);
      if (signal.aborted) return;
      if (!page) return this.#say(this.status.dataset.failed ?? "");
      this.list.append(...page.data.map((line) => this.#hit(line)));
      this.#next = page.next ?? "";
      wanted -= page.data.length;
    }
    const n = this.list.childElementCount;
    this.#say(fillPlural(this.#next ? this.status.dataset.first : this.status.dataset.all, n));
  }

  /** @param {string} sentence */
  #say(sentence) {
    this.status.textContent = sentence;
    this.more.hidden = !this.#next;
  }

  /**
   * @param {Record<string, string>} query
   * @param {AbortSignal} [signal]
   * @returns {Promise<{ data: LogLine[], next: string | null } | null>} null if the server did not answer
   */
  async #fetch(query, signal) {
    const search = new URLSearchParams(query);
    if (this.text.value) search.set("search", this.text.value);
    if (this.level.value) search.set("level", this.level.value);
    try {
      const answer = await fetch(`${this.address}?${search}`, { signal });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }

  /** @param {LogLine} line */
  #hit({ offset, text, level }) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.offset = String(offset);
    button.dataset.level = level;
    button.setAttribute("aria-expanded", "false");
    button.append(...marked(text, this.text.value));
    item.append(button);
    return item;
  }

  /** @param {HTMLElement} button */
  async #toggle(button) {
    const shown = button.nextElementSibling;
    if (shown) shown.remove();
    else {
      const page = await this.#fetch({ around: button.dataset.offset ?? "" });
      if (!page || button.nextElementSibling) return;
      button.after(around(page.data, Number(button.dataset.offset)));
    }
    button.setAttribute("aria-expanded", String(!shown));
  }
}

/**
 * A text in which each place of another one, in upper or lower case, is marked.
 * @param {string} text
 * @param {string} wanted
 * @returns {(string | HTMLElement)[]}
 */
function marked(text, wanted) {
  if (!wanted) return [text];
  const pattern = new RegExp(`(${wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")})`, "iu");
  return text.split(pattern).map((part, i) => (i % 2 ? element("mark", part) : part));
}

/**
 * @param {LogLine[]} lines
 * @param {number} offset of the one that stands out
 */
function around(lines, offset) {
  const view = element("pre", "");
  view.className = "code wrap";
  view.append(...lines.map((line) => element(line.offset === offset ? "strong" : "span", `${line.text}\n`)));
  for (const [i, row] of findAll(view, ":scope > *").entries()) row.dataset.level = lines[i].level;
  return view;
}

/**
 * @param {string} name
 * @param {string} text
 */
function element(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}

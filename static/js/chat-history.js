// The list of a user's conversations beside a chat, with its search.

import { closest, find } from "./dom.js";
import { localTimes } from "./times.js";

const SEARCH_AFTER = 200; // milliseconds without another key

export class ChatHistory {
  #abort = new AbortController();
  #timer = 0;

  /**
   * @param {HTMLElement} root
   * @param {() => string | null} currentId of the conversation that is open
   */
  constructor(root, currentId) {
    this.list = find(root, "[data-history]");
    this.error = find(root, "[data-history-error]");
    this.failed = root.dataset.failed ?? "";
    this.search = find(root, "[data-search]", HTMLInputElement);
    this.currentId = currentId;
    this.search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.load(), SEARCH_AFTER);
    });
    this.list.addEventListener("click", (event) => {
      const button = closest(event, "[data-older]");
      if (button) this.#loadOlder(button);
    });
    this.load();
  }

  /** Show the newest conversations, or those that contain what is searched. */
  async load() {
    const html = await this.#fetch("");
    if (html === null) return;
    this.list.innerHTML = html;
    localTimes(this.list);
  }

  /** @param {HTMLElement} button */
  async #loadOlder(button) {
    const html = await this.#fetch(button.dataset.older ?? "");
    if (html === null) return;
    const place = document.createElement("ul");
    place.innerHTML = html;
    localTimes(place);
    const [first] = place.children;
    button.closest("li")?.replaceWith(...place.children);
    if (first?.firstElementChild instanceof HTMLElement) first.firstElementChild.focus();
  }

  /**
   * @param {string} after the cursor of a page
   * @returns {Promise<string | null>} null if it failed or another search has begun
   */
  async #fetch(after) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const query = new URLSearchParams({ q: this.search.value, current: this.currentId() ?? "" });
    if (after) query.set("after", after);
    this.list.setAttribute("aria-busy", "true");
    const answer = await fetch(`/conversations?${query}`, { signal }).catch(() => null);
    const html = answer?.ok && !answer.redirected ? await answer.text().catch(() => null) : null;
    if (signal.aborted) return null;
    this.list.removeAttribute("aria-busy");
    this.error.hidden = html !== null;
    this.error.textContent = html === null ? this.failed : "";
    return html;
  }
}

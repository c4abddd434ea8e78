// A log that grows: it follows its end unless the reader has scrolled up, and drops its oldest lines when very long.

const MAX_CHARACTERS = 400_000;
const NEAR_END = 24; // pixels

export class LogView {
  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} button scrolls back to the end
   * @param {HTMLElement} placeholder shown while the log is empty
   */
  constructor(element, button, placeholder) {
    this.element = element;
    this.button = button;
    this.placeholder = placeholder;
    this.length = 0;
    this.isFollowing = true;
    element.addEventListener("scroll", () => this.#onScroll());
    button.addEventListener("click", () => this.#toEnd());
  }

  /** @param {string} text */
  add(text) {
    if (!text) return;
    this.placeholder.hidden = true;
    this.element.append(document.createTextNode(text));
    this.length += text.length;
    while (this.length > MAX_CHARACTERS && this.element.childNodes.length > 1) {
      this.length -= this.element.firstChild?.textContent?.length ?? 0;
      this.element.firstChild?.remove();
    }
    if (this.isFollowing) this.#toEnd();
  }

  #toEnd() {
    this.isFollowing = true;
    this.button.hidden = true;
    this.element.scrollTop = this.element.scrollHeight;
  }

  #onScroll() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    this.isFollowing = scrollTop + clientHeight > scrollHeight - NEAR_END;
    this.button.hidden = this.isFollowing;
  }
}

// @ts-nocheck
// A log that grows: follows its end unless the reader has scrolled up, and forgets its oldest lines when very long.

const MOST_CHARACTERS = 400_000;

export class LogView {
  constructor(element, button, placeholder) {
    Object.assign(this, { element, button, placeholder, length: 0, follows: true });
    element.addEventListener("scroll", () => this.#scrolled());
    button.addEventListener("click", () => this.#toEnd());
  }

  add(text) {
    if (!text) return;
    this.placeholder.hidden = true;
    this.element.append(document.createTextNode(text));
    this.length += text.length;
    while (this.length > MOST_CHARACTERS && this.element.childNodes.length > 1) {
      this.length -= this.element.firstChild.length;
      this.element.firstChild.remove();
    }
    if (this.follows) this.#toEnd();
  }

  #toEnd() {
    this.follows = true;
    this.button.hidden = true;
    this.element.scrollTop = this.element.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    this.follows = scrollTop + clientHeight > scrollHeight - 24;
    this.button.hidden = this.follows;
  }
}

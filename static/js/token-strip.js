// The tokens of a text in a row, one of which is chosen: by mouse, or by arrow keys within a listbox.

import { closest, findAll } from "./dom.js";

const MOVES = /** @type {Record<string, number>} */ ({
  ArrowLeft: -1,
  ArrowRight: 1,
  ArrowUp: -1,
  ArrowDown: 1,
  Home: -Infinity,
  End: Infinity,
});

const ESCAPED_BYTE = /\\x([89a-f][0-9a-f])/g; // as answers write what forms no character

/**
 * The text of a token, with bytes that form no character as vocabularies of single bytes name them: <0xE5>.
 * @param {string} text
 */
const namedBytes = (text) => text.replace(ESCAPED_BYTE, (_found, digits) => byteName(Number.parseInt(digits, 16)));

/** @param {number} byte from 128 on */
export const byteName = (byte) => `<0x${byte.toString(16).toUpperCase()}>`;

/**
 * How the text of a token is shown: with signs for what is invisible.
 * @param {string} text
 */
export function tokenText(text) {
  return namedBytes(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "·");
}

export class TokenStrip {
  /**
   * @param {HTMLElement} box
   * @param {(i: number) => void} onChoose
   */
  constructor(box, onChoose) {
    this.box = box;
    this.onChoose = onChoose;
    box.onclick = (event) => this.#chooseAt(event);
    box.onkeydown = (event) => this.#move(event);
  }

  /**
   * @param {{ text: string, is_special: boolean }[]} tokens
   * @param {(i: number) => number} [surprise] percent of the accent in a token's color
   */
  draw(tokens, surprise) {
    const hadFocus = this.box.contains(document.activeElement);
    const options = tokens.map(({ text, is_special }, i) => {
      const option = document.createElement("span");
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.tabIndex = -1;
      option.textContent = tokenText(text);
      if (text.trim()) option.ariaLabel = namedBytes(text);
      option.classList.toggle("special", is_special);
      if (surprise) option.style.setProperty("--surprise", `${surprise(i)}%`);
      return option;
    });
    this.box.replaceChildren(...options);
    this.hadFocus = hadFocus;
  }

  /** @param {number} i */
  choose(i) {
    const options = findAll(this.box, "[role=option]");
    options.forEach((option, n) => {
      option.setAttribute("aria-selected", String(n === i));
      option.tabIndex = n === i ? 0 : -1;
    });
    if (this.hadFocus) options[i]?.focus();
    this.onChoose(i);
  }

  /** @param {MouseEvent} event */
  #chooseAt(event) {
    const option = closest(event, "[role=option]"); // also around the bytes that an option may have in an element
    if (!option) return;
    this.hadFocus = true;
    this.choose(findAll(this.box, "[role=option]").indexOf(option));
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const move = MOVES[event.key];
    const options = findAll(this.box, "[role=option]");
    if (move === undefined || !options.length) return;
    event.preventDefault();
    const now = options.findIndex((option) => option.tabIndex === 0);
    this.hadFocus = true;
    this.choose(Math.max(0, Math.min(options.length - 1, now + move)));
  }
}

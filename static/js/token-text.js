// A text as it is generated. Tokens whose probability is known are colored by how much they surprised the model, and a
// card beside one lists its alternatives.

import { closest, find, findAll } from "./dom.js";
import { percent } from "./format.js";
import { byteName } from "./token-strip.js";

/** @import { GeneratedToken, Piece, TokenProbability } from "./generate.js" */

const AUTOSCROLL_MARGIN = 80; // in pixels: a reader this close to the end of the text follows it
const SURPRISE_BITS = [1, 2, 4, 7]; // where the next color begins
const HIDE_AFTER = 250; // milliseconds in which the pointer can reach the card
const REPLACED = "\ufffd"; // stands in a token for bytes that are no whole character

/** @typedef {(start: string) => void} Pick takes the text up to a token, and its alternative */

export class TokenText {
  /** @type {Piece[]} */
  #pieces = [];
  #pending = "";
  #isScheduled = false;
  #node = document.createTextNode("");

  /**
   * @param {HTMLElement} element shows the text
   * @param {HTMLElement} view scrolls with it
   * @param {Pick | null} onPick null if no other token can be chosen
   */
  constructor(element, view, onPick) {
    this.element = element;
    this.view = view;
    element.replaceChildren(this.#node);
    connect(element, onPick && ((index, alternative) => onPick(this.#textBefore(index) + alternative)));
    tokensOf.set(element, (index) => this.#tokenAt(index));
  }

  get text() {
    return this.#pieces.map(({ text }) => text).join("");
  }

  get pieces() {
    return this.#pieces;
  }

  /**
   * Tokens come faster than the screen is drawn: they are collected until the next frame.
   * @param {Piece} piece
   */
  append(piece) {
    if (piece.tokens?.length) this.#appendTokens(piece.text, piece.tokens);
    else this.#appendText(piece.text);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => this.flush());
  }

  /** Show what was collected. */
  flush() {
    this.#isScheduled = false;
    const { scrollHeight, scrollTop, clientHeight } = this.view;
    const isFollowing = scrollHeight - scrollTop - clientHeight < AUTOSCROLL_MARGIN;
    this.#flushText();
    if (isFollowing) this.view.scrollTop = this.view.scrollHeight;
  }

  #flushText() {
    if (this.#pending) this.#node.appendData(this.#pending);
    this.#pending = "";
  }

  /** @param {string} text */
  #appendText(text) {
    this.#pieces.push({ text, num_tokens: 0 });
    if (this.element.lastChild !== this.#node) {
      this.#node = document.createTextNode("");
      this.element.append(this.#node);
    }
    this.#pending += text;
  }

  /**
   * One span per token; one for all where their texts are not the text, as with bytes of one character.
   * @param {string} text
   * @param {GeneratedToken[]} tokens
   */
  #appendTokens(text, tokens) {
    this.#flushText();
    const isExact = tokens.map((token) => token.text).join("") === text;
    const groups = isExact ? tokens.map((token) => ({ text: token.text, tokens: [token] })) : [{ text, tokens }];
    for (const group of groups) {
      const span = document.createElement("span");
      span.className = "token";
      span.dataset.index = String(this.#pieces.length);
      span.dataset.surprise = String(surprise(group.tokens));
      span.textContent = group.text;
      this.#pieces.push({ ...group, num_tokens: group.tokens.length });
      this.element.append(span);
    }
    this.element.classList.add("colored");
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", card()?.dataset.keys ?? "");
  }

  /** @param {number} index */
  #textBefore(index) {
    return this.#pieces
      .slice(0, index)
      .map(({ text }) => text)
      .join("");
  }

  /** @param {number} index */
  #tokenAt(index) {
    return this.#pieces[index]?.tokens?.[0];
  }
}

/**
 * How improbable tokens were together, as the index of a color.
 * @param {GeneratedToken[]} tokens
 */
function surprise(tokens) {
  const bits = tokens.reduce((sum, { logprob }) => sum - logprob / Math.LN2, 0);
  return SURPRISE_BITS.filter((limit) => bits >= limit).length;
}

// ---- the card, of which a page has one ------------------------------------------------------------------------------

/** @type {WeakMap<HTMLElement, (index: number) => GeneratedToken | undefined>} */
const tokensOf = new WeakMap();
/** @type {((alternative: string) => void) | null} */
let pick = null;
/** @type {HTMLElement | null} the token that the card describes */
let current = null;
let hiding = 0;

/**
 * @param {HTMLElement} element
 * @param {((index: number, alternative: string) => void) | null} onPick
 */
function connect(element, onPick) {
  const show = (/** @type {HTMLElement} */ span) => {
    pick = onPick && ((alternative) => onPick(Number(span.dataset.index), alternative));
    showCard(span, tokensOf.get(element)?.(Number(span.dataset.index)));
  };
  const showAt = (/** @type {Event} */ event) => {
    const span = closest(event, ".token");
    if (span) show(span);
  };
  element.addEventListener("click", showAt); // a finger taps: while it is over tokens, it may be scrolling
  element.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") showAt(event);
  });
  element.addEventListener("pointerout", hideSoon);
  element.addEventListener("blur", hideSoon);
  element.addEventListener("keydown", (event) => moveBetweenTokens(event, element, show));
}

/**
 * Arrow keys go from token to token, Enter into the card.
 * @param {KeyboardEvent} event
 * @param {HTMLElement} element
 * @param {(span: HTMLElement) => void} show
 */
function moveBetweenTokens(event, element, show) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const spans = findAll(element, ".token");
  if (step && spans.length) {
    event.preventDefault();
    const index = current ? spans.indexOf(current) + step : step > 0 ? 0 : spans.length - 1;
    const span = spans[Math.max(0, Math.min(spans.length - 1, index))];
    span.scrollIntoView({ block: "nearest" });
    show(span);
  } else if (event.key === "Enter" && current && element.contains(current)) {
    event.preventDefault();
    card()?.querySelector("button")?.focus();
  }
}

/** @returns {HTMLElement | null} */
function card() {
  return document.getElementById("token-card");
}

/**
 * @param {HTMLElement} span
 * @param {GeneratedToken} [token]
 */
function showCard(span, token) {
  const element = card();
  if (!element || !token) return;
  clearTimeout(hiding);
  if (span === current && element.matches(":popover-open")) return;
  current?.classList.remove("current");
  current = span;
  span.classList.add("current");
  find(element, "[data-token]").textContent = visible(token);
  find(element, "[data-percent]").textContent = percent(Math.exp(token.logprob));
  find(element, "[data-hint]").hidden = !token.top.length || !pick;
  find(element, "[data-alternatives]").replaceChildren(...token.top.map((other) => alternativeRow(other, token)));
  element.showPopover();
  place(element, span);
}

/**
 * @param {TokenProbability} other
 * @param {TokenProbability} token the one that was sampled
 */
function alternativeRow(other, token) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  const bar = document.createElement("progress");
  const share = Math.exp(other.logprob);
  button.type = "button";
  button.disabled = !pick || other.text.includes(REPLACED) || !other.text;
  if (other.id === token.id) button.setAttribute("aria-current", "true");
  const name = document.createElement("span");
  name.className = "mono";
  name.textContent = visible(other);
  const value = document.createElement("span");
  value.textContent = percent(share);
  bar.value = share;
  bar.setAttribute("aria-hidden", "true");
  button.append(name, bar, " ", value);
  button.addEventListener("click", () => {
    hide();
    pick?.(other.text);
  });
  row.append(button);
  return row;
}

/**
 * A token with its spaces and line breaks made visible, and with the bytes of what is no whole character.
 * @param {TokenProbability} token
 */
function visible({ text, bytes }) {
  const isPart = bytes && text.includes(REPLACED);
  const read = isPart ? bytes.map((byte) => (byte < 128 ? String.fromCharCode(byte) : byteName(byte))).join("") : text;
  return read.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
}

/**
 * Put the card below the token, or above it where there is more room.
 * @param {HTMLElement} element
 * @param {HTMLElement} span
 */
function place(element, span) {
  const rect = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = rect.bottom + 4;
  const top = below + height > innerHeight && rect.top > height ? rect.top - height - 4 : below;
  element.style.left = `${Math.max(8, Math.min(rect.left, innerWidth - width - 8))}px`;
  element.style.top = `${top}px`;
}

function hideSoon() {
  clearTimeout(hiding);
  hiding = setTimeout(() => {
    const element = card();
    if (element && !element.contains(document.activeElement) && !element.matches(":hover")) hide();
  }, HIDE_AFTER);
}

function hide() {
  current?.classList.remove("current");
  current = null;
  card()?.hidePopover();
}

card()?.addEventListener("pointerleave", hideSoon);
card()?.addEventListener("keydown", (event) => {
  const buttons = findAll(/** @type {HTMLElement} */ (event.currentTarget), "button:not([disabled])");
  const index = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    buttons[(index + step + buttons.length) % buttons.length]?.focus();
  }
});

document.addEventListener("pointerdown", (event) => {
  if (current && !closest(event, ".token, .token-card")) hide();
});

document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Escape" || !current) return;
    const text = current.parentElement;
    const isInCard = card()?.contains(document.activeElement);
    hide();
    if (!isInCard) return;
    event.stopPropagation();
    text?.focus();
  },
  { capture: true },
);

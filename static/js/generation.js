// One generated text of the playground: its card, filled while the text is streamed.

import { RequestRefused } from "./api.js";
import { copyText } from "./copy.js";
import { cloneTemplate, find } from "./dom.js";
import { fill, fillPlural, number } from "./format.js";
import { generate, isContextFull } from "./generate.js";
import { TokenText } from "./token-text.js";

/** @import { GenerationRequest, Outcome, Piece } from "./generate.js" */

/**
 * @typedef {{
 *   onContinue: (text: string) => void,
 *   onPick: ((text: string) => void) | null,
 *   onSeed: (seed: number) => void,
 *   onFieldErrors: (errors: import("./errors.js").FieldError[]) => boolean,
 * }} Callbacks `onPick` is null where the text stands apart from the prompt, its source, and does not continue it;
 *   `onFieldErrors` says whether the form shows any of the errors
 */

export class Generation {
  #abort = new AbortController();
  #numTokens = 0;

  /**
   * @param {GenerationRequest & { prompt: string }} request
   * @param {string} label of the model
   * @param {DOMStringMap} words
   * @param {Callbacks} callbacks
   */
  constructor(request, label, words, callbacks) {
    this.request = request;
    this.words = words;
    this.callbacks = callbacks;
    this.card = cloneTemplate(document, "template#generation");
    this.tags = [`T ${request.temperature}`, `p ${request.top_p}`, `k ${request.top_k}`];
    const { onPick } = callbacks;
    this.prompt = onPick ? request.prompt : ""; // as far as it is a part of the text
    const pick = onPick && ((/** @type {string} */ start) => onPick(request.prompt + start));
    this.output = new TokenText(this.#part("output"), this.#part("text"), pick);
    this.#part("label").textContent = label;
    this.#part("prompt").textContent = this.prompt;
    this.#part("caret").hidden = false;
    this.#part("copy-text").addEventListener("click", () => this.#copy());
    this.#part("continue").addEventListener("click", () => callbacks.onContinue(this.text));
    this.#showTags();
  }

  /** What the model wrote, after the prompt if it continues it. */
  get text() {
    return this.prompt + this.output.text;
  }

  cancel() {
    this.#abort.abort();
  }

  /** Send the request and show what comes back, until it ends, fails or is cancelled. */
  async run() {
    const listener = {
      waiting: (/** @type {string} */ message) => this.#say(message),
      start: (/** @type {number} */ seed) => this.#begin(seed),
      loading: (/** @type {number} */ percent) => this.#showLoading(percent),
      piece: (/** @type {Piece} */ piece) => this.#append(piece),
    };
    try {
      this.#finish(await generate(this.request, listener, this.#abort.signal));
    } catch (error) {
      this.#explain(error);
    }
    this.output.flush();
    this.#part("caret").hidden = true;
    this.#part("count").textContent = "";
    this.#part("loading").hidden = true;
    this.#part("actions").hidden = false;
  }

  /** @param {number} seed */
  #begin(seed) {
    this.#say(this.words.start);
    this.tags.push(fill(this.words.seed ?? "", { n: seed }));
    this.#showTags();
    this.callbacks.onSeed(seed);
  }

  /** @param {number} percent of the model that is loaded */
  #showLoading(percent) {
    this.#say("");
    this.#part("count").textContent = fill(this.words.loading ?? "", { percent });
    this.#part("loading").hidden = false;
    find(this.card, "[data-loading]", HTMLProgressElement).value = percent;
  }

  /** @param {Piece} piece */
  #append(piece) {
    this.#numTokens = piece.num_tokens;
    this.#say(""); // the count is hidden from screen readers: it changes with every token
    this.#part("count").textContent = this.#count();
    this.output.append(piece);
  }

  /** @param {Outcome} outcome */
  #finish(outcome) {
    const isFull = isContextFull(outcome, this.request.max_tokens);
    const why = this.words[isFull ? "full" : outcome.finish_reason];
    this.#part("continue").hidden = isFull && this.callbacks.onPick !== null; // nothing more fits behind this text
    const values = { rate: number(outcome.tokens_per_second), why };
    const status = fillPlural(this.words.done, outcome.num_tokens, values);
    this.#say(this.output.text ? status : `${status} · ${this.words.none}`);
  }

  /** @param {unknown} error */
  #explain(error) {
    if (this.#abort.signal.aborted) this.#say(`${this.#count()} · ${this.words.cancelled}`);
    else if (!(error instanceof RequestRefused)) this.#fail(this.words.broken);
    else if (this.callbacks.onFieldErrors(error.fields)) this.card.remove();
    else this.#fail(error.message);
  }

  /** @param {string} [message] */
  #fail(message) {
    const place = this.#part("error");
    place.textContent = message ?? "";
    place.hidden = false;
    this.#say("");
  }

  async #copy() {
    const isCopied = await copyText(this.text, this.#part("text"));
    if (isCopied) find(this.#part("copy-text"), "span").textContent = this.words.copied ?? "";
  }

  #count() {
    return fillPlural(this.words.writing, this.#numTokens);
  }

  #showTags() {
    const tags = this.tags.map((text) => {
      const tag = document.createElement("span");
      tag.className = "tag";
      tag.textContent = text;
      return tag;
    });
    this.#part("tags").replaceChildren(...tags);
  }

  /** @param {string} [text] */
  #say(text) {
    this.#part("status").textContent = text ?? "";
    this.#part("loading").hidden = true;
  }

  /** @param {string} name */
  #part(name) {
    return find(this.card, `[data-${name}]`);
  }
}

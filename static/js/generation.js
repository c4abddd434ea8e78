// One generated text of the playground: its card, filled while the text is streamed.

import { copyText } from "./copy.js";
import { cloneTemplate, find } from "./dom.js";
import { fill, number } from "./format.js";
import { RequestRefused, post } from "./sse.js";

const AUTOSCROLL_MARGIN = 80; // in pixels: a reader this close to the end of the text follows it

/**
 * @typedef {{
 *   checkpoint: string, prompt: string, max_tokens: number, temperature: number, top_p: number, top_k: number,
 *   seed: number | null, stop: string[], stream: boolean,
 * }} GenerationRequest
 * @typedef {{
 *   onContinue: (text: string) => void,
 *   onSeed: (seed: number) => void,
 *   onFieldErrors: (errors: import("./errors.js").FieldError[]) => boolean,
 * }} Callbacks `onFieldErrors` says whether the form shows any of the errors
 */

export class Generation {
  #abort = new AbortController();
  #text = document.createTextNode("");
  #pending = "";
  #numTokens = 0;
  #isDone = false;

  /**
   * @param {GenerationRequest} request
   * @param {string} label of the checkpoint
   * @param {DOMStringMap} words
   * @param {Callbacks} callbacks
   */
  constructor(request, label, words, callbacks) {
    this.request = request;
    this.words = words;
    this.callbacks = callbacks;
    this.card = cloneTemplate(document, "template#generation");
    this.tags = [`T ${request.temperature}`, `p ${request.top_p}`, `k ${request.top_k}`];
    this.#part("label").textContent = label;
    this.#part("prompt").textContent = request.prompt;
    this.#part("output").append(this.#text);
    this.#part("caret").hidden = false;
    this.#part("copy-text").addEventListener("click", () => this.#copy());
    this.#part("continue").addEventListener("click", () => callbacks.onContinue(this.text));
    this.#showTags();
  }

  /** The prompt and what the model wrote. */
  get text() {
    return this.request.prompt + this.#text.data;
  }

  cancel() {
    this.#abort.abort();
  }

  /** Send the request and show what comes back, until it ends, fails or is cancelled. */
  async run() {
    try {
      for await (const { name, data } of post("/api/v1/generate", this.request, this.#abort.signal)) {
        this.#handle(name, data);
      }
      if (!this.#isDone) this.#fail(this.words.broken);
    } catch (error) {
      this.#explain(error);
    }
    this.#part("caret").hidden = true;
    this.#part("count").textContent = "";
    this.#flush();
    this.#part("actions").hidden = false;
  }

  /**
   * @param {string} name
   * @param {any} data
   */
  #handle(name, data) {
    if (name === "waiting") this.#say(data.message);
    if (name === "start") this.#begin(data.seed);
    if (name === "piece") this.#append(data);
    if (name === "done") this.#finish(data);
    if (name === "failure") this.#fail(data.message);
    this.#isDone = name === "done" || name === "failure";
  }

  /** @param {number} seed */
  #begin(seed) {
    this.#say(this.words.start);
    this.tags.push(fill(this.words.seed ?? "", { n: seed }));
    this.#showTags();
    this.callbacks.onSeed(seed);
  }

  /**
   * Tokens come faster than the screen is drawn: they are collected until the next frame.
   * @param {{ text: string, num_tokens: number }} data
   */
  #append({ text, num_tokens }) {
    this.#numTokens = num_tokens;
    if (!this.#pending) requestAnimationFrame(() => this.#flush());
    this.#pending += text;
  }

  #flush() {
    if (!this.#pending) return;
    this.#text.appendData(this.#pending);
    this.#pending = "";
    if (this.#part("caret").hidden) return;
    this.#say(""); // the count is hidden from screen readers: it changes with every frame
    this.#part("count").textContent = this.#count();
    const view = this.#part("text");
    if (view.scrollHeight - view.scrollTop - view.clientHeight < AUTOSCROLL_MARGIN) view.scrollTop = view.scrollHeight;
  }

  /** @param {{ num_tokens: number, tokens_per_second: number, finish_reason: string }} data */
  #finish({ num_tokens, tokens_per_second, finish_reason }) {
    this.#part("caret").hidden = true; // a frame that is still to come must not overwrite this
    const isContextFull = finish_reason === "length" && num_tokens < this.request.max_tokens;
    const why = this.words[isContextFull ? "full" : finish_reason];
    this.#say(fill(this.words.done ?? "", { n: number(num_tokens), rate: number(tokens_per_second), why }));
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
    return fill(this.words.writing ?? "", { n: number(this.#numTokens) });
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
  }

  /** @param {string} name */
  #part(name) {
    return find(this.card, `[data-${name}]`);
  }
}

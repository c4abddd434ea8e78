// One message of a chat as it is shown: its text, its versions, what can be done with it, and editing it in place.

import { copyText } from "./copy.js";
import { cloneTemplate, closest, find } from "./dom.js";
import { fill, fillPlural, number } from "./format.js";
import { isContextFull } from "./generate.js";
import { unpackPieces } from "./token-pack.js";
import { TokenText } from "./token-text.js";

/** @import { Message } from "./message-tree.js" */

/** @typedef {"copy" | "edit" | "regenerate" | "record" | "corpus" | "delete"} Action */
/**
 * @typedef {{
 *   act: (action: Action, message: Message) => void,
 *   edit: (message: Message, content: string) => void,
 *   show: (message: Message) => void,
 *   pick: (message: Message, start: string) => void,
 * }} TurnCallbacks `show` goes to another version, `pick` begins the answer anew with a text
 */

export class Turn {
  /**
   * @param {Message} message with an empty ID while it is being written
   * @param {{ alternatives: Message[], model: string }} place its alternatives with itself, and the model of its column
   * @param {DOMStringMap} words
   * @param {TurnCallbacks} callbacks
   */
  constructor(message, { alternatives, model }, words, callbacks) {
    this.message = message;
    this.model = model;
    this.words = words;
    this.callbacks = callbacks;
    this.element = cloneTemplate(document, "template#turn");
    this.element.classList.add(message.role);
    this.text = new TokenText(this.#part("content"), this.element, (start) => callbacks.pick(message, start));
    const pieces = message.tokens ? unpackPieces(message.tokens) : [{ text: message.content, num_tokens: 0 }];
    for (const piece of pieces) this.text.append(piece);
    this.text.flush();
    this.#name();
    this.#showMeta();
    this.#showVersions(alternatives);
    this.#listen();
  }

  #name() {
    const { id, role, model_name } = this.message;
    const who = role === "user" ? this.words.user : fill(this.words.assistant ?? "", { model: model_name ?? "" });
    this.#part("who").textContent = who ?? "";
    for (const action of ["regenerate", "record", "corpus"]) this.#tool(action).hidden = role === "user";
    if (!id) for (const action of ["edit", "record", "corpus", "delete"]) this.#tool(action).hidden = true;
  }

  #showMeta() {
    const { role, model_name, num_tokens, tokens_per_second, finish_reason, settings, seed } = this.message;
    if (role === "user" || !finish_reason) return;
    const isFull = isContextFull(
      { finish_reason, num_tokens: num_tokens ?? 0, tokens_per_second: 0, seed: 0 },
      settings?.max_tokens ?? 0,
    );
    const why = this.words[isFull ? "full" : finish_reason];
    const values = { rate: number(tokens_per_second), why };
    const author = model_name && model_name !== this.model ? `${model_name} · ` : "";
    this.say(author + (finish_reason === "edited" ? why : fillPlural(this.words.done, num_tokens ?? 0, values)));
    const details = [`T ${settings?.temperature ?? "–"}`, fill(this.words.seed ?? "", { n: seed ?? "–" })];
    if (finish_reason !== "edited") this.#part("meta").title = details.join(" · ");
  }

  /** @param {Message[]} alternatives */
  #showVersions(alternatives) {
    const index = alternatives.findIndex(({ id }) => id === this.message.id);
    if (alternatives.length < 2 || index < 0) return;
    this.#part("branches").hidden = false;
    const place = this.#part("place");
    place.textContent = `${index + 1}/${alternatives.length}`;
    place.title = fill(this.words.place ?? "", { n: index + 1, total: alternatives.length });
    for (const [name, other] of /** @type {const} */ ([["previous", index - 1], ["next", index + 1]])) {
      const button = find(this.element, `[data-${name}]`, HTMLButtonElement);
      button.disabled = !alternatives[other];
      button.addEventListener("click", () => this.callbacks.show(alternatives[other]));
    }
  }

  #listen() {
    this.#part("tools").addEventListener("click", (event) => {
      const action = closest(event, "[data-action]")?.dataset.action;
      if (action === "copy") this.#copy();
      else if (action === "edit") this.startEditing();
      else if (action) this.callbacks.act(/** @type {Action} */ (action), this.message);
    });
    const editor = find(this.element, "[data-editor]", HTMLFormElement);
    editor.addEventListener("submit", (event) => {
      event.preventDefault();
      const content = this.#editorText.value.trim();
      if (content) this.callbacks.edit(this.message, content);
    });
    editor.addEventListener("keydown", (event) => this.#handleEditorKey(event, editor));
    find(editor, "[data-cancel-edit]").addEventListener("click", () => this.#stopEditing());
  }

  /**
   * @param {KeyboardEvent} event
   * @param {HTMLFormElement} editor
   */
  #handleEditorKey(event, editor) {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      this.#stopEditing();
    } else if (event.key === "Enter" && !event.shiftKey && event.target === this.#editorText) {
      event.preventDefault();
      editor.requestSubmit();
    }
  }

  get #editorText() {
    return find(this.element, "[data-editor] textarea", HTMLTextAreaElement);
  }

  startEditing() {
    this.#showEditor(true);
    const label = this.message.role === "user" ? this.words.send : this.words.save;
    find(this.element, "[data-save-edit]").textContent = label ?? "";
    const area = this.#editorText;
    area.value = this.message.content;
    area.style.height = `${Math.min(area.scrollHeight + 2, innerHeight / 2)}px`;
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  #stopEditing() {
    this.#showEditor(false);
    this.#tool("edit").focus();
  }

  /** @param {boolean} isShown */
  #showEditor(isShown) {
    this.#part("editor").hidden = !isShown;
    this.#part("body").hidden = isShown;
    find(this.element, "footer").hidden = isShown;
  }

  async #copy() {
    const isCopied = await copyText(this.message.content, this.#part("body"));
    if (isCopied) this.say(this.words.copied);
  }

  /** @param {string} [text] */
  say(text) {
    this.#part("meta").textContent = text ?? "";
    this.#part("loading").hidden = true;
  }

  /** @param {number} percent of the model that is loaded */
  showLoading(percent) {
    this.say(fill(this.words.loading ?? "", { percent }));
    this.#part("loading").hidden = false;
    find(this.element, "[data-loading]", HTMLProgressElement).value = percent;
  }

  /** @param {string} message */
  fail(message) {
    this.#part("turn-error").textContent = message;
    this.#part("turn-error").hidden = false;
    this.say("");
  }

  /** @param {boolean} isBusy */
  showBusy(isBusy) {
    this.#part("caret").hidden = !isBusy;
    this.#part("tools").hidden = isBusy;
  }

  focus() {
    this.#part("who").focus();
  }

  /** @param {string} action */
  #tool(action) {
    return find(this.element, `[data-action=${action}]`);
  }

  /** @param {string} name */
  #part(name) {
    return find(this.element, `[data-${name}]`);
  }
}

// One model of a chat: its branch of the conversation, and the answer that it is writing.

import { RequestRefused } from "./api.js";
import { Turn } from "./chat-turn.js";
import { cloneTemplate, find } from "./dom.js";
import { fill, fillPlural } from "./format.js";
import { generate } from "./generate.js";
import { packPieces } from "./token-pack.js";

/** @import { TurnCallbacks } from "./chat-turn.js" */
/** @import { ChatMessage, GenerationRequest, Outcome, Piece } from "./generate.js" */
/** @import { Message, MessageTree } from "./message-tree.js" */
/** @import { Settings } from "./sampling.js" */

const PLAIN_NAMES = { system: "System", user: "User", assistant: "Assistant" };

/**
 * @typedef {TurnCallbacks & { changed: (column: Column) => void, remove: (column: Column) => void }} ColumnCallbacks
 * @typedef {{ systemPrompt: string, sampling: Settings, prefill?: string }} AnswerRequest
 */

export class Column {
  /** @type {AbortController | null} */
  #abort = null;
  /** @type {Turn | null} the answer that is being written, or was not stored */
  #draft = null;
  /** @type {Turn[]} */
  turns = [];

  /**
   * @param {MessageTree} tree
   * @param {{ model_id: string, leaf_id: string | null }} state
   * @param {DOMStringMap} words
   * @param {ColumnCallbacks} callbacks
   */
  constructor(tree, state, words, callbacks) {
    this.tree = tree;
    this.leafId = state.leaf_id;
    this.words = words;
    this.callbacks = callbacks;
    this.element = cloneTemplate(document, "template#column");
    this.select = find(this.element, "[data-model]", HTMLSelectElement);
    this.#selectModel(state.model_id);
    this.select.addEventListener("change", () => {
      this.#showModel();
      callbacks.changed(this);
    });
    find(this.element, "[data-remove]").addEventListener("click", () => callbacks.remove(this));
    this.draw();
  }

  get modelId() {
    return this.select.value;
  }

  get label() {
    return this.select.selectedOptions[0]?.dataset.label ?? "";
  }

  get baseId() {
    return this.select.selectedOptions[0]?.dataset.base;
  }

  get isBusy() {
    return this.#abort !== null;
  }

  get state() {
    return { model_id: this.modelId, leaf_id: this.leafId };
  }

  get #isPlain() {
    return this.select.selectedOptions[0]?.dataset.chat === undefined;
  }

  /** @param {string} modelId */
  #selectModel(modelId) {
    this.select.value = modelId;
    if (this.select.value !== modelId) {
      const name = this.tree.path(this.leafId).findLast((message) => message.model_id === modelId)?.model_name;
      const option = new Option(fill(this.words.gone ?? "", { model: name ?? modelId }), modelId, true, true);
      option.dataset.label = name ?? modelId;
      this.select.prepend(option);
    }
    this.#showModel();
  }

  #showModel() {
    find(this.element, "[data-plain]").hidden = !this.#isPlain;
    this.element.setAttribute("aria-label", this.label);
    find(this.element, "[data-log]").setAttribute("aria-label", this.label);
    this.select.title = this.label;
  }

  /** @param {number} number of the column, from 1 */
  rename(number) {
    this.select.setAttribute("aria-label", fill(this.words.model ?? "", { n: number }));
  }

  /** Show the branch that ends with the leaf. */
  draw() {
    const path = this.tree.path(this.leafId);
    this.turns = path.map((message) => this.#turn(message));
    const draft = this.#draft?.message.parent_id === this.leafId ? this.#draft : null;
    const shown = draft ? [...this.turns, draft] : this.turns;
    find(this.element, "[data-thread]").replaceChildren(...shown.map(({ element }) => element));
    find(this.element, "[data-empty]").hidden = path.length > 0;
    this.#scrollToEnd();
  }

  /** @param {Message} message */
  #turn(message) {
    const place = { alternatives: this.tree.alternatives(message), model: this.label };
    return new Turn(message, place, this.words, this.callbacks);
  }

  #scrollToEnd() {
    const log = find(this.element, "[data-log]");
    log.scrollTop = log.scrollHeight;
  }

  cancel() {
    this.#abort?.abort();
  }

  /** Focus the branch, when what had the focus is drawn again. */
  focus() {
    find(this.element, "[data-log]").focus();
  }

  /** @param {Message} answer that was stored: the end of the branch */
  finish(answer) {
    if (answer.parent_id === this.leafId) this.leafId = answer.id;
    this.#draft = null;
    this.draw();
  }

  /**
   * Write an answer to the question at the end of the branch.
   * @param {AnswerRequest} request
   * @returns {Promise<Partial<Message> | null>} the answer; null if there is none, and the column says why
   */
  async answer(request) {
    this.#abort = new AbortController();
    const turn = this.#beginTurn(request.prefill ?? "");
    const body = this.#body(request);
    let numTokens = 0;
    /** @type {number | undefined} */
    let seed;
    /** @type {Partial<Outcome> | null} */
    let outcome = null;
    const listener = {
      waiting: (/** @type {string} */ message) => turn.say(message),
      start: (/** @type {number} */ value) => {
        seed = value;
        turn.say(this.words.start);
      },
      loading: (/** @type {number} */ percent) => turn.showLoading(percent),
      piece: (/** @type {Piece} */ piece) => {
        numTokens = piece.num_tokens;
        turn.say(fillPlural(this.words.writing, numTokens));
        turn.text.append(piece);
      },
    };
    try {
      outcome = await generate(body, listener, this.#abort.signal);
    } catch (error) {
      if (this.#abort.signal.aborted) outcome = { finish_reason: "cancelled", num_tokens: numTokens };
      else turn.fail(error instanceof RequestRefused ? error.message : (this.words.broken ?? ""));
    }
    turn.text.flush();
    this.#endTurn(turn);
    if (!outcome) return null;
    if (outcome.finish_reason === "cancelled") turn.say(this.words.cancelled);
    if (outcome.finish_reason === "cancelled" && !turn.text.text) return null;
    return this.#message(turn, request, { seed, ...outcome });
  }

  /** @param {string} prefill */
  #beginTurn(prefill) {
    const author = { model_id: this.modelId, model_name: this.label };
    const turn = this.#turn({ id: "", parent_id: this.leafId, role: "assistant", content: prefill, ...author });
    this.#draft = turn;
    turn.showBusy(true);
    turn.text.view = find(this.element, "[data-log]");
    find(this.element, "[data-thread]").append(turn.element);
    find(this.element, "[data-empty]").hidden = true;
    find(this.element, "[data-log]").setAttribute("aria-busy", "true");
    this.#scrollToEnd();
    return turn;
  }

  /** @param {Turn} turn */
  #endTurn(turn) {
    turn.showBusy(false);
    this.#abort = null;
    find(this.element, "[data-log]").removeAttribute("aria-busy");
  }

  /**
   * What is stored of an answer.
   * @param {Turn} turn
   * @param {AnswerRequest} request
   * @param {Partial<Outcome>} outcome
   * @returns {Partial<Message>}
   */
  #message(turn, { systemPrompt, sampling, prefill }, { finish_reason, num_tokens, tokens_per_second, seed }) {
    const { seed: _seed, top_logprobs: _top, ...settings } = sampling;
    const { parent_id, model_id, model_name } = turn.message;
    return {
      ...{ parent_id, role: "assistant", content: turn.text.text, model_id, model_name },
      settings: { ...settings, system_prompt: systemPrompt, ...(prefill ? { prefill } : {}) },
      ...{ seed, finish_reason, num_tokens, tokens_per_second },
      ...(sampling.top_logprobs ? { tokens: packPieces(turn.text.pieces) } : {}),
    };
  }

  /**
   * @param {AnswerRequest} request
   * @returns {GenerationRequest}
   */
  #body({ systemPrompt, sampling, prefill }) {
    /** @type {ChatMessage[]} */
    const messages = this.tree.path(this.leafId).map(({ role, content }) => ({ role, content }));
    if (systemPrompt) messages.unshift({ role: "system", content: systemPrompt });
    const common = { checkpoint: this.modelId, ...sampling, stream: true };
    if (!this.#isPlain) return { ...common, messages, ...(prefill ? { prefill } : {}) };
    const stop = [`\n${PLAIN_NAMES.user}:`, ...(sampling.stop ?? [])].slice(0, 8);
    return { ...common, prompt: plainText(messages) + (prefill ? ` ${prefill}` : ""), stop };
  }
}

/**
 * A conversation for a model without a chat template.
 * @param {ChatMessage[]} messages
 */
function plainText(messages) {
  const lines = messages.map(({ role, content }) => `${PLAIN_NAMES[/** @type {"user"} */ (role)]}: ${content}\n`);
  return `${lines.join("")}${PLAIN_NAMES.assistant}:`;
}

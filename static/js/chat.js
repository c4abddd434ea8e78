// Chat in the playground: a conversation with one to four models side by side, whose messages form a tree.

import { call, RequestRefused } from "./api.js";
import { Column } from "./chat-column.js";
import { ChatHistory } from "./chat-history.js";
import { closest, find, findAll } from "./dom.js";
import { fill } from "./format.js";
import { MessageTree } from "./message-tree.js";
import { Sampling } from "./sampling.js";

/** @import { AnswerRequest } from "./chat-column.js" */
/** @import { Action } from "./chat-turn.js" */
/** @import { Message } from "./message-tree.js" */

const API = "/api/v1/conversations";
const MAX_COLUMNS = 4;
const MAX_COMPOSER_HEIGHT = 0.3; // of the window
const NARROW = matchMedia("(max-width: 1080px)");

class Chat {
  /** @type {Column[]} */
  columns = [];
  tree = new MessageTree();
  /** @type {string | null} */
  id = null;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.words = root.dataset;
    this.question = find(root, "[name=question]", HTMLTextAreaElement);
    this.system = find(root, "[data-system-prompt]", HTMLTextAreaElement);
    this.place = find(root, "[data-columns-place]");
    this.sampling = new Sampling(find(root, "[data-sampling]"));
    this.id = root.dataset.conversation || null;
    this.history = new ChatHistory(root, () => this.id);
    this.#listen();
    this.#connectPanels();
    this.#connectDialogs();
    this.#showConnection();
  }

  /** Show the stored conversation, or the models for a new one. */
  async open() {
    const initial = findAll(this.place, "[data-initial]").map((element) => element.dataset.initial ?? "");
    this.place.replaceChildren();
    if (this.id) await this.#load();
    if (!this.columns.length) for (const modelId of initial) this.#addColumn(modelId);
    this.#columnsChanged();
    if (!NARROW.matches) this.question.focus();
  }

  async #load() {
    this.place.setAttribute("aria-busy", "true");
    const row = await this.#try(() => call("GET", `${API}/${this.id}`));
    this.place.removeAttribute("aria-busy");
    if (!row) return;
    this.tree = new MessageTree(row.messages);
    this.system.value = row.system_prompt;
    this.#showSystemPrompt();
    this.#showRow(row);
    for (const column of row.columns) this.#addColumn(column.model_id, column.leaf_id);
  }

  // ---- asking -------------------------------------------------------------------------------------------------------

  get isBusy() {
    return this.columns.some((column) => column.isBusy);
  }

  /** @returns {AnswerRequest} */
  get #request() {
    return { systemPrompt: this.system.value.trim(), sampling: this.sampling.values };
  }

  async #send() {
    const content = this.question.value.trim();
    if (!content || this.isBusy || !this.columns.length) return;
    this.question.value = "";
    this.#growQuestion();
    const parents = new Map(this.columns.map((column) => [column, column.leafId]));
    const isAsked = await this.#ask(content, parents);
    if (isAsked) return;
    this.question.value = content; // it was not sent
    this.#growQuestion();
  }

  /**
   * Ask a question in some columns, below a message of each, and have their models answer.
   * @param {string} content
   * @param {Map<Column, string | null>} parents
   */
  async #ask(content, parents) {
    if (!(await this.#ensureStored())) return false;
    /** @type {Map<string | null, string>} */
    const ids = new Map();
    for (const [column, parentId] of parents) {
      const parent = await this.#questionless(parentId);
      if (!ids.has(parent)) {
        const message = await this.#store({ parent_id: parent, role: "user", content });
        if (!message) return false;
        ids.set(parent, message.id);
      }
      column.leafId = ids.get(parent) ?? null;
    }
    this.#drawAll();
    await this.#storeColumns();
    await this.#answer([...parents.keys()]);
    return true;
  }

  /**
   * A question follows an answer: one that got none is replaced by the next one.
   * @param {string | null} parentId
   */
  async #questionless(parentId) {
    const parent = this.tree.get(parentId);
    return parent?.role === "user" ? parent.parent_id : parentId;
  }

  /**
   * @param {Column[]} columns whose branches end with a question
   * @param {string} [prefill] text that the answers begin with
   */
  async #answer(columns, prefill) {
    const request = { ...this.#request, prefill };
    const isAlone = columns.length === 1;
    this.#announce(this.words.answering ?? "");
    const answers = columns.map(async (column) => {
      const answer = await column.answer(request);
      this.#showBusy();
      if (!answer) return;
      const message = await this.#store(answer);
      if (!message) return;
      column.finish(message);
      if (isAlone && typeof answer.seed === "number") this.sampling.keepSeed(answer.seed);
      this.#announce(fill(this.words.answered ?? "", { model: column.label }));
      this.#drawIdle();
    });
    this.#showBusy();
    await Promise.all(answers);
    await this.#storeColumns();
    this.history.load();
  }

  /** Draw the columns that are not writing: another one may have added a version of what they show. */
  #drawIdle() {
    for (const column of this.columns) if (!column.isBusy) column.draw();
  }

  #drawAll() {
    for (const column of this.columns) column.draw();
  }

  cancel() {
    for (const column of this.columns) column.cancel();
  }

  // ---- what is done with a message ----------------------------------------------------------------------------------

  /**
   * A changed question is asked again wherever the same one stands at that place; a changed answer replaces it here.
   * @param {Column} column
   * @param {Message} message
   * @param {string} content
   */
  async #edit(column, message, content) {
    if (this.isBusy) return;
    column.focus();
    if (message.role === "user") {
      const depth = this.tree.path(message.id).length - 1;
      const same = this.columns.filter((other) => this.tree.path(other.leafId)[depth]?.content === message.content);
      await this.#ask(content, new Map(same.map((other) => [other, this.tree.path(other.leafId)[depth].parent_id])));
    } else {
      const { parent_id, model_id, model_name, settings } = message;
      const edited = { parent_id, role: "assistant", content, model_id, model_name, settings, finish_reason: "edited" };
      const stored = await this.#store(/** @type {Partial<Message>} */ (edited));
      if (stored) this.#show(column, stored);
    }
  }

  /**
   * @param {Column} column
   * @param {Message} message
   * @param {string} [prefill]
   */
  async #regenerate(column, message, prefill) {
    if (this.isBusy) return;
    column.leafId = message.parent_id;
    column.draw();
    column.focus();
    await this.#answer([column], prefill);
  }

  /**
   * @param {Column} column
   * @param {Message} message whose newest branch is shown
   */
  #show(column, message) {
    column.leafId = this.tree.newestLeaf(message).id;
    this.#drawIdle();
    column.turns.find((turn) => turn.message.id === message.id)?.focus();
    this.#storeColumns();
  }

  /**
   * @param {Action} action
   * @param {Column} column
   * @param {Message} message
   */
  #act(action, column, message) {
    if (action === "regenerate") this.#regenerate(column, message);
    else if (action === "record") this.#downloadRecord(message);
    else if (action === "corpus") this.#saveAsCorpus(message);
    else if (action === "delete" && !this.isBusy) this.#askToDelete(message);
  }

  /** @param {Message} message */
  #askToDelete(message) {
    const dialog = find(this.root, "#delete-messages", HTMLDialogElement);
    find(dialog, "[data-delete-messages]").onclick = () => {
      dialog.close();
      this.#deleteMessage(message);
    };
    dialog.showModal();
  }

  /** @param {Message} message */
  async #deleteMessage(message) {
    const row = await this.#try(() => call("DELETE", `${API}/${this.id}/messages/${message.id}`));
    if (!row) return;
    this.tree.remove(message.id);
    for (const column of this.columns) if (!this.tree.get(column.leafId)) column.leafId = message.parent_id;
    await this.#storeColumns();
    this.#drawAll();
    this.question.focus();
  }

  /** @param {Message} message the last one of the branch */
  async #record(message) {
    const record = await this.#try(() => call("GET", `${API}/${this.id}/record?leaf=${message.id}`));
    return record && `${JSON.stringify(record)}\n`;
  }

  get #filename() {
    const title = find(this.root, "[data-title]").textContent ?? "";
    return `${title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "conversation"}.jsonl`;
  }

  /** @param {Message} message */
  async #downloadRecord(message) {
    const line = await this.#record(message);
    if (!line) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([line], { type: "application/jsonl" }));
    link.download = this.#filename;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** @param {Message} message */
  async #saveAsCorpus(message) {
    const line = await this.#record(message);
    if (!line) return;
    const query = new URLSearchParams({ filename: this.#filename });
    const options = { body: line, headers: { "Content-Type": "application/jsonl" } };
    const corpus = await this.#try(() => call("POST", `/api/v1/corpora?${query}`, undefined, options));
    if (corpus) this.#notify(fill(this.words.saved ?? "", { name: corpus.name }));
  }

  // ---- storing ------------------------------------------------------------------------------------------------------

  /** Create the conversation with its first message. */
  async #ensureStored() {
    if (this.id) return true;
    const columns = this.columns.map(({ modelId }) => ({ model_id: modelId }));
    const row = await this.#try(() => call("POST", API, { system_prompt: this.system.value.trim(), columns }));
    if (!row) return false;
    this.id = row.id;
    history.replaceState(null, "", `/playground?tab=chat&conversation=${row.id}`);
    this.#showRow(row);
    return true;
  }

  /**
   * @param {Partial<Message>} body
   * @returns {Promise<Message | null>}
   */
  async #store(body) {
    const message = await this.#try(() => call("POST", `${API}/${this.id}/messages`, body));
    if (!message) return null;
    this.tree.add(message);
    const title = find(this.root, "[data-title]");
    if (title.dataset.untitled !== undefined) this.#showTitle(message.content.trim().replace(/\s+/g, " ").slice(0, 120));
    return message;
  }

  async #storeColumns() {
    if (this.id) await this.#change({ columns: this.columns.map(({ state }) => state) });
  }

  /** @param {object} change */
  async #change(change) {
    return this.#try(() => call("PUT", `${API}/${this.id}`, change));
  }

  /**
   * @template T
   * @param {() => Promise<T>} request
   * @returns {Promise<T | null>} null if it failed, and the page says why
   */
  async #try(request) {
    try {
      const answer = await request();
      find(this.root, "[data-error]").hidden = true;
      return answer;
    } catch (error) {
      this.#fail(error instanceof RequestRefused ? error.message : (this.words.broken ?? ""));
      return null;
    }
  }

  // ---- columns ------------------------------------------------------------------------------------------------------

  /**
   * @param {string} modelId
   * @param {string | null} [leafId]
   */
  #addColumn(modelId, leafId = null) {
    /** @type {Column} */
    const column = new Column(this.tree, { model_id: modelId, leaf_id: leafId }, this.words, {
      act: (action, message) => this.#act(action, column, message),
      edit: (message, content) => this.#edit(column, message, content),
      show: (message) => this.#show(column, message),
      pick: (message, start) => this.#regenerate(column, message, start),
      changed: () => this.#modelsChanged(),
      remove: () => this.#removeColumn(column),
    });
    this.columns.push(column);
    this.place.append(column.element);
    return column;
  }

  /** The next column: the base of the first model, or else one that is not yet shown, with the first one's branch. */
  #compare() {
    const [first] = this.columns;
    const shown = this.columns.map(({ modelId }) => modelId);
    const options = [...first.select.options].map(({ value }) => value).filter((id) => !shown.includes(id));
    const modelId = options.find((id) => id === first.baseId) ?? options[0] ?? first.modelId;
    const column = this.#addColumn(modelId, first.leafId);
    this.#modelsChanged();
    this.#showOnly(column);
    column.select.focus();
  }

  /** @param {Column} column */
  #removeColumn(column) {
    column.cancel();
    column.element.remove();
    this.columns = this.columns.filter((other) => other !== column);
    this.#modelsChanged();
    this.columns[0].select.focus();
  }

  #modelsChanged() {
    this.#columnsChanged();
    this.#storeColumns();
  }

  #columnsChanged() {
    const count = this.columns.length;
    this.place.dataset.columns = String(count);
    find(this.root, "[data-add-column]").hidden = count >= MAX_COLUMNS;
    for (const [index, column] of this.columns.entries()) {
      column.rename(index + 1);
      find(column.element, "[data-remove]").hidden = count < 2;
    }
    const [first] = this.columns;
    if (first) find(this.root, "[data-new]", HTMLAnchorElement).search = `?tab=chat&checkpoint=${first.modelId}`;
    this.#drawSwitch();
  }

  /** On narrow screens one column is shown at a time. */
  #drawSwitch() {
    const place = find(this.root, "[data-switch]");
    const active = this.columns.find(({ element }) => element.classList.contains("active")) ?? this.columns[0];
    place.hidden = this.columns.length < 2;
    place.replaceChildren(
      ...this.columns.map((column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = column.label;
        button.addEventListener("click", () => this.#showOnly(column));
        return button;
      }),
    );
    if (active) this.#showOnly(active);
  }

  /** @param {Column} shown */
  #showOnly(shown) {
    const buttons = findAll(find(this.root, "[data-switch]"), "button");
    for (const [index, column] of this.columns.entries()) {
      column.element.classList.toggle("active", column === shown);
      buttons[index]?.setAttribute("aria-pressed", String(column === shown));
    }
  }

  // ---- the page -----------------------------------------------------------------------------------------------------

  #listen() {
    find(this.root, "[data-composer]").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.isBusy) this.cancel();
      else this.#send();
    });
    this.question.addEventListener("input", () => this.#growQuestion());
    this.question.addEventListener("keydown", (event) => this.#handleKey(event));
    this.system.addEventListener("input", () => this.#showSystemPrompt());
    this.system.addEventListener("change", () => this.id && this.#change({ system_prompt: this.system.value.trim() }));
    find(this.root, "[data-add-column]").addEventListener("click", () => this.#compare());
    find(this.root, "[data-close-error]").addEventListener("click", () => {
      find(this.root, "[data-error]").hidden = true;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) this.#escape();
    });
    for (const name of ["online", "offline"]) window.addEventListener(name, () => this.#showConnection());
  }

  /** @param {KeyboardEvent} event in the composer */
  #handleKey(event) {
    if (event.isComposing) return; // an input method uses these keys
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.isBusy) this.#send();
    } else if (event.key === "ArrowUp" && !this.question.value && !this.isBusy) {
      const shown = this.columns.find(({ element }) => element.checkVisibility()) ?? this.columns[0];
      const last = shown?.turns.findLast(({ message }) => message.role === "user");
      if (last) event.preventDefault();
      last?.startEditing();
    }
  }

  #escape() {
    if (this.isBusy) this.cancel();
    else if (NARROW.matches) for (const name of ["history", "settings"]) this.#togglePanel(name, false);
  }

  #showBusy() {
    const { isBusy } = this;
    const button = find(this.root, "[data-send]");
    for (const part of findAll(button, "[data-when]")) part.hidden = (part.dataset.when === "busy") !== isBusy;
    button.classList.toggle("primary", !isBusy);
  }

  #growQuestion() {
    this.question.style.height = "auto";
    this.question.style.height = `${Math.min(this.question.scrollHeight + 2, innerHeight * MAX_COMPOSER_HEIGHT)}px`;
  }

  #showSystemPrompt() {
    const preview = find(this.root, "[data-system-preview]");
    preview.dataset.none ??= preview.textContent ?? "";
    preview.textContent = this.system.value.trim() || preview.dataset.none;
  }

  #showConnection() {
    find(this.root, "[data-offline]").hidden = navigator.onLine;
  }

  /** @param {string} text for screen readers */
  #announce(text) {
    find(this.root, "[data-announcement]").textContent = text;
  }

  /** @param {string} message */
  #fail(message) {
    find(this.root, "[data-error] [data-message]").textContent = message;
    find(this.root, "[data-error]").hidden = false;
  }

  /** @param {string} message */
  #notify(message) {
    find(this.root, "[data-notice] [data-message]").textContent = message;
    find(this.root, "[data-notice]").hidden = false;
  }

  // ---- panels and dialogs -------------------------------------------------------------------------------------------

  #connectPanels() {
    if (NARROW.matches) this.#togglePanel("history", false);
    this.root.addEventListener("click", (event) => {
      const opener = closest(event, "[data-toggle]")?.dataset.toggle;
      const closer = closest(event, "[data-close-panel]")?.dataset.closePanel;
      if (opener) this.#togglePanel(opener);
      if (!closer) return;
      this.#togglePanel(closer, false);
      find(this.root, `[data-toggle=${closer}]`).focus();
    });
  }

  /**
   * @param {string} name
   * @param {boolean} [isOpen] by default the opposite
   */
  #togglePanel(name, isOpen) {
    const panel = find(this.root, `[data-panel=${name}]`);
    const button = find(this.root, `[data-toggle=${name}]`);
    panel.hidden = !(isOpen ?? panel.hidden);
    button.setAttribute("aria-expanded", String(!panel.hidden));
    this.root.classList.toggle(`without-${name}`, panel.hidden);
    this.root.classList.toggle(`with-${name}`, !panel.hidden);
    if (NARROW.matches && !panel.hidden) find(panel, "button").focus();
  }

  #connectDialogs() {
    const title = find(this.root, "[data-rename] [name=title]", HTMLInputElement);
    find(this.root, "[data-dialog=rename-conversation]").addEventListener("click", () => {
      title.value = find(this.root, "[data-title]").textContent ?? "";
      title.select();
    });
    find(this.root, "[data-rename]").addEventListener("submit", () => this.#rename(title.value));
    find(this.root, "[data-share]").addEventListener("click", () => this.#share("share"));
    find(this.root, "[data-unshare]").addEventListener("click", () => this.#share("unshare"));
    find(this.root, "[data-delete-conversation]").addEventListener("click", () => this.#delete());
  }

  /** @param {string} title */
  async #rename(title) {
    const row = await this.#change({ title });
    if (row) this.#showTitle(row.title);
    this.history.load();
  }

  /** @param {"share" | "unshare"} verb */
  async #share(verb) {
    const row = await this.#try(() => call("POST", `${API}/${this.id}/${verb}`));
    if (row) this.#showRow(row);
    this.history.load();
  }

  async #delete() {
    await this.#try(() => call("DELETE", `${API}/${this.id}`).then(() => location.assign("/playground?tab=chat")));
    find(document, "#delete-conversation", HTMLDialogElement).close();
  }

  /** @param {{ title: string, share_key: string | null }} row */
  #showRow({ title, share_key }) {
    find(this.root, "[data-conversation-bar]").hidden = false;
    this.#showTitle(title);
    find(this.root, "[data-when-private]").hidden = share_key !== null;
    find(this.root, "[data-when-shared]").hidden = share_key === null;
    const link = find(this.root, "[data-share-link]", HTMLAnchorElement);
    link.href = link.textContent = share_key === null ? "" : `${location.origin}/shared/${share_key}`;
  }

  /** @param {string} title */
  #showTitle(title) {
    const place = find(this.root, "[data-title]");
    place.textContent = title || (this.words.untitled ?? "");
    if (title) delete place.dataset.untitled;
    else place.dataset.untitled = "";
  }
}

/** @param {HTMLElement} root */
export function start(root) {
  new Chat(root).open();
}

// Completion in the playground, and what encoder-decoders make of a source text: generates texts with one to four models
// side by side, keeps those of this visit on the page, and shows the same request as a command.

import { cloneTemplate, find, findAll } from "./dom.js";
import { clearErrors, showErrors } from "./errors.js";
import { fill } from "./format.js";
import { Generation } from "./generation.js";
import { Sampling } from "./sampling.js";

/** @import { FieldError } from "./errors.js" */
/** @import { GenerationRequest } from "./generate.js" */

const MAX_PROMPT_HEIGHT = 0.4; // of the window
const MAX_MODELS = 4;

class Playground {
  /** @type {Generation[]} */
  #running = [];
  /** Ends with the texts that are being written. */
  #writing = Promise.resolve();

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.prompt = find(form, "[name=prompt]", HTMLTextAreaElement);
    /** The field for the task, if the prompt is a source text. @type {HTMLInputElement | null} */
    this.prefix = form.querySelector("[name=prefix]");
    this.isNarrow = matchMedia("(max-width: 1080px)").matches;
    this.sampling = new Sampling(find(form, "[data-sampling]"));
    form.noValidate = true; // the server's messages are in the reader's language
    this.#listen();
    this.#letCompare();
    if (this.isNarrow) find(form, "[data-settings]", HTMLDetailsElement).open = false;
    find(form, "[data-keys]").hidden = false;
    if (/Mac|iPhone|iPad/.test(navigator.platform)) find(form, "[data-keys] kbd").textContent = "⌘";
    this.#update();
  }

  /** The selects of the models, the first of which is always there. */
  get #models() {
    return findAll(this.form, "[data-models] select").filter((select) => select instanceof HTMLSelectElement);
  }

  /**
   * @param {string} checkpoint
   * @returns {GenerationRequest & { prompt: string }}
   */
  #request(checkpoint) {
    const prompt = [this.#task, this.prompt.value].filter(Boolean).join(" ");
    return { checkpoint, prompt, ...this.sampling.values, stream: true };
  }

  /** What stands before the source text. */
  get #task() {
    return this.prefix?.value.trim() ?? "";
  }

  #listen() {
    this.form.addEventListener("input", () => this.#update());
    this.prompt.addEventListener("input", () => this.#growPrompt());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running.length) this.#cancel();
      else this.#start();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || this.#running.length) return;
      event.preventDefault();
      this.#start();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#cancel();
    });
  }

  #cancel() {
    for (const generation of this.#running) generation.cancel();
  }

  // ---- models side by side ------------------------------------------------------------------------------------------

  #letCompare() {
    const button = find(this.form, "[data-compare]");
    button.hidden = false;
    for (const place of findAll(this.form, "[data-initial]")) {
      this.#addModel(place.dataset.initial);
      place.remove();
    }
    button.addEventListener("click", () => this.#addModel().focus());
  }

  /**
   * @param {string} [wanted] by default the base of the first model, or else one that is not yet chosen
   * @returns {HTMLSelectElement} of the model
   */
  #addModel(wanted) {
    const field = cloneTemplate(document, "template#another-model");
    const select = find(field, "select", HTMLSelectElement);
    const chosen = this.#models.map(({ value }) => value);
    const first = wanted ?? this.#models[0].selectedOptions[0]?.dataset.base;
    const rest = [...select.options].filter((option) => !chosen.includes(option.value));
    const next = rest.find((option) => option.value === first) ?? rest[0];
    if (next) select.value = next.value;
    find(field, "[data-remove]").addEventListener("click", () => {
      field.remove();
      this.#nameModels();
      find(this.form, "[data-compare]").focus();
    });
    find(this.form, "[data-models]").append(field);
    this.#nameModels();
    return select;
  }

  #nameModels() {
    for (const [index, field] of findAll(this.form, "[data-models] [data-model]").entries()) {
      const id = `model-${index + 2}`;
      find(field, "select").id = id;
      const label = find(field, "label", HTMLLabelElement);
      label.htmlFor = id;
      label.textContent = fill(this.form.dataset.model ?? "", { n: index + 2 });
    }
    find(this.form, "[data-compare]").hidden = this.#models.length >= MAX_MODELS;
  }

  // ---- texts --------------------------------------------------------------------------------------------------------

  /** Show the request of the first model as a command. */
  #update() {
    const entries = Object.entries(this.#request(this.#models[0].value));
    const body = Object.fromEntries(entries.filter(([, value]) => !isEmpty(value)));
    // Inside single quotes of a shell, an apostrophe is written as JSON's escape of it.
    const text = JSON.stringify(body, null, 1).replace(/\n\s*/g, " ").replaceAll("'", "\\u0027");
    find(this.form, "[data-body]").textContent = text;
  }

  #start() {
    this.#writing = this.#generate();
  }

  async #generate() {
    clearErrors(this.form);
    if (this.prefix && !this.prompt.value.trim()) {
      this.#showErrors([{ field: "prompt", message: this.form.dataset.empty ?? "" }]);
      return;
    }
    this.form.querySelector("[data-hint]")?.remove();
    const row = document.createElement("div");
    row.className = "row-of-texts";
    this.#running = this.#models.map((select) => this.#generation(select));
    row.append(...this.#running.map(({ card }) => card));
    const shown = this.prefix ? this.#besideSource(row) : row;
    find(this.form, "[data-generations]").prepend(shown);
    if (this.isNarrow) shown.scrollIntoView({ block: "nearest" });
    this.#showBusy(true);
    await Promise.all(this.#running.map((generation) => generation.run()));
    if (!row.children.length) shown.remove();
    this.#running = [];
    this.#showBusy(false);
  }

  /**
   * Texts with their source on the left.
   * @param {HTMLElement} row
   */
  #besideSource(row) {
    const element = cloneTemplate(document, "template#source");
    find(element, "[data-text]").textContent = this.prompt.value;
    find(element, "[data-prefix]").textContent = this.#task;
    find(element, "[data-prefix]").hidden = !this.#task;
    element.append(row);
    return element;
  }

  /** @param {HTMLSelectElement} select */
  #generation(select) {
    const label = select.selectedOptions[0]?.dataset.label ?? "";
    const pick = async (/** @type {string} */ text) => {
      this.#cancel();
      await this.#writing;
      this.#continueFrom(text);
      this.#start();
    };
    return new Generation(this.#request(select.value), label, this.form.dataset, {
      onContinue: (text) => this.#continueFrom(text),
      onPick: this.prefix ? null : pick,
      onSeed: (seed) => this.sampling.keepSeed(seed),
      onFieldErrors: (errors) => this.#showErrors(errors),
    });
  }

  /**
   * @param {FieldError[]} errors
   * @returns {boolean} whether any of them has its place on the form
   */
  #showErrors(errors) {
    const [first] = showErrors(this.form, errors);
    first?.focus();
    return first !== undefined;
  }

  /** @param {string} text */
  #continueFrom(text) {
    this.prompt.value = text;
    this.prompt.focus();
    this.prompt.setSelectionRange(text.length, text.length);
    this.prompt.scrollTop = this.prompt.scrollHeight;
    this.#growPrompt();
    this.#update();
  }

  #growPrompt() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight + 2, innerHeight * MAX_PROMPT_HEIGHT)}px`;
  }

  /** @param {boolean} isBusy */
  #showBusy(isBusy) {
    for (const part of findAll(this.form, "[data-when]")) part.hidden = (part.dataset.when === "busy") !== isBusy;
    find(this.form, "[data-run]").classList.toggle("primary", !isBusy);
  }
}

/** @param {unknown} value of a field of the request */
function isEmpty(value) {
  return value === "" || value === null || (typeof value === "object" && !Object.keys(value).length);
}

/** @param {HTMLElement} root */
export function start(root) {
  if (root instanceof HTMLFormElement) new Playground(root);
}

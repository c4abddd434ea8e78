// The playground: generates texts, keeps those of this visit on the page, and shows the same request as a command.

import { find, findAll } from "./dom.js";
import { clearErrors, showErrors } from "./errors.js";
import { Generation } from "./generation.js";

/** @import { FieldError } from "./errors.js" */
/** @import { GenerationRequest } from "./generation.js" */

const MAX_PROMPT_HEIGHT = 0.4; // of the window

class Playground {
  /** @type {Generation | null} */
  #running = null;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.prompt = find(form, "[name=prompt]", HTMLTextAreaElement);
    this.isNarrow = matchMedia("(max-width: 1080px)").matches;
    form.noValidate = true; // the server's messages are in the reader's language
    this.#listen();
    this.#connectSliders();
    if (this.isNarrow) find(form, "[data-settings]", HTMLDetailsElement).open = false;
    find(form, "[data-keys]").hidden = false;
    if (/Mac|iPhone|iPad/.test(navigator.platform)) find(form, "[data-keys] kbd").textContent = "⌘";
    this.#update();
  }

  /** @param {string} name */
  #input(name) {
    return find(this.form, `[name=${name}]`, HTMLInputElement);
  }

  /** @returns {GenerationRequest} */
  get request() {
    const seed = this.#input("seed").value;
    return {
      checkpoint: find(this.form, "[name=checkpoint]", HTMLSelectElement).value,
      prompt: this.prompt.value,
      max_tokens: Number(this.#input("max_tokens").value),
      temperature: Number(this.#input("temperature").value),
      top_p: Number(this.#input("top_p").value),
      top_k: Number(this.#input("top_k").value),
      seed: this.#input("random_seed").checked || seed === "" ? null : Number(seed),
      stop: find(this.form, "[name=stop]", HTMLTextAreaElement).value.split("\n").filter(Boolean),
      stream: true,
    };
  }

  #listen() {
    this.form.addEventListener("input", () => this.#update());
    this.prompt.addEventListener("input", () => this.#growPrompt());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running) this.#running.cancel();
      else this.#generate();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || this.#running) return;
      event.preventDefault();
      this.#generate();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#running?.cancel();
    });
  }

  #connectSliders() {
    for (const slider of findAll(this.form, "[data-slider]").filter((slider) => slider instanceof HTMLInputElement)) {
      const input = this.#input(slider.dataset.slider ?? "");
      slider.hidden = false;
      slider.addEventListener("input", () => {
        input.value = slider.value;
      });
      input.addEventListener("input", () => {
        slider.value = input.value;
      });
    }
  }

  /** What follows from the values of the form. */
  #update() {
    this.#input("seed").disabled = this.#input("random_seed").checked;
    const entries = Object.entries(this.request).filter(([, value]) => value !== null && value !== "");
    const body = Object.fromEntries(entries.filter(([, value]) => !Array.isArray(value) || value.length));
    // Inside single quotes of a shell, an apostrophe is written as JSON's escape of it.
    const text = JSON.stringify(body, null, 1).replace(/\n\s*/g, " ").replaceAll("'", "\\u0027");
    find(this.form, "[data-body]").textContent = text;
  }

  async #generate() {
    clearErrors(this.form);
    this.form.querySelector("[data-hint]")?.remove();
    const select = find(this.form, "[name=checkpoint]", HTMLSelectElement);
    const label = select.selectedOptions[0]?.dataset.label ?? "";
    const generation = new Generation(this.request, label, this.form.dataset, {
      onContinue: (text) => this.#continueFrom(text),
      onSeed: (seed) => this.#keepSeed(seed),
      onFieldErrors: (errors) => this.#showErrors(errors),
    });
    find(this.form, "[data-generations]").prepend(generation.card);
    if (this.isNarrow) generation.card.scrollIntoView({ block: "nearest" });
    this.#running = generation;
    this.#showBusy(true);
    await generation.run();
    this.#running = null;
    this.#showBusy(false);
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

  /**
   * Unchecking "random" then repeats the last text.
   * @param {number} seed
   */
  #keepSeed(seed) {
    if (this.#input("random_seed").checked) this.#input("seed").value = String(seed);
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

/** @param {HTMLElement} root */
export function start(root) {
  if (root instanceof HTMLFormElement) new Playground(root);
}

// Asks a model for looks inside it, and has each view draw its answer. On a page with several views one is chosen.

import { AttentionMap } from "./attention-map.js";
import { find, findAll } from "./dom.js";
import { clearErrors, showErrors } from "./errors.js";
import { fill } from "./format.js";
import {
  ClassifyView,
  EmbedView,
  FillMaskView,
  NeighborsView,
  ScoreView,
  TokenizeView,
  factsOf,
} from "./inspection-views.js";

/** @typedef {import("./inspection-views.js").View} View */

/** @type {Record<string, new (panel: HTMLElement, words: Record<string, string>, ask: () => void) => View>} */
const VIEWS = {
  tokenize: TokenizeView,
  score: ScoreView,
  attention: AttentionMap,
  neighbors: NeighborsView,
  fill_mask: FillMaskView,
  classify: ClassifyView,
  embed: EmbedView,
};

class Inspection {
  #abort = new AbortController();
  #hasAsked = false;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.words = JSON.parse(form.dataset.words ?? "{}");
    this.model = find(form, "[name=checkpoint]", HTMLSelectElement);
    this.text = find(form, "[name=text]", HTMLTextAreaElement);
    this.radios = findAll(form, "[name=view]").filter((radio) => radio instanceof HTMLInputElement);
    /** @type {Map<string, View>} */
    this.views = new Map();
    for (const panel of findAll(form, "[data-view]")) {
      const name = panel.dataset.view ?? "";
      this.views.set(name, new VIEWS[name](panel, this.words, () => this.#ask()));
    }
    form.noValidate = true; // the server's messages are in the reader's language
    if (/Mac|iPhone|iPad/.test(navigator.platform)) {
      for (const key of findAll(form, "[data-modifier]")) key.textContent = "⌘";
    }
    this.#listen();
    this.#offerViews();
    if (form.dataset.auto !== undefined) this.#ask();
  }

  #listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#ask();
    });
    this.model.addEventListener("change", () => {
      for (const view of this.views.values()) view.reset();
      this.#offerViews();
      if (this.#hasAsked) this.#ask();
    });
    for (const radio of this.radios) {
      radio.addEventListener("change", () => {
        this.#showView();
        if (this.#hasAsked) this.#ask();
      });
    }
    this.text.addEventListener("input", () => this.#carry());
  }

  /** The views that the chosen model allows. */
  get #allowed() {
    const tasks = (this.model.selectedOptions[0]?.dataset.tasks ?? "").split(" ");
    return [...this.views.keys()].filter((name) => tasks.includes(name));
  }

  /** The name of the view that is shown; empty if the model allows none of the page's. */
  get #shown() {
    const chosen = this.radios.find((radio) => radio.checked)?.value;
    return chosen ?? this.#allowed[0] ?? "";
  }

  #offerViews() {
    const allowed = this.#allowed;
    for (const radio of this.radios) {
      const isAllowed = allowed.includes(radio.value);
      radio.disabled = !isAllowed;
      if (radio.parentElement) radio.parentElement.hidden = !isAllowed;
      if (!isAllowed) radio.checked = false;
    }
    const first = this.radios.find((radio) => !radio.disabled && radio.value !== "tokenize");
    if (!this.radios.some((radio) => radio.checked) && first) first.checked = true;
    for (const note of findAll(this.form, "[data-unfit]")) note.hidden = allowed.length > 0;
    const turnsText = this.model.selectedOptions[0]?.dataset.turnsText !== undefined;
    for (const field of findAll(this.form, "[data-for-source]")) field.hidden = !turnsText;
    this.#showView();
    this.#carry();
  }

  #showView() {
    const shown = this.#shown;
    for (const [name, view] of this.views) view.panel.hidden = name !== shown;
    const sample = this.views.get(shown)?.panel.dataset.sample;
    if (this.text.dataset.samples?.split("\n").includes(this.text.value) && sample) this.text.value = sample;
  }

  /** Links to other pages about the same model and text. */
  #carry() {
    const query = new URLSearchParams({ checkpoint: this.model.value, text: this.text.value });
    for (const link of findAll(document, "a[data-carry]")) {
      if (link instanceof HTMLAnchorElement) link.href = `${link.dataset.carry}?${query}`;
    }
  }

  async #ask() {
    const name = this.#shown;
    const view = this.views.get(name);
    if (!view) return;
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#hasAsked = true;
    clearErrors(this.form);
    view.say(this.words.busy);
    const body = { checkpoint: this.model.value, ...view.request(this.text.value) };
    try {
      const response = await fetch(`/api/v1/inspect/${name.replace("_", "-")}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal: this.#abort.signal,
      });
      const answer = await response.json();
      if (response.ok) this.#show(name, view, answer);
      else this.#refuse(view, answer);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) view.fail(this.words.lost);
    }
  }

  /**
   * @param {string} name
   * @param {View} view
   * @param {any} answer
   */
  #show(name, view, answer) {
    view.say("");
    view.show(answer);
    const facts = factsOf(name, answer);
    for (const place of findAll(this.form, "[data-stat]")) {
      const value = facts[place.dataset.stat ?? ""];
      if (value !== undefined && view.panel.contains(place)) place.firstChild?.replaceWith(`${value} `);
    }
    for (const place of findAll(this.form, `[data-sentence][data-of="${name}"]`)) {
      place.textContent = fill(place.dataset.sentence ?? "", facts);
      place.hidden = false;
    }
  }

  /**
   * @param {View} view
   * @param {{ title: string, errors: import("./errors.js").FieldError[] }} problem
   */
  #refuse(view, problem) {
    const [first] = showErrors(this.form, problem.errors);
    view.fail(first ? "" : problem.title);
    first?.focus();
  }
}

/** @param {HTMLElement} root */
export function start(root) {
  if (root instanceof HTMLFormElement) new Inspection(root);
}

// <form data-module="time-lapse">: one prompt, written by each checkpoint of a job; the slider shows the text of one.
// The checkpoints are the rows of its table, which the server renders again while the job runs. The texts of one prompt
// outlast a reload of the page, in the same tab.

import { call, RequestRefused } from "./api.js";
import { find, findAll } from "./dom.js";
import { fill, number } from "./format.js";
import { refresh } from "./refresh.js";

/** @typedef {{ id: string, step: number, loss: string }} Checkpoint */

const MAX_TOKENS = 80;
const LOOK_EVERY = 3_000; // milliseconds, for new checkpoints

/** @param {HTMLElement} form */
export function start(form) {
  if (form instanceof HTMLFormElement) new TimeLapse(form).start();
}

class TimeLapse {
  /** @type {Checkpoint[]} */
  checkpoints = [];
  /** The prompt that is written; null before there is one. @type {string | null} */
  prompt = null;
  /** By the ID of the checkpoint. @type {Map<string, string>} */
  texts = new Map();
  /** Why a checkpoint has none, in the same way. @type {Map<string, string>} */
  errors = new Map();
  isWriting = false;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.list = find(form, "#time-lapse-checkpoints");
    this.slider = find(form, "[data-step]", HTMLInputElement);
    this.field = find(form, "[name=prompt]", HTMLTextAreaElement);
    this.memory = `athanor.time-lapse.${form.dataset.job}`;
    this.run = new AbortController();
  }

  start() {
    this.slider.addEventListener("input", () => this.show());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      delete this.form.dataset.sent;
      this.begin(this.field.value, this.field.value === this.prompt ? this.texts : new Map());
    });
    this.read();
    const { prompt, texts } = JSON.parse(sessionStorage.getItem(this.memory) ?? "{}");
    if (texts) {
      this.field.value = prompt;
      this.begin(prompt, new Map(texts));
    }
    this.follow();
  }

  get index() {
    return Number(this.slider.value);
  }

  /** Read the checkpoints; the slider stays at the one that it shows. */
  read() {
    const shown = this.checkpoints[this.index]?.id;
    this.checkpoints = findAll(this.list, "[data-row]").map(({ dataset }) => {
      return { id: dataset.row ?? "", step: Number(dataset.step), loss: dataset.loss ?? "" };
    });
    const place = this.checkpoints.findIndex(({ id }) => id === shown);
    const last = this.checkpoints.length - 1;
    this.slider.max = String(last);
    this.slider.value = String(place < 0 ? last : place);
    this.show();
  }

  /** Look for new checkpoints until the job has ended, and write with them, too. */
  async follow() {
    while (this.list.dataset.over === undefined) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
      if (document.hidden) continue;
      await refresh(this.list);
      this.read();
      if (!this.isWriting) this.write();
    }
  }

  /** Show the checkpoint of the slider, and all texts. */
  show() {
    for (const { id } of this.checkpoints) {
      const cell = find(this.list, `[data-row="${id}"] [data-cell]`);
      this.#fill(cell, id, "–");
    }
    const checkpoint = this.checkpoints[this.index];
    if (!checkpoint) return;
    const { stepWord = "", lossWord = "", doneWord = "", waiting = "" } = this.form.dataset;
    const step = fill(stepWord, { n: number(checkpoint.step) });
    find(this.form, "[data-label]").textContent = step;
    find(this.form, "[data-loss-text]").textContent = checkpoint.loss && fill(lossWord, { loss: checkpoint.loss });
    this.slider.setAttribute("aria-valuetext", step);
    this.#fill(find(this.form, "[data-text]"), checkpoint.id, this.isWriting ? waiting : "");
    if (this.prompt === null) return;
    const done = this.checkpoints.filter(({ id }) => this.texts.has(id)).length;
    const total = this.checkpoints.length;
    find(this.form, "[data-progress]").textContent = fill(doneWord, { done: number(done), total: number(total) });
  }

  /**
   * @param {HTMLElement} place
   * @param {string} id of the checkpoint
   * @param {string} otherwise what stands there without its text
   */
  #fill(place, id, otherwise) {
    const error = this.errors.get(id);
    place.textContent = this.texts.get(id) ?? error ?? otherwise;
    place.classList.toggle("error", error !== undefined);
  }

  /**
   * @param {string} prompt
   * @param {Map<string, string>} texts of it that are there already
   */
  begin(prompt, texts) {
    this.run.abort();
    this.run = new AbortController();
    this.prompt = prompt;
    this.texts = texts;
    this.errors.clear();
    this.write();
  }

  /** Write with every checkpoint that has no text, always next the one nearest to the slider. */
  async write() {
    const { prompt } = this;
    const { signal } = this.run;
    if (prompt === null) return;
    this.isWriting = true;
    this.show();
    for (let next = this.nearest(); next; next = this.nearest()) {
      try {
        const body = { checkpoint: next.id, prompt, max_tokens: MAX_TOKENS, temperature: 0 };
        const { text } = await call("POST", "/api/v1/generate", body, { signal });
        if (signal.aborted) return;
        this.texts.set(next.id, prompt + text);
        sessionStorage.setItem(this.memory, JSON.stringify({ prompt, texts: [...this.texts] }));
      } catch (error) {
        if (signal.aborted) return;
        this.errors.set(next.id, error instanceof RequestRefused ? error.message : (this.form.dataset.lost ?? ""));
      }
      this.show();
    }
    this.isWriting = false;
    this.show();
  }

  /** The checkpoint without a text or an error that is nearest to the slider, if there is one. */
  nearest() {
    const missing = this.checkpoints.map((one, place) => ({ one, far: Math.abs(place - this.index) }));
    const open = missing.filter(({ one }) => !this.texts.has(one.id) && !this.errors.has(one.id));
    return open.sort((a, b) => a.far - b.far)[0]?.one;
  }
}

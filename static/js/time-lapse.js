// <form data-module="time-lapse">: one prompt, written by each checkpoint of a job; the slider shows the text of one.

import { find } from "./dom.js";
import { fill, number } from "./format.js";

/** @typedef {{ id: string, step: number, loss: number | null }} Checkpoint */

const MAX_TOKENS = 80;

/** @param {HTMLElement} form */
export function start(form) {
  if (form instanceof HTMLFormElement) new TimeLapse(form).start();
}

class TimeLapse {
  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    /** @type {Checkpoint[]} */
    this.checkpoints = JSON.parse(form.dataset.checkpoints ?? "[]");
    this.slider = find(form, "[data-step]", HTMLInputElement);
    this.text = find(form, "[data-text]");
    this.progress = find(form, "[data-progress]");
    const { stepWord = "", lossWord = "", doneWord = "" } = form.dataset;
    this.words = { step: stepWord, loss: lossWord, done: doneWord };
    /** @type {Map<string, string>} texts by the ID of the checkpoint */
    this.texts = new Map();
    this.run = new AbortController();
  }

  start() {
    this.slider.addEventListener("input", () => this.show());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.write();
    });
    this.show();
  }

  get index() {
    return Number(this.slider.value);
  }

  /** Show the checkpoint of the slider. */
  show() {
    const { id, step, loss } = this.checkpoints[this.index];
    const stepText = fill(this.words.step, { n: number(step) });
    find(this.form, "[data-label]").textContent = stepText;
    find(this.form, "[data-loss]").textContent = loss === null ? "" : fill(this.words.loss, { loss: loss.toFixed(3) });
    this.slider.setAttribute("aria-valuetext", stepText);
    const waiting = this.run.signal.aborted || !this.isWriting ? "" : (this.form.dataset.waiting ?? "");
    this.text.textContent = this.texts.get(id) ?? waiting;
  }

  isWriting = false;

  /** Write with every checkpoint, always next the one nearest to the slider. */
  async write() {
    this.run.abort();
    const run = new AbortController();
    this.run = run;
    this.texts.clear();
    this.isWriting = true;
    this.show();
    while (this.texts.size < this.checkpoints.length) {
      const next = this.nearest();
      const answer = await this.generate(next, run.signal);
      if (run.signal.aborted) return;
      if (answer === null) break;
      this.texts.set(next.id, answer);
      find(this.form, `[data-row="${next.id}"] [data-cell]`).textContent = answer;
      this.progress.textContent = fill(this.words.done, { done: number(this.texts.size), total: number(this.checkpoints.length) });
      this.show();
    }
    this.isWriting = false;
    delete this.form.dataset.sent;
  }

  /** @returns {Checkpoint} the one without a text that is nearest to the slider */
  nearest() {
    const missing = this.checkpoints.map((one, place) => ({ one, far: Math.abs(place - this.index) }));
    return missing.filter(({ one }) => !this.texts.has(one.id)).sort((a, b) => a.far - b.far)[0].one;
  }

  /**
   * @param {Checkpoint} checkpoint
   * @param {AbortSignal} signal
   * @returns {Promise<string | null>} the text, or null if there will be none
   */
  async generate(checkpoint, signal) {
    const prompt = find(this.form, "[name=prompt]", HTMLTextAreaElement).value;
    const body = JSON.stringify({ checkpoint: checkpoint.id, prompt, max_tokens: MAX_TOKENS, temperature: 0 });
    try {
      const headers = { "Content-Type": "application/json" };
      const response = await fetch("/api/v1/generate", { method: "POST", headers, body, signal });
      const answer = await response.json();
      if (response.ok) return prompt + answer.text;
      this.progress.textContent = answer.title;
    } catch {
      if (!signal.aborted) this.progress.textContent = this.form.dataset.lost ?? "";
    }
    return null;
  }
}

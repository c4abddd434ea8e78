// Where the training loss of a job will probably go: fetched again as the job advances, drawn by the chart of the loss.

import { find } from "./dom.js";
import { fill, measure } from "./format.js";

/** @typedef {{ steps: number[], values: number[], low: number[], high: number[] }} Forecast up to the end of the job */

export class LossForecast {
  #fetchedAt = -1; // the step

  /**
   * @param {HTMLElement} root
   * @param {import("./board.js").Board} board
   */
  constructor(root, board) {
    this.board = board;
    this.address = `/api/v1/jobs/${root.dataset.id}/forecast`;
    this.sentence = find(root, "[data-forecast-sentence]");
    this.tool = find(root, "[data-tool=forecast]");
  }

  /**
   * Bring the forecast up to date. It changes with the first two digits of the step only.
   * @param {boolean} isOver whether the job has ended
   */
  async update(isOver) {
    const step = isOver ? 0 : twoDigits(this.board.curves.get("loss")?.steps.at(-1) ?? 0);
    if (step === this.#fetchedAt) return;
    this.#fetchedAt = step;
    const answer = step ? await fetch(this.address).catch(() => null) : null;
    const forecast = answer?.ok ? /** @type {Forecast} */ (await answer.json()) : null;
    if (step === this.#fetchedAt) this.#show(forecast?.steps.length ? forecast : null);
  }

  /** @param {Forecast | null} forecast */
  #show(forecast) {
    this.board.forecast = forecast;
    this.sentence.hidden = this.tool.hidden = !forecast;
    if (forecast) this.sentence.textContent = fill(this.sentence.dataset.words ?? "", expected(forecast, forecast.steps.length - 1));
    this.board.draw();
  }
}

/**
 * What is expected at a place of a forecast, as texts.
 * @param {Forecast} forecast
 * @param {number} i
 */
export function expected({ values, low, high }, i) {
  return { value: short(values[i]), low: short(low[i]), high: short(high[i]) };
}

/**
 * The index of the place of a forecast that is nearest to a step before its end, or -1 before the forecast begins.
 * @param {Forecast} forecast
 * @param {number} step
 */
export function placeOf({ steps }, step) {
  return step < steps[0] ? -1 : steps.findLastIndex((place) => place <= step);
}

/**
 * A step rounded down to its first two digits.
 * @param {number} step
 */
export function twoDigits(step) {
  const unit = 10 ** Math.max(0, String(step).length - 2);
  return Math.floor(step / unit) * unit;
}

/** @param {number} value */
function short(value) {
  return measure(Number(value.toPrecision(3)));
}

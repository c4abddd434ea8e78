// The horizontal axis of charts: steps, tokens, seconds of training or FLOPs.

import { compact, fill, number, span } from "./format.js";

/** @typedef {"step" | "tokens" | "seconds" | "flops"} Axis */

const NICE = [1, 2, 5, 10];
const NICE_SECONDS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400];

/**
 * What stands below a tick.
 * @param {Axis} axis
 * @param {number} place
 */
export function tickText(axis, place) {
  if (axis === "seconds") return place ? span(place) : "0";
  if (axis === "step") return place % 1 ? "" : number(place);
  return compact(place);
}

/**
 * How a place is called.
 * @param {Record<string, string>} words
 * @param {Axis} axis
 * @param {number} place
 */
export function placeText(words, axis, place) {
  return fill(words[axis], { step: number(place), n: compact(place), duration: place ? span(place) : "0" });
}

/**
 * Round places between two others, about as many as wanted.
 * @param {Axis} axis
 * @param {number} start
 * @param {number} end
 * @param {number} wanted
 */
export function ticks(axis, start, end, wanted) {
  const least = (end - start) / Math.max(1, wanted);
  if (!(least > 0)) return [start];
  const power = 10 ** Math.floor(Math.log10(least));
  const round = Number(NICE.find((n) => n * power >= least * 0.999)) * power;
  const apart = (axis === "seconds" && least >= 1 && NICE_SECONDS.find((n) => n >= least)) || round;
  const first = Math.ceil(start / apart);
  return Array.from({ length: Math.max(0, Math.floor(end / apart) - first + 1) }, (_tick, i) => (first + i) * apart);
}

/** Where steps are on the axis of one job. Seconds between two points of a curve, and after the last, are interpolated. */
export class StepPlaces {
  /** @type {Axis} */
  axis = "step";
  tokensPerStep = 0;
  flopsPerStep = 0;
  /** @type {number[]} */
  #steps = [0];
  /** @type {number[]} */
  #seconds = [0];

  /**
   * Take over when steps were reached.
   * @param {number[]} steps
   * @param {(number | null)[]} seconds
   */
  setSeconds(steps, seconds) {
    [this.#steps, this.#seconds] = [[0], [0]];
    for (const [i, at] of seconds.entries()) {
      if (at === null || at <= Number(this.#seconds.at(-1)) || steps[i] <= Number(this.#steps.at(-1))) continue;
      this.#steps.push(steps[i]);
      this.#seconds.push(at);
    }
  }

  /** @param {number} step */
  of(step) {
    if (this.axis === "seconds") return interpolate(this.#steps, this.#seconds, step);
    return step * this.#factor;
  }

  /** @param {number} place */
  step(place) {
    if (this.axis === "seconds") return interpolate(this.#seconds, this.#steps, place);
    return place / this.#factor;
  }

  get #factor() {
    return (this.axis === "tokens" && this.tokensPerStep) || (this.axis === "flops" && this.flopsPerStep) || 1;
  }
}

/**
 * The value at x of the line through some points, both coordinates of which rise; beyond them it goes straight on.
 * @param {number[]} xs
 * @param {number[]} ys
 * @param {number} x
 */
function interpolate(xs, ys, x) {
  if (xs.length < 2) return x;
  let i = 1;
  let last = xs.length - 1;
  while (i < last) {
    const middle = (i + last) >> 1;
    if (xs[middle] < x) i = middle + 1;
    else last = middle;
  }
  return ys[i - 1] + ((x - xs[i - 1]) * (ys[i] - ys[i - 1])) / (xs[i] - xs[i - 1]);
}

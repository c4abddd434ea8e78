// A series in memory: steps in order, a value at each, and the range where a point stands for several steps.

/** @typedef {number | string | null} Value a string for nan, inf and -inf; null for a gap */
/** @typedef {{ steps: number[], values: Value[], min: (number | null)[], max: (number | null)[], stride: number }} Series */
/** @typedef {Record<string, Series>} SeriesByName */

const isWord = (/** @type {unknown} */ value) => typeof value === "string";

/** @param {Value} value */
function finite(value) {
  return typeof value === "string" ? null : value;
}

export class Curve {
  /** @type {number[]} */
  steps = [];
  /** @type {(number | null)[]} */
  values = [];
  /** @type {(number | null)[]} the least value of the steps that a point stands for */
  low = [];
  /** @type {(number | null)[]} the greatest of them */
  high = [];
  stride = 1;
  /** @type {Map<number, Value>} step -> nan, inf or -inf */
  odd = new Map();

  /**
   * Take over a whole curve, as the `curve` event and the metrics endpoint have it.
   * @param {Series} series
   */
  replace({ steps, values, min, max, stride }) {
    this.steps = steps;
    this.stride = stride;
    this.low = min;
    this.high = max;
    this.odd = new Map();
    values.forEach((value, i) => {
      if (isWord(value)) this.odd.set(steps[i], value);
    });
    this.values = values.map(finite);
  }

  /**
   * Add points. They mostly belong at the end; a step that is there already is overwritten.
   * @param {{ steps: number[], values: Value[] }} points
   */
  add({ steps, values }) {
    for (const [i, step] of steps.entries()) this.#put(step, values[i]);
  }

  /**
   * @param {number} step
   * @param {Value} value
   */
  #put(step, value) {
    let at = this.steps.length;
    while (at > 0 && this.steps[at - 1] >= step) at -= 1;
    const numReplaced = this.steps[at] === step ? 1 : 0;
    if (isWord(value)) this.odd.set(step, value);
    else this.odd.delete(step);
    this.steps.splice(at, numReplaced, step);
    for (const column of [this.values, this.low, this.high]) column.splice(at, numReplaced, finite(value));
  }

  /** @returns {Value} */
  get latest() {
    return this.steps.length ? this.#valueAt(this.steps.length - 1) : null;
  }

  /**
   * The value at a step, or at the nearest one before it.
   * @param {number} step
   */
  at(step) {
    const count = this.#numUpTo(step);
    return count ? this.#valueAt(count - 1) : null;
  }

  /**
   * The value at exactly this step, or null.
   * @param {number} step
   */
  exactly(step) {
    const count = this.#numUpTo(step);
    return count && this.steps[count - 1] === step ? this.#valueAt(count - 1) : null;
  }

  /**
   * How many points are at this step or before it (binary search).
   * @param {number} step
   */
  #numUpTo(step) {
    let from = 0;
    let to = this.steps.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.steps[middle] <= step) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /**
   * @param {number} i
   * @returns {Value}
   */
  #valueAt(i) {
    return this.odd.get(this.steps[i]) ?? this.values[i];
  }

  /**
   * An exponential moving average, bias-corrected as in Adam, that skips what is not finite.
   * @param {number} weight of the past
   */
  smoothed(weight) {
    let mean = 0;
    let mass = 0;
    return this.values.map((value) => {
      if (value === null) return null;
      mean = weight * mean + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return mean / mass;
    });
  }
}

/**
 * One axis of steps for several curves. A column has undefined where its curve has no point, null where it has a gap.
 * @template {{ steps: number[] }} C
 * @param {C[]} curves
 * @param {(curve: C, i: number) => unknown[][]} columnsOf
 * @returns {any[][]} the axis, then the columns of each curve
 */
export function align(curves, columnsOf) {
  const steps = curves.map((curve) => curve.steps);
  const axis = steps.length === 1 ? steps[0] : [...new Set(steps.flat())].sort((a, b) => a - b);
  const columns = curves.flatMap((curve, i) => {
    const own = columnsOf(curve, i);
    return curve.steps.length === axis.length ? own : own.map((column) => spread(axis, curve.steps, column));
  });
  return [axis, ...columns];
}

/**
 * @param {number[]} axis
 * @param {number[]} steps
 * @param {unknown[]} column
 */
function spread(axis, steps, column) {
  let i = 0;
  return axis.map((step) => (steps[i] === step ? column[i++] : undefined));
}

/**
 * @param {SeriesByName} series
 * @returns {Map<string, Curve>}
 */
export function curvesOf(series) {
  return new Map(
    Object.entries(series).map(([name, points]) => {
      const curve = new Curve();
      curve.replace(points);
      return [name, curve];
    }),
  );
}

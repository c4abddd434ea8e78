// A series in memory: steps in order, a value at each, least and greatest where places stand for several steps.

const word = (value) => typeof value === "string";

export class Curve {
  constructor() {
    this.replace({ steps: [], values: [], min: [], max: [], stride: 1 });
  }

  // The whole curve anew, as the `curve` event and the metrics call give it.
  replace({ steps, values, min, max, stride }) {
    this.steps = steps;
    this.stride = stride;
    this.low = min;
    this.high = max;
    this.odd = new Map(); // step -> nan, inf or -inf
    values.forEach((value, i) => word(value) && this.odd.set(steps[i], value));
    this.values = values.map((value) => (word(value) ? null : value));
  }

  // New points. They mostly belong at the end; a step that is there already is overwritten.
  add({ steps, values }) {
    steps.forEach((step, i) => this.#put(step, values[i]));
  }

  #put(step, value) {
    let at = this.steps.length;
    while (at > 0 && this.steps[at - 1] >= step) at -= 1;
    const known = this.steps[at] === step ? 1 : 0;
    const shown = word(value) ? null : value;
    if (word(value)) this.odd.set(step, value);
    else this.odd.delete(step);
    this.steps.splice(at, known, step);
    this.values.splice(at, known, shown);
    this.low.splice(at, known, shown);
    this.high.splice(at, known, shown);
  }

  get latest() {
    const step = this.steps.at(-1);
    return step === undefined ? null : (this.odd.get(step) ?? this.values.at(-1));
  }

  // The value at a step, or the nearest one before it.
  at(step) {
    const place = this.#before(step);
    return place ? this.#word(place - 1) : null;
  }

  // How many places are at this step or before it.
  #before(step) {
    let from = 0;
    let to = this.steps.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.steps[middle] <= step) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  #word(place) {
    return this.odd.get(this.steps[place]) ?? this.values[place];
  }

  // The value at exactly this step, or null.
  exactly(step) {
    const place = this.#before(step);
    return place && this.steps[place - 1] === step ? this.#word(place - 1) : null;
  }

  // An exponential moving average that starts unbiased and passes over what is not finite.
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

// One axis for several curves: each column has undefined where its curve has no place (a gap in a curve is null).
export function align(curves, columnsOf) {
  const axis = curves.length === 1 ? curves[0].steps : union(curves.map((curve) => curve.steps));
  const columns = curves.flatMap((curve, i) => {
    const found = columnsOf(curve, i);
    return curve.steps.length === axis.length ? found : spread(axis, curve.steps, found);
  });
  return [axis, ...columns];
}

function union(lists) {
  const axis = [];
  const places = lists.map(() => 0);
  for (;;) {
    let step = Infinity;
    lists.forEach((list, i) => places[i] < list.length && (step = Math.min(step, list[places[i]])));
    if (step === Infinity) return axis;
    axis.push(step);
    lists.forEach((list, i) => list[places[i]] === step && (places[i] += 1));
  }
}

function spread(axis, steps, columns) {
  const spreadOut = columns.map(() => new Array(axis.length).fill(undefined));
  let place = 0;
  axis.forEach((step, i) => {
    if (steps[place] !== step) return;
    columns.forEach((column, c) => (spreadOut[c][i] = column[place]));
    place += 1;
  });
  return spreadOut;
}

// The page that compares jobs: one curve of each on an axis of steps, tokens, training time or FLOPs.

import { placeText, tickText } from "./axis.js";
import { Board } from "./board.js";
import { Curve, curvesOf } from "./curve.js";
import { closest, find, findAll } from "./dom.js";

const NUM_COLORS = 10;
const MAX_POINTS = 600; // of a curve
const FEW_POINTS = 60; // which are drawn each

/** @import { Axis } from "./axis.js" */
/** @typedef {{ id: string, tokens_per_step: number, flops_per_step: number, series: string[] }} Run */
/** @typedef {{ steps: number[], places: number[] }} Places of a curve's points: their steps and where these are drawn */

/** @param {HTMLElement} root */
export function start(root) {
  new Comparison(root).load();
}

class Comparison extends Board {
  /** @type {Map<string, Curve>} by the ID of the job: as fetched, by steps */
  #fetched = new Map();
  /** @type {Map<string, (number | null)[]>} seconds of training at the points of a fetched curve */
  #seconds = new Map();
  /** @type {Map<string, Places>} */
  #places = new Map();
  /** @type {Set<string>} the jobs whose curves are left out */
  #hidden = new Set();

  /** @param {HTMLElement} root */
  constructor(root) {
    super(root, JSON.parse(root.dataset.words ?? "{}"), (from, to) => this.#window(from, to));
    this.isPending = true;
    this.runs = /** @type {Run[]} */ (JSON.parse(root.dataset.runs ?? "[]"));
    root.addEventListener("change", (event) => {
      if (closest(event, "[data-curve]")) this.load();
      if (closest(event, "[data-axis]")) this.#place();
      if (closest(event, "[data-run]")) this.#show();
    });
  }

  /** @returns {Axis} */
  get axis() {
    return /** @type {Axis} */ (find(this.root, "[data-axis]", HTMLSelectElement).value);
  }

  get series() {
    return find(this.root, "[data-curve]", HTMLSelectElement).value;
  }

  /** Fetch the chosen curve of every job. */
  async load() {
    const { series } = this;
    const status = find(this.root, "[data-status]");
    status.textContent = status.dataset.loading ?? "";
    const runs = this.runs.filter((run) => run.series.includes(series));
    const curves = await Promise.all(runs.map((run) => fetchCurve(run.id, series, "")));
    if (series !== this.series) return; // another one was chosen meanwhile
    status.textContent = (curves.includes(null) && status.dataset.failed) || "";
    this.isPending = false;
    this.#fetched.clear();
    runs.forEach((run, i) => {
      const fetched = curves[i];
      if (!fetched) return;
      this.#fetched.set(run.id, fetched.curve);
      this.#seconds.set(run.id, fetched.seconds);
    });
    this.#place();
    this.rebuild();
  }

  /**
   * @param {string} _chart
   * @param {number} i
   * @override
   */
  colorOf(_chart, i) {
    return (i % NUM_COLORS) + 1;
  }

  /**
   * The name of a series ends with its unit, such as memory_bytes.
   * @param {HTMLElement} _chart
   * @override
   */
  unitName(_chart) {
    return this.series.split("_").at(-1);
  }

  /**
   * @param {string} name
   * @override
   */
  isSparse(name) {
    return (this.curves?.get(name)?.steps.length ?? 0) <= FEW_POINTS;
  }

  /**
   * @param {number} value
   * @override
   */
  tickText(value) {
    return tickText(this.axis, value);
  }

  /**
   * @param {number} value
   * @override
   */
  placeText(value) {
    return placeText(this.words, this.axis, value);
  }

  // Put the points where the axis has them.
  #place() {
    this.range = this.detail = null;
    this.curves = new Map();
    this.#places.clear();
    for (const run of this.runs) {
      const fetched = this.#fetched.get(run.id);
      if (!fetched) continue;
      const { curve, places } = placed(fetched, this.#seconds.get(run.id) ?? [], run, this.axis);
      this.curves.set(run.id, curve);
      this.#places.set(run.id, places);
    }
    for (const chart of this.charts) chart.setZoomed(false);
    this.#show();
  }

  // Leave out the curves of jobs that are not checked.
  #show() {
    this.#hidden = new Set(
      findAll(this.root, "[data-run]").flatMap((box) => (box instanceof HTMLInputElement && !box.checked ? box.value : [])),
    );
    this.draw();
  }

  /**
   * @param {string} name
   * @override
   */
  shown(name) {
    return this.#hidden.has(name) ? undefined : super.shown(name);
  }

  /**
   * The curves between two places of the axis, finer.
   * @param {number} from
   * @param {number} to
   */
  async #window(from, to) {
    const { axis, series } = this;
    const parts = await Promise.all(
      [...this.#places].map(async ([id, { steps, places }]) => {
        const inside = steps.filter((_step, i) => places[i] >= from && places[i] <= to);
        const run = this.runs.find((candidate) => candidate.id === id);
        if (!inside.length || !run) return null;
        const fetched = await fetchCurve(id, series, `&start=${inside[0]}&end=${inside[inside.length - 1]}`);
        return fetched && /** @type {[string, Curve]} */ ([id, placed(fetched.curve, fetched.seconds, run, axis).curve]);
      }),
    );
    return new Map(parts.filter((part) => part !== null));
  }
}

/**
 * A curve of a job by steps, with the seconds of training at each; null if the server did not answer.
 * @param {string} id
 * @param {string} series
 * @param {string} window more of the query
 */
async function fetchCurve(id, series, window) {
  const address = `/api/v1/jobs/${id}/metrics?series=${series}&points=${MAX_POINTS}&seconds=true${window}`;
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) return null;
  const stored = (await answer.json()).series;
  const curve = curvesOf(stored).get(series) ?? new Curve();
  return { curve, seconds: /** @type {(number | null)[]} */ (stored[series]?.seconds ?? []) };
}

/**
 * A curve whose points are where an axis has them. Points whose time is not known are left out on the axis of time.
 * @param {Curve} fetched
 * @param {(number | null)[]} seconds
 * @param {Run} run
 * @param {Axis} axis
 */
function placed(fetched, seconds, run, axis) {
  const factor = { step: 1, tokens: run.tokens_per_step, seconds: 0, flops: run.flops_per_step }[axis];
  const all = fetched.steps.map((step, i) => (axis === "seconds" ? (seconds[i] ?? null) : step * factor));
  const kept = all.flatMap((place, i) => (place === null || (i > 0 && place === all[i - 1]) ? [] : [i]));
  const curve = new Curve();
  curve.steps = kept.map((i) => Number(all[i]));
  curve.values = kept.map((i) => fetched.values[i]);
  curve.low = kept.map((i) => fetched.low[i]);
  curve.high = kept.map((i) => fetched.high[i]);
  curve.stride = fetched.stride;
  curve.odd = new Map(
    kept.flatMap((i) => {
      const value = fetched.odd.get(fetched.steps[i]);
      return value === undefined ? [] : [[Number(all[i]), value]];
    }),
  );
  return { curve, places: { steps: kept.map((i) => fetched.steps[i]), places: curve.steps } };
}

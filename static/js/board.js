// Charts that have one horizontal axis: zooming one zooms all, from finer data where there is any. Those of a job show
// its steps.

import { placeText, tickText } from "./axis.js";
import { Chart } from "./chart.js";
import { colorsOf } from "./chart-options.js";
import { findAll } from "./dom.js";

/** @typedef {Map<string, import("./curve.js").Curve>} Curves by the name of the series */

export class Board {
  /** @type {Curves} */
  curves = new Map();
  /** @type {Curves | null} the same for the steps that are zoomed in on */
  detail = null;
  /** @type {[number, number] | null} the steps that are zoomed in on */
  range = null;
  /** @type {import("./forecast.js").Forecast | null} where the loss will probably go */
  forecast = null;
  /** @type {[string, number][]} names and values that the loss is compared with */
  baselines = [];
  /** @type {Map<number, string>} step -> ID */
  checkpoints = new Map();
  /** @type {Set<number>} steps after which training resumed */
  resumes = new Set();
  /** @type {{ step: number, kind: string, text: string }[]} pauses and recoveries */
  events = [];
  /** Whether values are on their way: no chart says that it has none before. */
  isPending = false;
  #isDrawing = false;

  /**
   * @param {HTMLElement} root
   * @param {Record<string, string>} words
   * @param {(start: number, end: number) => Promise<Curves | null>} fetchWindow the curves between two steps, finer
   */
  constructor(root, words, fetchWindow) {
    this.root = root;
    this.words = words;
    this.fetchWindow = fetchWindow;
    this.charts = findAll(root, "[data-chart]").map((element) => new Chart(element, this));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  /**
   * What a chart draws of a series, if it has points.
   * @param {string} name
   */
  shown(name) {
    return (this.detail ?? this.curves).get(name);
  }

  /**
   * The number of a curve's color (--series-1 and so on).
   * @param {string} chart
   * @param {number} i the curve's place in the chart
   */
  colorOf(chart, i) {
    return colorsOf(chart)[i];
  }

  /**
   * In what the values of a chart are.
   * @param {HTMLElement} chart
   */
  unitName(chart) {
    return chart.dataset.unit;
  }

  /**
   * Whether a curve has few points, which are drawn each.
   * @param {string} name
   */
  isSparse(name) {
    return name.startsWith("eval_");
  }

  /**
   * What stands below a tick of the horizontal axis.
   * @param {number} value
   */
  tickText(value) {
    return tickText("step", value);
  }

  /**
   * How a place on the horizontal axis is called.
   * @param {number} value
   */
  placeText(value) {
    return placeText(this.words, "step", value);
  }

  /**
   * How the horizontal axis is scaled and where its ticks are, where not as uPlot does it.
   * @returns {{ scale: Partial<import("../vendor/uplot/uPlot.esm.js").Scale>, axis: Partial<import("../vendor/uplot/uPlot.esm.js").Axis> }}
   */
  get horizontal() {
    return { scale: {}, axis: {} };
  }

  // Draw once before the next frame, however much has arrived. A hidden tab has no frames and draws nothing.
  draw() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      for (const chart of this.charts) chart.draw();
    });
  }

  /** @param {[number, number] | null} range the first and the last step, or null for the whole run */
  async zoom(range) {
    this.range = range;
    this.detail = null;
    this.draw();
    for (const chart of this.charts) chart.setZoomed(range !== null);
    const isCoarse = [...this.curves.values()].some((curve) => curve.stride > 1);
    if (!range || !isCoarse) return;
    const detail = await this.fetchWindow(Math.max(0, Math.floor(range[0])), Math.ceil(range[1]));
    if (detail && this.range === range) {
      this.detail = detail;
      this.draw();
    }
  }

  /** Build the charts anew, such as in the colors of another theme. */
  rebuild() {
    for (const chart of this.charts) chart.build();
  }
}

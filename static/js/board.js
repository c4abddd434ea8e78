// The charts of one job, which show the same steps: zooming one zooms all, from finer data where there is any.

import { Chart } from "./chart.js";
import { findAll } from "./dom.js";

/** @typedef {Map<string, import("./curve.js").Curve>} Curves by the name of the series */

export class Board {
  /** @type {Curves} */
  curves = new Map();
  /** @type {Curves | null} the same for the steps that are zoomed in on */
  detail = null;
  /** @type {[number, number] | null} the steps that are zoomed in on */
  range = null;
  /** @type {Map<number, string>} step -> ID */
  checkpoints = new Map();
  /** @type {Set<number>} steps after which training resumed */
  resumes = new Set();
  #isDrawing = false;

  /**
   * @param {HTMLElement} root
   * @param {Record<string, string>} words
   * @param {(start: number, end: number) => Promise<Curves | null>} fetchWindow the curves between two steps, finer
   */
  constructor(root, words, fetchWindow) {
    this.words = words;
    this.fetchWindow = fetchWindow;
    this.charts = findAll(root, "[data-chart]").map((element) => new Chart(element, this));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#rebuild());
  }

  /**
   * What a chart draws of a series, if it has points.
   * @param {string} name
   */
  shown(name) {
    return (this.detail ?? this.curves).get(name);
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

  #rebuild() {
    for (const chart of this.charts) chart.build();
  }
}

// The curve in the form of a new job: the expected loss by training time. Clicking a point or moving along it with the
// keys chooses a time.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { COLUMNS_PER_CURVE, chartOptions, unitOf } from "./chart-options.js";
import { find } from "./dom.js";
import { compact, fill, measure, span } from "./format.js";

/**
 * @typedef {object} Point what is proposed for a training time
 * @property {number} budget_seconds
 * @property {number} seconds that are planned
 * @property {number} num_parameters
 * @property {number} num_tokens
 * @property {number} bits_per_byte
 * @property {string} limit
 */

const COLORS = [1, 2]; // of the curve and of the chosen point
const TICKS = [60, 600, 3600, 21600, 86400, 604800]; // seconds
const FEW_TICKS = [60, 3600, 604800];
const NARROW = 480; // CSS pixels, below which only those have room
const MOVES = /** @type {Record<string, number>} points that a key moves by */ ({
  ArrowLeft: -1,
  ArrowDown: -1,
  ArrowRight: 1,
  ArrowUp: 1,
  PageDown: -4,
  PageUp: 4,
  Home: -Infinity,
  End: Infinity,
});

export class ProposalCurve {
  /** @type {Point[]} */
  #points = [];
  #corpora = "";
  /** @type {uPlot | null} */
  #chart = null;
  /** @type {HTMLElement | null} the element that it is drawn into; another one after the form had none */
  #root = null;

  /**
   * @param {HTMLFormElement} form
   * @param {() => void} propose called when another time was chosen
   */
  constructor(form, propose) {
    this.form = form;
    this.propose = propose;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build());
  }

  /** Follow the form: fetch the curve of other corpora, and mark the time that is chosen. */
  async update() {
    const root = this.form.querySelector("[data-curve]");
    const corpora = new FormData(this.form).getAll("corpora").map(String);
    if (!(root instanceof HTMLElement)) return;
    const isSame = root === this.#root && corpora.join() === this.#corpora;
    if (root !== this.#root) this.#listen(root);
    this.#root = root;
    this.#corpora = corpora.join();
    if (isSame) this.#draw();
    else if (corpora.length) await this.#fetch(corpora);
    else this.#show([], root.dataset.none ?? "");
  }

  /** @param {string[]} corpora */
  async #fetch(corpora) {
    const { loading = "", away = "" } = this.#root?.dataset ?? {};
    this.#show([], loading);
    const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ corpora }) };
    const answer = await fetch("/api/v1/jobs/propose-curve", request).catch(() => null);
    const body = await answer?.json().catch(() => null);
    if (this.#corpora !== corpora.join()) return;
    if (answer?.ok && body) this.#show(body.points, body.reason);
    else this.#show([], body?.title ?? away);
  }

  /**
   * @param {Point[]} points
   * @param {string} note
   */
  #show(points, note) {
    if (!this.#root) return;
    this.#points = points;
    find(this.#root, "[data-note-of-curve]").textContent = note;
    find(this.#root, "[data-values]").hidden = !points.length;
    find(this.#root, "[data-plot]").hidden = !points.length;
    this.#fillTable(this.#root);
    this.#build();
  }

  /** @param {HTMLElement} root */
  #fillTable(root) {
    const body = find(root, "tbody", HTMLTableSectionElement);
    body.replaceChildren();
    for (const point of this.#points) {
      const row = body.insertRow();
      const { time, bits, parameters, tokens, planned } = texts(point);
      for (const text of [time, bits, parameters, tokens, planned]) row.insertCell().textContent = text;
    }
  }

  /** Build it anew, in the colors of the theme. */
  #build() {
    this.#chart?.destroy();
    this.#chart = null;
    if (!this.#root) return;
    if (this.#points.length) {
      const plot = find(this.#root, "[data-plot]");
      const empty = Array.from({ length: 1 + COLORS.length * COLUMNS_PER_CURVE }, () => []);
      this.#chart = new uPlot(this.#options(plot), /** @type {uPlot.AlignedData} */ (/** @type {unknown} */ (empty)), plot);
    }
    this.#draw();
  }

  /** @param {HTMLElement} plot */
  #options(plot) {
    const options = chartOptions({
      plot,
      colors: COLORS,
      isSparse: COLORS.map(() => true),
      isSmooth: false,
      isLog: false,
      range: () => null,
      unit: unitOf(undefined),
      level: null,
      hasForecast: false,
      tickText: span,
    });
    options.scales = { ...options.scales, x: { time: false, distr: 3, range: (_u, min, max) => [min / 1.2, max * 1.2] } };
    const [across, up] = options.axes ?? [];
    const splits = (/** @type {uPlot} */ u) => (u.width < NARROW ? FEW_TICKS : TICKS);
    options.axes = [{ ...across, splits, filter: (_u, ticks) => ticks }, up];
    options.cursor = { y: false, points: { size: 7 }, drag: { x: false, y: false } };
    options.hooks = { setCursor: [({ cursor }) => this.#read(cursor.idx ?? this.#chosen)] };
    options.series[1 + COLUMNS_PER_CURVE].points = { show: true, size: 11 };
    return options;
  }

  #draw() {
    if (this.#chart) {
      const chosen = this.#chosen;
      const gaps = this.#points.map(() => null);
      const losses = this.#points.map((point) => point.bits_per_byte);
      const mark = losses.map((loss, i) => (i === chosen ? loss : null));
      const columns = [losses, mark].flatMap((column) => [column, gaps, gaps, gaps]);
      this.#chart.setData(/** @type {uPlot.AlignedData} */ ([this.#points.map((point) => point.budget_seconds), ...columns]));
    }
    this.#read(this.#chosen);
  }

  get #select() {
    return find(this.form, "[name=proposal_seconds]", HTMLSelectElement);
  }

  /** The place of the chosen time among the points. */
  get #chosen() {
    return this.#points.findIndex((point) => String(point.budget_seconds) === this.#select.value);
  }

  /**
   * Say what a point means; the slider says it of the chosen one.
   * @param {number} place
   */
  #read(place) {
    if (!this.#root) return;
    const readout = find(this.#root, "[data-readout]");
    const plot = find(this.#root, "[data-plot]");
    readout.textContent = this.#sentence(this.#points[place]);
    plot.setAttribute("aria-valuemax", String(Math.max(0, this.#points.length - 1)));
    plot.setAttribute("aria-valuenow", String(Math.max(0, this.#chosen)));
    plot.setAttribute("aria-valuetext", this.#sentence(this.#points[this.#chosen]));
  }

  /** @param {Point | undefined} point */
  #sentence(point) {
    if (!point || !this.#root) return "";
    const { point: words = "", byText = "", byMemory = "" } = this.#root.dataset;
    const ends = /** @type {Record<string, string>} */ ({ text: byText, memory: byMemory });
    const values = texts(point);
    return [fill(words, values), fill(ends[point.limit] ?? "", values)].join(" ").trim();
  }

  /** @param {HTMLElement} root */
  #listen(root) {
    const plot = find(root, "[data-plot]");
    plot.addEventListener("click", () => this.#choose(this.#chart?.cursor.idx ?? this.#chosen));
    plot.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (move === undefined) return;
      event.preventDefault();
      this.#choose(Math.min(this.#points.length - 1, Math.max(0, this.#chosen + move)));
    });
    new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = plot;
      if (width && height && width !== this.#chart?.width) this.#chart?.setSize({ width, height });
    }).observe(plot);
  }

  /** @param {number} place */
  #choose(place) {
    const point = this.#points[place];
    if (!point) return;
    this.#select.value = String(point.budget_seconds);
    this.#draw();
    this.propose();
  }
}

/** @param {Point} point */
function texts(point) {
  return {
    time: span(point.budget_seconds),
    bits: measure(Number(point.bits_per_byte.toPrecision(3))),
    parameters: compact(point.num_parameters),
    tokens: compact(point.num_tokens),
    planned: span(point.seconds),
  };
}

// One chart of a board: curves drawn with uPlot, a read-out of the values at the cursor, a table of them, tools, keys.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { drawEvents, drawLevel, drawMarks } from "./chart-marks.js";
import { COLUMNS_PER_CURVE, chartOptions, FORECAST_COLUMNS, unitOf } from "./chart-options.js";
import { align, Curve } from "./curve.js";
import { closest, find } from "./dom.js";
import { expected, placeOf } from "./forecast.js";
import { fill, number } from "./format.js";

const SMOOTHED_SHARE = 0.02; // of the points of a curve, that one smoothed value looks back on
const MIN_SMOOTHED = 4; // points, at least
const OUTLIER_SHARE = 0.05; // of the values, on each side, that the axis need not show
const MAX_TABLE_ROWS = 100;
const MAX_LABELED = 4; // curves whose values stand beside their names
const MIN_DRAG = 4; // CSS pixels; less is a click
const MOVES = /** @type {Record<string, number>} points that a key moves the cursor by */ ({
  ArrowLeft: -1,
  ArrowRight: 1,
  PageDown: -25,
  PageUp: 25,
  Home: -Infinity,
  End: Infinity,
});

export class Chart {
  #isSmooth = false;
  #isLog = false;
  #isForecast = true;
  #hidesOutliers = false;

  /**
   * @param {HTMLElement} element
   * @param {import("./board.js").Board} board
   */
  constructor(element, board) {
    this.element = element;
    this.board = board;
    this.isBig = element.classList.contains("big");
    this.names = (element.dataset.series ?? "").split(" ");
    this.level = element.dataset.level ? Number(element.dataset.level) : null; // such as what was planned
    this.colors = this.names.map((_name, i) => board.colorOf(element.dataset.chart ?? "", i));
    this.plot = find(element, "[data-plot]");
    this.readout = find(element, "[data-readout]");
    this.hasDrawn = false;
    this.u = this.#create();
    element.addEventListener("click", (event) => this.#useTool(closest(event, "[data-tool]")));
    element.querySelector("[data-table]")?.addEventListener("toggle", () => this.#fillTable());
    this.plot.addEventListener("keydown", (event) => this.#moveBy(event));
    this.plot.addEventListener("click", (event) => {
      const left = event.clientX - this.u.over.getBoundingClientRect().left; // the cursor may not be there yet
      this.#linkToBatch(this.u.posToIdx(left));
    });
    new ResizeObserver(() => this.#fit()).observe(this.plot);
  }

  /** Build it anew, in the colors of the theme and with the scale and lines that its tools say. */
  build() {
    this.u.destroy();
    this.u = this.#create();
    this.draw();
  }

  draw() {
    if (this.element.hasAttribute("data-optional")) this.element.hidden = !this.#curves.length;
    this.hasDrawn ||= this.#curves.length > 0; // later on it is only empty while other values are loaded
    this.element.toggleAttribute("data-empty", !this.hasDrawn && !this.board.isPending);
    if (!this.#curves.length) return;
    const curves = this.names.map((name) => this.board.shown(name) ?? new Curve());
    /**
     * @param {{ steps: number[] }} curve
     * @param {number} i
     */
    const columnsOf = (curve, i) =>
      curve instanceof Curve ? this.#columns(curve, this.board.isSparse(this.names[i])) : this.#forecastColumns();
    const drawn = this.hasForecast ? [...curves, { steps: this.#forecast?.steps ?? [] }] : curves;
    this.u.setData(/** @type {uPlot.AlignedData} */ (align(drawn, columnsOf)));
    this.#read();
    this.#fillTable();
  }

  /** @param {boolean} isZoomed */
  setZoomed(isZoomed) {
    const reset = this.element.querySelector("[data-tool=reset]");
    if (reset instanceof HTMLElement) reset.hidden = !isZoomed;
  }

  get hasForecast() {
    return this.element.hasAttribute("data-forecast");
  }

  get #forecast() {
    return this.hasForecast && this.#isForecast ? this.board.forecast : null;
  }

  get unit() {
    return unitOf(this.board.unitName(this.element));
  }

  /** The curves that have points. */
  get #curves() {
    return this.names.flatMap((name) => this.board.shown(name) ?? []);
  }

  #create() {
    const { plot, colors, board } = this;
    const options = chartOptions({
      plot,
      colors,
      isSparse: this.names.map((name) => board.isSparse(name)),
      isSmooth: this.#isSmooth,
      isLog: this.#isLog,
      range: () => board.range,
      unit: this.unit,
      level: this.level,
      hasForecast: this.hasForecast,
      tickText: (value) => board.tickText(value),
      horizontal: board.horizontal,
      limits: () => (this.#hidesOutliers ? this.#middle() : null),
    });
    const zoomOut = () => {
      board.zoom(null);
      return null;
    };
    options.cursor = { ...options.cursor, bind: { dblclick: () => zoomOut } };
    options.hooks = {
      setCursor: [() => this.#read()],
      setSelect: [(u) => this.#zoomToSelection(u)],
      draw: [(u) => this.#mark(u)],
    };
    const numColumns = COLUMNS_PER_CURVE * this.names.length + (this.hasForecast ? FORECAST_COLUMNS : 0);
    const empty = Array.from({ length: 1 + numColumns }, () => []);
    return new uPlot(options, /** @type {uPlot.AlignedData} */ (/** @type {unknown} */ (empty)), plot);
  }

  /**
   * The COLUMNS_PER_CURVE columns of a curve. Only one with many points is smoothed, and only one that was thinned out
   * has a band.
   * @param {Curve} curve
   * @param {boolean} isSparse
   */
  #columns(curve, isSparse) {
    const gaps = curve.values.map(() => null);
    const numSmoothed = Math.max(MIN_SMOOTHED, curve.steps.length * SMOOTHED_SHARE);
    const smoothed = this.#isSmooth && !isSparse ? curve.smoothed(1 - 1 / numSmoothed) : gaps;
    const band = curve.stride > 1 ? [curve.low, curve.high] : [gaps, gaps];
    return this.#drawable([curve.values, smoothed, ...band]);
  }

  #forecastColumns() {
    const { values, low, high } = this.#forecast ?? { values: [], low: [], high: [] };
    return this.#drawable([values, low, high]);
  }

  /**
   * Columns without what the scale has no place for.
   * @param {(number | null)[][]} columns
   */
  #drawable(columns) {
    return this.#isLog ? columns.map((column) => column.map((v) => (v !== null && v > 0 ? v : null))) : columns;
  }

  /**
   * The range of the values in view without the least and the greatest ones; null if there are few.
   * @returns {[number, number] | null}
   */
  #middle() {
    const [from, to] = this.board.range ?? [-Infinity, Infinity];
    const values = this.#curves.flatMap(({ steps, values }) => values.filter((_value, i) => steps[i] >= from && steps[i] <= to));
    const sorted = this.#drawable([values])[0].filter((value) => value !== null);
    sorted.sort((a, b) => a - b);
    const cut = Math.floor(OUTLIER_SHARE * sorted.length);
    return cut ? [sorted[cut], sorted[sorted.length - 1 - cut]] : null;
  }

  /** @param {uPlot} u */
  #zoomToSelection(u) {
    const { left, width } = u.select;
    if (width < MIN_DRAG) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.board.zoom([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
  }

  /** @param {uPlot} u */
  #mark(u) {
    const { resumes, checkpoints, events } = this.board;
    const odd = this.#curves.flatMap((curve) => [...curve.odd.keys()]);
    drawMarks(u, { odd, resumes, checkpoints: this.isBig ? checkpoints.keys() : [] });
    if (this.isBig) drawEvents(u, events);
    if (this.level !== null) drawLevel(u, this.level);
    if (this.hasForecast) for (const [name, value] of this.board.baselines) drawLevel(u, value, name);
  }

  // The values at the cursor, or the latest ones.
  #read() {
    if (!this.#curves.length) return;
    const { idx } = this.u.cursor;
    const step = idx == null ? null : this.u.data[0][idx];
    const { words } = this.board;
    /** @param {string} word */
    const about = (word) => span(fill(words[word], { step: number(step) }), "muted");
    const parts = step == null ? [] : [span(this.board.placeText(step), "muted")];
    const place = step != null && this.#isAhead(step) && this.#forecast ? placeOf(this.#forecast, step) : -1;
    if (this.#forecast && place >= 0) {
      parts.push(span(fill(words.forecast, expected(this.#forecast, place)), "key level"));
      this.readout.replaceChildren(...parts);
      return;
    }
    this.names.forEach((name, i) => {
      const curve = this.board.shown(name);
      if (!curve) return;
      const value = step == null ? curve.latest : curve.at(step);
      const word = words[`series.${name}`];
      const label = this.names.length > 1 && this.names.length <= MAX_LABELED ? `${word} ` : "";
      const part = span(label + this.unit.text(value), typeof value === "string" ? "key odd" : "key");
      part.dataset.color = String(this.colors[i]);
      part.title = word;
      parts.push(part);
    });
    if (this.level !== null) parts.push(span(fill(words.planned, { value: this.unit.text(this.level) }), "key level"));
    if (step != null && this.isBig && this.board.checkpoints.has(step)) parts.push(about("checkpoint"));
    if (step != null && this.board.resumes.has(step)) parts.push(about("resumed"));
    if (step != null && this.isBig) parts.push(...this.#eventsAt(Number(idx)).map((text) => span(text, "muted event")));
    this.readout.replaceChildren(...parts);
  }

  /**
   * What happened at the step that is drawn nearest to it.
   * @param {number} idx
   */
  #eventsAt(idx) {
    return this.board.events.filter(({ step }) => this.u.valToIdx(step) === idx).map(({ text }) => text);
  }

  // The link below the chart leads to the samples of the step that was clicked, or that a key moved to.
  /** @param {number} idx of the step among those drawn */
  #linkToBatch(idx) {
    const link = this.element.querySelector("a[data-batches]");
    const step = this.u.data[0][idx];
    if (!(link instanceof HTMLAnchorElement) || !step || this.#isAhead(step)) return;
    link.search = `?step=${step}`;
    find(link, "span").textContent = fill(link.dataset.words ?? "", { step: number(step) });
  }

  /**
   * Whether no curve has come to a step yet.
   * @param {number} step
   */
  #isAhead(step) {
    return this.#curves.every((curve) => (curve.steps.at(-1) ?? 0) < step);
  }

  #fillTable() {
    const body = this.element.querySelector("[data-table][open] tbody");
    if (!(body instanceof HTMLTableSectionElement)) return;
    const steps = [...new Set(this.#curves.flatMap((curve) => thinned(curve.steps)))].sort((a, b) => a - b);
    body.replaceChildren();
    for (const step of steps) {
      const row = body.insertRow();
      const values = this.names.map((name) => this.unit.text(this.board.curves.get(name)?.exactly(step)));
      for (const value of [number(step), ...values]) {
        const cell = row.insertCell();
        cell.className = "number";
        cell.textContent = value;
      }
    }
  }

  /** @param {HTMLElement | null} button */
  #useTool(button) {
    const tool = button?.dataset.tool;
    if (tool === "reset") this.board.zoom(null);
    if (tool === "smooth") this.#isSmooth = !this.#isSmooth;
    if (tool === "log") this.#isLog = !this.#isLog;
    if (tool === "forecast") this.#isForecast = !this.#isForecast;
    if (tool === "outliers") this.#hidesOutliers = !this.#hidesOutliers;
    const pressed = { smooth: this.#isSmooth, log: this.#isLog, forecast: this.#isForecast, outliers: this.#hidesOutliers };
    if (tool !== "smooth" && tool !== "log" && tool !== "forecast" && tool !== "outliers") return;
    button?.setAttribute("aria-pressed", String(pressed[tool]));
    this.build();
  }

  /** @param {KeyboardEvent} event */
  #moveBy(event) {
    const move = MOVES[event.key];
    const steps = this.u.data[0];
    if (event.key === "Escape") this.board.zoom(null);
    if (move === undefined || !steps.length) return;
    event.preventDefault();
    const last = steps.length - 1;
    const start = this.u.cursor.idx ?? steps.findLastIndex((step) => !this.#isAhead(step));
    const idx = Math.min(last, Math.max(0, start + move));
    // uPlot's types lack the last one: whether the other charts follow.
    /** @type {(position: { left: number, top: number }, fireHook: boolean, publish: boolean) => void} */
    const setCursor = this.u.setCursor;
    setCursor({ left: this.u.valToPos(steps[idx], "x"), top: 10 }, true, true);
    this.#linkToBatch(idx);
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (width && height && (width !== this.u.width || height !== this.u.height)) this.u.setSize({ width, height });
  }
}

/**
 * At most MAX_TABLE_ROWS or so of the steps, the last one among them.
 * @param {number[]} steps
 */
function thinned(steps) {
  const every = Math.ceil(steps.length / MAX_TABLE_ROWS);
  return steps.filter((_step, i) => i % every === 0 || i === steps.length - 1);
}

/**
 * @param {string} content
 * @param {string} className
 */
function span(content, className) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = content;
  return element;
}

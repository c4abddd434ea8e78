// @ts-nocheck
// Draws curves with uPlot: colors of the theme, read-out, band, marks, keys. Zoom and cursor are shared by a Board.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { align } from "./curve.js";
import { compact, fill, measure, number } from "./format.js";

const SMOOTHED_SHARE = 0.02; // of the places of a curve, that one smoothed value looks back on
const COLORS = { loss: [1, 2], bits: [1, 2], rewards: [1, 2], accuracy: [1, 2], rate: [3], norm: [4], speed: [5] };
const cursors = uPlot.sync("job");

// The colors of the theme in use, as the canvas needs them.
function ink(name) {
  const probe = document.createElement("i");
  probe.hidden = true;
  probe.className = "probe";
  document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

function faint(color, share) {
  return `color-mix(in srgb, ${color} ${share}%, transparent)`;
}

// The charts of one job, which show the same steps: zooming one zooms all, from finer data where there is any.
export class Board {
  /** @type {Map<string, import("./curve.js").Curve>} by the name of the series */
  curves = new Map();
  /** @type {Map<string, import("./curve.js").Curve> | null} the same for the steps that are zoomed in on */
  detail = null;
  /** @type {[number, number] | null} the steps that are zoomed in on */
  range = null;
  /** @type {Map<number, string>} step -> ID */
  checkpoints = new Map();
  /** @type {Set<number>} steps after which training resumed */
  resumes = new Set();

  /**
   * @param {HTMLElement} root
   * @param {Record<string, string>} words
   * @param {(start: number, end: number) => Promise<Map<string, import("./curve.js").Curve> | null>} fetchWindow
   */
  constructor(root, words, fetchWindow) {
    this.words = words;
    this.fetchWindow = fetchWindow;
    this.charts = [...root.querySelectorAll("[data-chart]")].map((element) => new Chart(element, this));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    this.asked = false;
  }

  rebuild() {
    for (const chart of this.charts) chart.build();
  }

  // Draw once before the next frame, however much has arrived. A hidden tab has no frames and draws nothing.
  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      for (const chart of this.charts) chart.draw();
    });
  }

  async zoom(range) {
    this.range = range;
    this.detail = null;
    this.draw();
    for (const chart of this.charts) chart.zoomed(range !== null);
    const coarse = [...this.curves.values()].some((curve) => curve.stride > 1);
    if (!range || !coarse) return;
    const detail = await this.fetchWindow(Math.max(0, Math.floor(range[0])), Math.ceil(range[1]));
    if (detail && this.range === range) {
      this.detail = detail;
      this.draw();
    }
  }
}

class Chart {
  constructor(element, board) {
    this.element = element;
    this.board = board;
    this.names = element.dataset.series.split(" ");
    this.colors = COLORS[element.dataset.chart];
    this.plot = element.querySelector("[data-plot]");
    this.readout = element.querySelector("[data-readout]");
    this.smooth = false;
    this.log = false;
    this.build();
    this.#tools();
    new ResizeObserver(() => this.#fit()).observe(this.plot);
  }

  get curves() {
    const { curves, detail } = this.board;
    return this.names.map((name) => (detail ?? curves).get(name)).filter(Boolean);
  }

  build() {
    this.u?.destroy();
    this.u = new uPlot(this.#options(), [[], ...this.names.flatMap(() => [[], [], [], []])], this.plot);
    cursors.sub(this.u);
    this.draw();
  }

  draw() {
    const { curves } = this;
    if (curves.length < this.names.length && !curves.length) return;
    const curvesOrEmpty = this.names.map((name) => (this.board.detail ?? this.board.curves).get(name) ?? EMPTY);
    const positive = (column) => (this.log ? column.map((v) => (v > 0 ? v : v === undefined ? v : null)) : column);
    const data = align(curvesOrEmpty, (curve, i) => {
      const smoothed = this.smooth && i === 0 ? curve.smoothed(1 - 1 / Math.max(4, curve.steps.length * SMOOTHED_SHARE)) : curve.values.map(() => null);
      const band = curve.stride > 1 ? [curve.low, curve.high] : [smoothed.map(() => null), smoothed.map(() => null)];
      return [curve.values, smoothed, ...band].map(positive);
    });
    this.u.setData(data);
    this.#read();
    this.#describe();
  }

  zoomed(yes) {
    const reset = this.element.querySelector("[data-tool=reset]");
    if (reset) reset.hidden = !yes;
  }

  #options() {
    const muted = ink("ink-muted");
    const line = ink("line");
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
    const colors = this.colors.map((n) => ink(`series-${n}`));
    return {
      width: Math.max(60, this.plot.clientWidth),
      height: Math.max(60, this.plot.clientHeight),
      legend: { show: false },
      padding: [8, 22, 0, 0],
      scales: {
        x: { time: false, range: (_u, min, max) => this.board.range ?? (min === max ? [min ?? 0, (max ?? 0) + 1] : [min, max]) },
        y: this.log
          ? { distr: 3, range: (_u, min, max) => (min == null ? [0.1, 10] : logRange(min, max)) }
          : { range: (_u, min, max) => (min == null ? [0, 1] : uPlot.rangeNum(min, max, 0.08, false)) },
      },
      axes: [
        { ...axis, size: 28, gap: 4, space: 60, values: (_u, steps) => steps.map((step) => (step % 1 ? "" : number(step))) },
        { ...axis, size: 52, gap: 4, space: 34, values: (_u, ticks) => ticks.map(tick) },
      ],
      series: [{}, ...this.names.flatMap((_name, i) => this.#series(colors[i], i))],
      bands: this.names.map((_name, i) => ({ series: [4 * i + 4, 4 * i + 3], fill: faint(colors[i], 16) })),
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: true, y: false, setScale: false },
        sync: { key: cursors.key, scales: ["x", null] },
        bind: { dblclick: () => () => this.board.zoom(null) },
      },
      hooks: {
        setCursor: [() => this.#read()],
        setSelect: [(u) => this.#select(u)],
        draw: [(u) => this.#marks(u)],
      },
    };
  }

  // For each curve: itself, its smoothed course, and the edges of its band.
  #series(color, i) {
    const sparse = i > 0;
    const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
    return [
      {
        stroke: this.smooth && !sparse ? faint(color, 30) : color,
        width: sparse ? 2 : 1.5,
        spanGaps: sparse,
        points: sparse ? { show: true, size: 5, fill: color, stroke: color } : { size: 4, fill: color },
      },
      { stroke: color, width: 2, points: { show: false } },
      edge,
      edge,
    ];
  }

  #select(u) {
    if (u.select.width < 4) return;
    const range = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.board.zoom(range);
  }

  // Values that are no finite number, as crosses at the top; where attempts went on, as thin upright lines;
  // checkpoints, as ticks at the bottom of the large chart.
  #marks(u) {
    const { ctx, bbox } = u;
    const dot = devicePixelRatio;
    const inside = (step) => step >= u.scales.x.min && step <= u.scales.x.max;
    ctx.save();
    ctx.lineWidth = 1.5 * dot;
    ctx.strokeStyle = ink("bad");
    for (const curve of this.curves) {
      for (const step of curve.odd.keys()) if (inside(step)) cross(ctx, u.valToPos(step, "x", true), bbox.top + 8 * dot, 4 * dot);
    }
    ctx.lineWidth = dot;
    ctx.strokeStyle = ink("ink-muted");
    ctx.setLineDash([3 * dot, 3 * dot]);
    for (const step of this.board.resumes) {
      if (inside(step)) upright(ctx, Math.round(u.valToPos(step, "x", true)) + 0.5, bbox.top, bbox.top + bbox.height);
    }
    if (this.element.classList.contains("big")) {
      ctx.fillStyle = ink("ink-muted");
      for (const step of this.board.checkpoints.keys()) {
        if (inside(step)) triangle(ctx, u.valToPos(step, "x", true), bbox.top + bbox.height, 4 * dot);
      }
    }
    ctx.restore();
  }

  #read() {
    if (!this.u?.data || !this.curves.length) return;
    const { idx } = this.u.cursor;
    const step = idx == null ? null : this.u.data[0][idx];
    const { words } = this.board;
    const parts = step == null ? [] : [text(fill(words.step, { step: number(step) }), "muted")];
    this.names.forEach((name, i) => {
      const curve = (this.board.detail ?? this.board.curves).get(name);
      if (!curve) return;
      const value = step == null ? curve.latest : curve.at(step);
      const label = this.names.length > 1 ? `${words[`series.${name}`]} ` : "";
      const part = text(label + measure(value), typeof value === "string" ? "key odd" : "key");
      part.dataset.color = this.colors[i];
      parts.push(part);
    });
    if (step != null && this.board.checkpoints.has(step) && this.element.classList.contains("big")) {
      parts.push(text(fill(words.checkpoint, { step: number(step) }), "muted"));
    }
    if (step != null && this.board.resumes.has(step)) parts.push(text(fill(words.resumed, { step: number(step) }), "muted"));
    this.readout.replaceChildren(...parts);
  }

  #describe() {
    const table = this.element.querySelector("[data-table][open] tbody");
    if (!table) return;
    const steps = [...new Set(this.curves.flatMap((curve) => thinned(curve.steps)))].sort((a, b) => a - b);
    table.replaceChildren(...steps.map((step) => {
      const row = document.createElement("tr");
      const values = this.names.map((name) => measure(this.board.curves.get(name)?.exactly(step)));
      for (const value of [number(step), ...values]) {
        const cell = row.insertCell();
        cell.className = "number";
        cell.textContent = value;
      }
      return row;
    }));
  }

  #tools() {
    this.element.addEventListener("click", (event) => {
      const tool = event.target.closest("[data-tool]")?.dataset.tool;
      if (tool === "reset") this.board.zoom(null);
      if (tool !== "smooth" && tool !== "log") return;
      this[tool] = !this[tool];
      event.target.closest("[data-tool]").setAttribute("aria-pressed", this[tool]);
      this.build();
    });
    this.element.querySelector("[data-table]")?.addEventListener("toggle", () => this.#describe());
    this.plot.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageDown: -25, PageUp: 25, Home: -Infinity, End: Infinity }[event.key];
    const axis = this.u.data[0];
    if (event.key === "Escape") this.board.zoom(null);
    if (move === undefined || !axis.length) return;
    event.preventDefault();
    const from = this.u.cursor.idx ?? axis.length - 1;
    const idx = Math.min(axis.length - 1, Math.max(0, from + move));
    this.u.setCursor({ left: this.u.valToPos(axis[idx], "x"), top: 10 }, true, true);
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (width && height && (width !== this.u.width || height !== this.u.height)) this.u.setSize({ width, height });
  }
}

const EMPTY = { steps: [], values: [], low: [], high: [], stride: 1, odd: new Map(), smoothed: () => [] };

function thinned(steps) {
  const every = Math.ceil(steps.length / 100);
  return steps.filter((_step, i) => i % every === 0 || i === steps.length - 1);
}

function logRange(min, max) {
  return min === max ? [min / 1.2, max * 1.2] : [min / 1.04, max * 1.04];
}

function tick(value) {
  if (value == null) return "";
  const size = Math.abs(value);
  if (size >= 1e4) return compact(value);
  return size > 0 && size < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}

function text(content, className) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = content;
  return element;
}

function cross(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x - size, y - size);
  ctx.lineTo(x + size, y + size);
  ctx.moveTo(x + size, y - size);
  ctx.lineTo(x - size, y + size);
  ctx.stroke();
}

function upright(ctx, x, top, bottom) {
  ctx.beginPath();
  ctx.moveTo(x, top);
  ctx.lineTo(x, bottom);
  ctx.stroke();
}

function triangle(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x, y - 1.6 * size);
  ctx.lineTo(x + size, y);
  ctx.lineTo(x - size, y);
  ctx.fill();
}

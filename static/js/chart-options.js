// What uPlot needs to know about a chart: scales, axes, lines and bands in the colors of the theme.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { bytes, compact, measure } from "./format.js";

export const FORECAST_COLUMNS = 3; // its course, and the lower and upper edge of its band
export const COLUMNS_PER_CURVE = 4; // itself, its smoothed course, and the lower and upper edge of its band
const MIN_SIZE = 60; // CSS pixels
const COLORS = /** @type {Record<string, number[]>} by the chart, one for each curve */ ({
  loss: [1, 2],
  bits: [1, 2],
  rewards: [1, 2],
  accuracy: [1, 2],
  rate: [3],
  norm: [4],
  speed: [5],
  memory: [1],
  gpu_memory: [1],
  use: [1, 2],
  disk: [3],
  mfu: [2],
  power: [4],
});

/**
 * How the values of a chart are written, and the scale that always begins at 0 of those that are amounts.
 * @typedef {object} Unit
 * @property {(value: number | string | null | undefined) => string} text
 * @property {(value: number | null) => string} tick
 * @property {boolean} fromZero
 * @property {number[]} [steps] between ticks
 */

const UNITS = /** @type {Record<string, Unit>} */ ({
  bytes: {
    text: (value) => (typeof value === "string" ? value : bytes(value)),
    tick: (value) => (value == null ? "" : bytes(value).replace(/\.0(?= )/, "")),
    fromZero: true,
    steps: Array.from({ length: 50 }, (_step, i) => 2 ** i), // so that ticks are whole MiB or GiB
  },
  percent: {
    text: (value) => (typeof value === "number" ? `${Math.round(value)} %` : measure(value)),
    tick: (value) => (value == null ? "" : `${value} %`),
    fromZero: true,
  },
  watts: {
    text: (value) => (typeof value === "number" ? `${Math.round(value)} W` : measure(value)),
    tick: (value) => (value == null ? "" : `${value} W`),
    fromZero: true,
  },
});

/**
 * @param {string | undefined} name of a unit; without one values are plain numbers
 * @returns {Unit}
 */
export function unitOf(name) {
  return UNITS[name ?? ""] ?? { text: measure, tick, fromZero: false };
}

/**
 * The numbers of the colors (--series-1 and so on) of a chart's curves.
 * @param {string} chart
 */
export function colorsOf(chart) {
  return COLORS[chart];
}

/**
 * A color of the theme in use, as a canvas needs it.
 * @param {string} name of the custom property, without its dashes
 */
export function themeColor(name) {
  const probe = document.createElement("i");
  probe.hidden = true;
  probe.className = "probe";
  document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/**
 * @typedef {object} View
 * @property {HTMLElement} plot the element to fill
 * @property {number[]} colors the numbers of its curves' colors
 * @property {boolean[]} isSparse of each curve: it has few points, such as that of evaluations
 * @property {boolean} isSmooth
 * @property {boolean} isLog
 * @property {() => [number, number] | null} range the part of the horizontal axis that is zoomed in on
 * @property {Unit} unit of its values
 * @property {number | null} level a value that the vertical axis includes
 * @property {boolean} hasForecast whether the first curve is continued by a forecast
 * @property {(value: number) => string} tickText what stands below a tick of the horizontal axis
 * @property {{ scale: Partial<uPlot.Scale>, axis: Partial<uPlot.Axis> }} [horizontal] more of the horizontal axis
 * @property {() => [number, number] | null} [limits] the values that the vertical axis shows, if not all
 */

/**
 * @param {View} view
 * @returns {uPlot.Options}
 */
export function chartOptions(view) {
  const { plot, colors, isSparse, isSmooth, isLog, range, unit, level, hasForecast, tickText, horizontal, limits } = view;
  /** @type {(min: number, max: number) => [number, number]} */
  const fitted = (min, max) => {
    const [low, high] = limits?.() ?? [min, max];
    return isLog ? logRange(low, high) : plainRange(low, high, unit.fromZero, level);
  };
  const line = themeColor("line");
  const axis = {
    stroke: themeColor("ink-muted"),
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
    grid: { stroke: line, width: 1 },
    ticks: { stroke: line, width: 1, size: 4 },
    gap: 4,
  };
  const inks = colors.map((n) => themeColor(`series-${n}`));
  return {
    width: Math.max(MIN_SIZE, plot.clientWidth),
    height: Math.max(MIN_SIZE, plot.clientHeight),
    legend: { show: false },
    padding: [8, 22, 0, 0],
    scales: {
      x: {
        time: false,
        range: (_u, min, max) => range() ?? (min === max ? [min ?? 0, (max ?? 0) + 1] : [min, max]),
        ...horizontal?.scale,
      },
      y: {
        distr: isLog ? 3 : 1,
        range: (_u, min, max) => (min != null ? fitted(min, max) : isLog ? [0.1, 10] : [0, 1]),
      },
    },
    axes: [
      { ...axis, size: 28, space: 60, values: (_u, ticks) => ticks.map(tickText), ...horizontal?.axis },
      {
        ...axis,
        size: unit.steps ? 64 : 52,
        space: 34,
        values: (_u, ticks) => ticks.map(unit.tick),
        ...(unit.steps && { incrs: unit.steps }),
      },
    ],
    series: [{}, ...inks.flatMap((ink, i) => lines(ink, isSparse[i], isSmooth)), ...(hasForecast ? forecastLines(inks[0]) : [])],
    bands: [
      ...inks.map((ink, i) => band(COLUMNS_PER_CURVE * (i + 1), translucent(ink, 16))),
      ...(hasForecast ? [band(COLUMNS_PER_CURVE * inks.length + FORECAST_COLUMNS, translucent(inks[0], 14))] : []),
    ],
    cursor: {
      y: false,
      points: { size: 7 },
      drag: { x: true, y: false, setScale: false },
      sync: { key: "job", scales: ["x", null] },
    },
  };
}

/**
 * The lines of a curve's columns. One with few points, such as that of evaluations, shows each of them.
 * @param {string} color
 * @param {boolean} isSparse
 * @param {boolean} isSmooth
 * @returns {uPlot.Series[]}
 */
function lines(color, isSparse, isSmooth) {
  const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
  return [
    {
      stroke: isSmooth && !isSparse ? translucent(color, 30) : color,
      width: isSparse ? 2 : 1.5,
      spanGaps: isSparse,
      points: isSparse ? { show: true, size: 5, fill: color, stroke: color } : { size: 4, fill: color },
    },
    { stroke: color, width: 2, points: { show: false } },
    edge,
    edge,
  ];
}

/**
 * The lines of a forecast's columns, dashed.
 * @param {string} color
 * @returns {uPlot.Series[]}
 */
function forecastLines(color) {
  const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
  return [{ stroke: color, width: 1.5, dash: [6, 5], spanGaps: true, points: { show: false } }, edge, edge];
}

/**
 * The area between two columns: the upper edge and, before it, the lower one.
 * @param {number} upper
 * @param {string} fill
 * @returns {uPlot.Band}
 */
function band(upper, fill) {
  return { series: [upper, upper - 1], fill };
}

/**
 * @param {string} color
 * @param {number} percent of opacity
 */
function translucent(color, percent) {
  return `color-mix(in srgb, ${color} ${percent}%, transparent)`;
}

/**
 * The part of a linear axis that shows these values, and a level.
 * @param {number} min
 * @param {number} max
 * @param {boolean} fromZero
 * @param {number | null} level
 * @returns {[number, number]}
 */
function plainRange(min, max, fromZero, level) {
  const [low, high] = [Math.min(min, level ?? min), Math.max(max, level ?? max)];
  if (fromZero) return [0, 1.08 * high || 1];
  const [start, end] = uPlot.rangeNum(low, high, 0.08, false);
  return [start ?? low, end ?? high];
}

/**
 * @param {number} min
 * @param {number} max
 * @returns {[number, number]}
 */
function logRange(min, max) {
  return min === max ? [min / 1.2, max * 1.2] : [min / 1.04, max * 1.04];
}

/** @param {number | null} value */
function tick(value) {
  if (value == null) return "";
  const size = Math.abs(value);
  if (size >= 1e4) return compact(value);
  return size > 0 && size < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}

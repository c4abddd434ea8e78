// What is drawn on the canvas of a chart beside its curves.

import { themeColor } from "./chart-options.js";

/**
 * Values that are no finite number, as crosses at the top; where attempts went on, as thin upright lines; checkpoints,
 * as ticks at the bottom.
 * @param {import("../vendor/uplot/uPlot.esm.js")} u
 * @param {{ odd: Iterable<number>, resumes: Iterable<number>, checkpoints: Iterable<number> }} steps
 */
export function drawMarks(u, { odd, resumes, checkpoints }) {
  const { ctx, bbox } = u;
  const { min, max } = u.scales.x;
  const pixel = devicePixelRatio;
  const bottom = bbox.top + bbox.height;
  /** @param {Iterable<number>} steps */
  const positions = (steps) =>
    [...steps].filter((step) => step >= (min ?? 0) && step <= (max ?? 0)).map((step) => u.valToPos(step, "x", true));
  ctx.save();
  ctx.lineWidth = 1.5 * pixel;
  ctx.strokeStyle = themeColor("bad");
  for (const x of positions(odd)) cross(ctx, x, bbox.top + 8 * pixel, 4 * pixel);
  ctx.lineWidth = pixel;
  ctx.strokeStyle = ctx.fillStyle = themeColor("ink-muted");
  ctx.setLineDash([3 * pixel, 3 * pixel]);
  for (const x of positions(resumes)) upright(ctx, Math.round(x) + 0.5, bbox.top, bottom);
  for (const x of positions(checkpoints)) triangle(ctx, x, bottom, 4 * pixel);
  ctx.restore();
}

/**
 * What happened at steps: pauses as two bars at the top, recoveries as triangles there.
 * @param {import("../vendor/uplot/uPlot.esm.js")} u
 * @param {{ step: number, kind: string }[]} events
 */
export function drawEvents(u, events) {
  const { ctx, bbox } = u;
  const { min, max } = u.scales.x;
  const size = 4 * devicePixelRatio;
  ctx.save();
  ctx.fillStyle = themeColor("wait");
  for (const { step, kind } of events) {
    if (step < (min ?? 0) || step > (max ?? 0)) continue;
    const x = u.valToPos(step, "x", true);
    if (kind === "recovery") triangle(ctx, x, bbox.top + 2.6 * size, size);
    else for (const side of [-0.9, 0.3]) ctx.fillRect(x + side * size, bbox.top + size, 0.6 * size, 2 * size);
  }
  ctx.restore();
}

/**
 * A level that the curves are compared with, as a dashed line across, if the axis shows it.
 * @param {import("../vendor/uplot/uPlot.esm.js")} u
 * @param {number} value
 * @param {string} [name] stands above its end
 */
export function drawLevel(u, value, name = "") {
  const { ctx, bbox } = u;
  const { min, max } = u.scales.y;
  if (value < (min ?? 0) || value > (max ?? 0)) return;
  const y = Math.round(u.valToPos(value, "y", true)) + 0.5;
  ctx.save();
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.strokeStyle = themeColor("ink-muted");
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.fillStyle = themeColor("ink-muted");
  [ctx.textAlign, ctx.textBaseline] = ["right", "bottom"];
  ctx.fillText(name, bbox.left + bbox.width - 4 * devicePixelRatio, y - 3 * devicePixelRatio);
  ctx.restore();
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {number} x
 * @param {number} y
 * @param {number} size
 */
function cross(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x - size, y - size);
  ctx.lineTo(x + size, y + size);
  ctx.moveTo(x + size, y - size);
  ctx.lineTo(x - size, y + size);
  ctx.stroke();
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {number} x
 * @param {number} top
 * @param {number} bottom
 */
function upright(ctx, x, top, bottom) {
  ctx.beginPath();
  ctx.moveTo(x, top);
  ctx.lineTo(x, bottom);
  ctx.stroke();
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {number} x
 * @param {number} y
 * @param {number} size
 */
function triangle(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x, y - 1.6 * size);
  ctx.lineTo(x + size, y);
  ctx.lineTo(x - size, y);
  ctx.fill();
}

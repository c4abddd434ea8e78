// The attention of one layer as a heat map: pickers of layer and head, a cursor moved by mouse or keys, and a table.

import { find, findAll } from "./dom.js";
import { fill } from "./format.js";
import { View } from "./inspection-views.js";
import { tokenText } from "./token-strip.js";

const SIZE = 460; // of a map, in SVG units, which are CSS pixels
const MIN_CELL = 20;
const MAX_CELL = 44;
const CHARACTER = 7.3; // the width of one in a label
const MAX_LABEL = 14; // characters
const SVG = "http://www.w3.org/2000/svg";
const MOVES = /** @type {Record<string, [number, number]>} */ ({
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
});

/**
 * @typedef {object} Answer
 * @property {import("./inspection-views.js").Token[]} tokens
 * @property {number} layer
 * @property {number} num_layers
 * @property {number} num_heads
 * @property {number[][][]} weights by head, reader and read token
 */

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

/** @param {string} text */
function labelOf(text) {
  const shown = tokenText(text);
  return shown.length > MAX_LABEL ? `${shown.slice(0, MAX_LABEL - 1)}…` : shown;
}

export class AttentionMap extends View {
  #layer = 0;
  #head = 0;
  /** @type {[number, number]} reader and read token */
  #cursor = [0, 0];
  /** @type {Answer | null} */
  #answer = null;
  #isCausal = false;
  /** @type {SVGElement | null} around the cell at the cursor */
  frame = null;
  margin = 0; // for labels, in SVG units
  cell = MIN_CELL;

  /**
   * @param {HTMLElement} panel
   * @param {Record<string, string>} words
   * @param {() => void} ask
   */
  constructor(panel, words, ask) {
    super(panel, words, ask);
    this.map = find(panel, "[data-map]");
    this.layers = find(panel, "[data-layer]", HTMLSelectElement);
    this.heads = find(panel, "[data-heads]");
    this.layers.addEventListener("change", () => {
      this.#layer = Number(this.layers.value);
      ask();
    });
    this.map.addEventListener("pointerover", (event) => this.#pointAt(event.target));
    this.map.addEventListener("pointerdown", (event) => this.#pointAt(event.target));
    this.map.addEventListener("keydown", (event) => this.#move(event));
  }

  /** @param {string} text */
  request(text) {
    return { text, layer: this.#layer };
  }

  reset() {
    this.#layer = 0;
    this.#head = 0;
  }

  /** @param {Answer} answer */
  show(answer) {
    super.show(answer);
    const last = answer.tokens.length - 1;
    if (last + 1 !== this.#answer?.tokens.length) this.#cursor = [last, 0];
    this.#answer = answer;
    this.#isCausal =
      answer.tokens.length > 1 && answer.weights.every((head) => head.every((row, i) => row.every((w, j) => j <= i || w === 0)));
    this.#head = Math.min(this.#head, answer.num_heads - 1);
    this.#drawLayers(answer);
    this.#drawHeads(answer);
    this.#draw(answer);
  }

  /** @param {Answer} answer */
  #drawLayers({ num_layers, layer }) {
    const options = Array.from({ length: num_layers }, (_none, n) => {
      return new Option(fill(this.words.layer, { n: n + 1 }), String(n), false, n === layer);
    });
    this.layers.replaceChildren(...options);
  }

  /** @param {Answer} answer */
  #drawHeads(answer) {
    const buttons = answer.weights.map((weights, n) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(n === this.#head));
      const canvas = document.createElement("canvas");
      button.append(canvas, document.createTextNode(fill(this.words.head, { n: n + 1 })));
      button.addEventListener("click", () => this.#chooseHead(n));
      requestAnimationFrame(() => drawThumbnail(canvas, weights));
      return button;
    });
    this.heads.replaceChildren(...buttons);
  }

  /** @param {number} n */
  #chooseHead(n) {
    this.#head = n;
    for (const [i, button] of findAll(this.heads, "button").entries()) button.setAttribute("aria-pressed", String(i === n));
    if (this.#answer) this.#draw(this.#answer);
  }

  /** @param {Answer} answer */
  #draw(answer) {
    const labels = answer.tokens.map((token) => labelOf(token.text));
    const margin = Math.ceil(Math.max(...labels.map((label) => label.length)) * CHARACTER) + 12;
    const cell = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor(SIZE / labels.length)));
    const size = margin + cell * labels.length + 2;
    const svg = svgElement("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" });
    svg.append(hatching());
    labels.forEach((label, i) => {
      const middle = margin + cell * i + cell / 2;
      const row = svgElement("text", { x: margin - 6, y: middle + 4, "text-anchor": "end" });
      const column = svgElement("text", { transform: `translate(${middle + 4} ${margin - 6}) rotate(-90)` });
      for (const text of [row, column]) text.textContent = label;
      svg.append(row, column);
    });
    this.margin = margin;
    this.cell = cell;
    for (const [i, row] of this.#weights(answer).entries()) {
      for (const [j, weight] of row.entries()) svg.append(...this.#drawCell(i, j, weight));
    }
    this.frame = svgElement("rect", { class: "cursor", width: cell, height: cell });
    svg.append(this.frame);
    this.map.replaceChildren(svg);
    this.#fillWeights(answer);
    this.#read();
  }

  /**
   * @param {number} i
   * @param {number} j
   * @param {number} weight
   */
  #drawCell(i, j, weight) {
    const { margin, cell: side } = this;
    const box = { x: margin + side * j, y: margin + side * i, width: side - 1, height: side - 1 };
    const cell = svgElement("rect", { ...box, class: this.#isMasked(i, j) ? "cell masked" : "cell" });
    cell.dataset.at = `${i} ${j}`;
    if (weight === 0) return [cell];
    return [cell, svgElement("rect", { ...box, class: "weight", opacity: weight.toFixed(4) })];
  }

  /** @param {Answer} answer */
  #weights(answer) {
    return answer.weights[this.#head];
  }

  /**
   * @param {number} i
   * @param {number} j
   */
  #isMasked(i, j) {
    return this.#isCausal && j > i;
  }

  /** @param {EventTarget | null} target */
  #pointAt(target) {
    const at = target instanceof SVGElement ? target.dataset.at : undefined;
    if (!at) return;
    const [i, j] = at.split(" ").map(Number);
    this.#cursor = [i, j];
    this.#read();
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const move = MOVES[event.key];
    if (!move || !this.#answer) return;
    event.preventDefault();
    const last = this.#answer.tokens.length - 1;
    const clamp = (/** @type {number} */ n) => Math.max(0, Math.min(last, n));
    this.#cursor = [clamp(this.#cursor[0] + move[0]), clamp(this.#cursor[1] + move[1])];
    this.#read();
    this.frame?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #read() {
    const [i, j] = this.#cursor;
    if (!this.#answer || !this.frame) return;
    this.frame.setAttribute("x", String(this.margin + this.cell * j - 0.5));
    this.frame.setAttribute("y", String(this.margin + this.cell * i - 0.5));
    const { tokens } = this.#answer;
    const values = {
      head: fill(this.words.head, { n: this.#head + 1 }),
      reader: tokenText(tokens[i].text),
      read: tokenText(tokens[j].text),
      weight: this.#weights(this.#answer)[i][j].toFixed(4),
    };
    this.detail(fill(this.#isMasked(i, j) ? this.words.masked : this.words.reads, values));
  }

  /** @param {Answer} answer */
  #fillWeights(answer) {
    const heads = find(this.panel, "[data-table] thead tr", HTMLTableRowElement);
    const cells = ["", ...answer.tokens.map((token) => tokenText(token.text))].map((text) => {
      const cell = document.createElement(text ? "th" : "td");
      cell.textContent = text;
      return cell;
    });
    heads.replaceChildren(...cells);
    const rows = this.#weights(answer).map((row, i) => [
      tokenText(answer.tokens[i].text),
      ...row.map((weight, j) => (this.#isMasked(i, j) ? "–" : weight.toFixed(4))),
    ]);
    this.fillTable(rows);
  }
}

/** The pattern of cells that cannot be read. */
function hatching() {
  const definitions = svgElement("defs", {});
  const pattern = svgElement("pattern", {
    id: "hatch",
    width: 6,
    height: 6,
    patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)",
  });
  pattern.append(svgElement("line", { class: "hatching", x1: 0, y1: 0, x2: 0, y2: 6 }));
  definitions.append(pattern);
  return definitions;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} weights
 */
function drawThumbnail(canvas, weights) {
  canvas.width = weights.length;
  canvas.height = weights.length;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.fillStyle = getComputedStyle(canvas).color;
  weights.forEach((row, i) => {
    row.forEach((weight, j) => {
      context.globalAlpha = weight;
      context.fillRect(j, i, 1, 1);
    });
  });
}

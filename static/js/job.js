// The page of one job. The server renders every part of it; its stream sends the parts that change, and what the
// charts, the samples and the log grow by.

import { Curve, curvesOf } from "./curve.js";
import { closest, find, findAll } from "./dom.js";
import { LossForecast } from "./forecast.js";
import { ago } from "./format.js";
import { JobBoard } from "./job-board.js";
import { LogView } from "./log.js";
import { LogSearch } from "./log-search.js";
import { morph, parse } from "./morph.js";
import { Stream } from "./stream.js";

const SILENCE_BEFORE_END = 5_000; // milliseconds without an event after which an ended job has nothing more to send
const AGES_EVERY = 20_000; // milliseconds after which relative times are written again

/** @typedef {import("./curve.js").SeriesByName} SeriesByName */

/** @param {HTMLElement} root */
export function start(root) {
  const page = new JobPage(root);
  page.update();
  page.follow();
}

class JobPage {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.board = new JobBoard(root, JSON.parse(root.dataset.words ?? "{}"), this.#window.bind(this));
    this.board.isPending = "hasPoints" in root.dataset;
    this.forecast = new LossForecast(root, this.board);
    this.log = new LogView(find(root, "[data-log]"), find(root, "[data-follow]"), find(root, "[data-no-log]"));
    new LogSearch(find(root, "[data-log-card]"), `/api/v1/jobs/${root.dataset.id}/log/lines`);
    this.ending = 0;
    this.title = document.title.replace(/^.* · /, "");
    root.addEventListener("submit", (event) => this.#pin(event));
    root.addEventListener("click", (event) => {
      if (closest(event, "[data-close-ready]")) root.classList.add("ready-closed");
    });
    setInterval(() => this.#writeAges(), AGES_EVERY);
  }

  follow() {
    /** @type {Record<string, (data: any) => void>} */
    const handlers = {
      part: ({ id, html }) => this.#showPart(id, html),
      curve: ({ series }) => this.#replaceCurves(series),
      points: ({ series }) => this.#addPoints(series),
      sample: ({ step, html }) => this.#showSample(step, html),
      log: ({ text }) => this.log.add(text),
    };
    const address = `/jobs/${this.root.dataset.id}/events`;
    this.stream = new Stream(address, this.root.dataset.cursor ?? "", handlers, {
      status: (status) => this.#tell(status),
      event: () => this.#putOffEnd(),
    });
  }

  get isOver() {
    return this.root.querySelector("#part-heading[data-over]") !== null;
  }

  // What the rest of the page takes from the parts.
  update() {
    const heading = find(this.root, "#part-heading");
    document.title = `${heading.dataset.title} · ${this.title}`;
    const checkpoints = findAll(this.root, "[data-checkpoints] > li");
    this.board.checkpoints = new Map(checkpoints.map(({ dataset }) => [Number(dataset.step), dataset.checkpoint ?? ""]));
    this.board.resumes = new Set(findAll(this.root, "[data-resumed]").map(({ dataset }) => Number(dataset.resumed)));
    this.board.events = findAll(this.root, "[data-event]").map((line) => {
      const { step, event: kind = "" } = line.dataset;
      return { step: Number(step), kind, text: line.querySelector("p")?.textContent || this.board.words[kind] };
    });
    this.board.baselines = this.#baselines();
    this.board.draw();
    this.forecast.update(this.isOver);
    for (const dialog of this.root.querySelectorAll("dialog")) {
      if (!this.root.querySelector(`#part-actions [data-dialog="${dialog.id}"]`)) dialog.close();
    }
    this.#writeAges();
  }

  /** @returns {[string, number][]} */
  #baselines() {
    const { blind, unigram, tokensPerStep, flopsPerStep } = find(this.root, "#part-baselines").dataset;
    this.board.places.tokensPerStep = Number(tokensPerStep);
    this.board.places.flopsPerStep = Number(flopsPerStep);
    const best = this.root.querySelector("[data-best-earlier]");
    const texts = { blind, unigram, best: best instanceof HTMLElement ? best.dataset.bestEarlier : "" };
    return Object.entries(texts).flatMap(([name, text]) => (text ? [[this.board.words[name], Number(text)]] : []));
  }

  /**
   * @param {string} id
   * @param {string} html
   */
  #showPart(id, html) {
    const fresh = parse(html).getElementById(id);
    if (fresh) morph(find(this.root, `#${id}`), fresh);
    this.update();
  }

  /** @param {SeriesByName} series */
  #replaceCurves(series) {
    this.board.curves = curvesOf(series);
    this.board.isPending = false;
    this.board.draw();
    this.forecast.update(this.isOver);
  }

  /** @param {SeriesByName} series */
  #addPoints(series) {
    for (const [name, points] of Object.entries(series)) {
      const curve = this.board.curves.get(name) ?? new Curve();
      this.board.curves.set(name, curve);
      curve.add(points);
    }
    this.board.draw();
    this.forecast.update(this.isOver);
  }

  /**
   * @param {number} start the first step
   * @param {number} end the last step
   */
  async #window(start, end) {
    const address = `/api/v1/jobs/${this.root.dataset.id}/metrics?start=${start}&end=${end}&points=1500`;
    const answer = await fetch(address).catch(() => null);
    if (!answer?.ok) return null;
    return curvesOf((await answer.json()).series);
  }

  // Samples stand in the order of their steps, newest first; those of a step trained again replace the earlier ones.
  /**
   * @param {number} step
   * @param {string} html
   */
  #showSample(step, html) {
    const line = parse(html).querySelector("li");
    if (!line) return;
    find(this.root, "[data-no-samples]").hidden = true;
    const list = find(this.root, "[data-samples]");
    const lines = findAll(list, ":scope > li");
    const same = lines.find(({ dataset }) => Number(dataset.step) === step && dataset.split === line.dataset.split);
    if (same) same.replaceWith(line);
    else list.insertBefore(line, lines.find(({ dataset }) => Number(dataset.step) < step) ?? null);
  }

  /** @param {SubmitEvent} event */
  async #pin(event) {
    const form = closest(event, "[data-pin]");
    if (!(form instanceof HTMLFormElement)) return;
    event.preventDefault();
    const answer = await fetch(`/api/v1${new URL(form.action).pathname}`, { method: "POST" }).catch(() => null);
    const page = answer?.ok ? await fetch(location.href).catch(() => null) : null;
    const part = page?.ok ? parse(await page.text()).getElementById("part-checkpoints") : null;
    if (part) morph(find(this.root, "#part-checkpoints"), part);
  }

  #writeAges() {
    for (const place of findAll(this.root, "[data-ago]")) {
      place.textContent = ago(new Date(place.dataset.ago ?? ""));
    }
  }

  // The connection and every event of an ended job put its end off: the last of the log and the checkpoints follow the state.
  #putOffEnd() {
    clearTimeout(this.ending);
    if (this.isOver) this.ending = setTimeout(() => this.#end(), SILENCE_BEFORE_END);
  }

  #end() {
    this.stream?.end();
    this.board.isPending = false;
    this.board.draw();
  }

  /** @param {import("./stream.js").Status} status */
  #tell(status) {
    if (status === "live") this.#putOffEnd();
    const place = find(this.root, "[data-stream]");
    const word = status === "live" && this.isOver ? "ended" : status;
    place.dataset.status = word;
    place.textContent = place.dataset[word] ?? "";
  }
}

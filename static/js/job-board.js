// The charts of a job. They hold its steps, and show them on an axis of steps, tokens, training time or FLOPs.

import { StepPlaces, placeText, tickText, ticks } from "./axis.js";
import { Board } from "./board.js";
import { closest, find } from "./dom.js";
import { twoDigits } from "./forecast.js";

/** @import { Axis } from "./axis.js" */

const MIN_SPACE = 90; // CSS pixels between two ticks

export class JobBoard extends Board {
  places = new StepPlaces();
  #timedAt = -1; // the step
  #secondsAddress = "";

  /**
   * @param {HTMLElement} root
   * @param {Record<string, string>} words
   * @param {(start: number, end: number) => Promise<import("./board.js").Curves | null>} fetchWindow
   */
  constructor(root, words, fetchWindow) {
    super(root, words, fetchWindow);
    this.#secondsAddress = `/api/v1/jobs/${root.dataset.id}/metrics?series=loss&points=1000&seconds=true`;
    root.addEventListener("change", (event) => {
      if (closest(event, "[data-axis]")) this.#choose();
    });
  }

  async #choose() {
    const axis = /** @type {Axis} */ (find(this.root, "[data-axis]", HTMLSelectElement).value);
    if (axis === "seconds") await this.#loadSeconds();
    this.places.axis = axis;
    this.rebuild();
    this.root.dataset.drawn = axis;
  }

  /** @override */
  draw() {
    if (this.places?.axis === "seconds") this.#loadSeconds();
    super.draw();
  }

  // They change with the first two digits of the step only.
  async #loadSeconds() {
    const step = twoDigits(this.curves.get("loss")?.steps.at(-1) ?? 0);
    if (step === this.#timedAt) return;
    this.#timedAt = step;
    const answer = await fetch(this.#secondsAddress).catch(() => null);
    if (!answer?.ok) return;
    const { loss } = (await answer.json()).series;
    if (loss) this.places.setSeconds(loss.steps, loss.seconds);
    super.draw();
  }

  /** @override */
  get horizontal() {
    const { places } = this;
    if (!places || places.axis === "step") return super.horizontal;
    /** @type {(u: import("../vendor/uplot/uPlot.esm.js"), i: number, min: number, max: number) => number[]} */
    const splits = (u, _i, min, max) => {
      const wanted = u.bbox.width / devicePixelRatio / MIN_SPACE;
      return ticks(places.axis, places.of(min), places.of(max), wanted).map((place) => places.step(place));
    };
    /** @type {Partial<import("../vendor/uplot/uPlot.esm.js").Scale>} */
    const scale = { distr: 100, fwd: (step) => places.of(step), bwd: (place) => places.step(place) };
    /** @type {(u: unknown, at: number[]) => number[]} */
    const filter = (_u, at) => at;
    return { scale: places.axis === "seconds" ? scale : {}, axis: { splits, filter } };
  }

  /**
   * @param {number} step
   * @override
   */
  tickText(step) {
    return tickText(this.places.axis, Number(this.places.of(step).toPrecision(9)));
  }

  /**
   * @param {number} step
   * @override
   */
  placeText(step) {
    return placeText(this.words, this.places.axis, this.places.of(step));
  }
}

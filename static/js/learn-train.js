// The page on training: the loss curve of the job that a checkpoint comes from, and sentences with its figures.

import { Board } from "./board.js";
import { curvesOf } from "./curve.js";
import { find, findAll } from "./dom.js";
import { fill, measure, number } from "./format.js";

const POINTS = 1500;
const FROM_SCRATCH = ["causal", "masked", "span_corruption", "seq2seq", "chat", "completion"]; // losses per token

class TrainPage {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.model = find(root, "[name=checkpoint]", HTMLSelectElement);
    find(root, "[data-run]").hidden = false; // charts take their size from the page
    this.board = new Board(root, JSON.parse(root.dataset.words ?? "{}"), async () => null);
    this.model.addEventListener("change", () => this.#show());
    this.#show();
  }

  async #show() {
    const job = this.model.selectedOptions[0]?.dataset.job ?? "";
    find(this.root, "[data-no-job]").hidden = job !== "";
    find(this.root, "[data-run]").hidden = job === "";
    find(this.root, "[data-error]").hidden = true;
    for (const link of findAll(document, "a[data-carry]")) {
      if (link instanceof HTMLAnchorElement) link.search = new URLSearchParams({ checkpoint: this.model.value }).toString();
    }
    if (!job) return;
    try {
      const address = `/api/v1/jobs/${job}`;
      const [about, metrics] = await Promise.all([
        fetched(address),
        fetched(`${address}/metrics?series=loss,eval_loss&points=${POINTS}`),
      ]);
      this.board.curves = curvesOf(metrics.series);
      this.board.draw();
      this.#tell(about);
      find(this.root, "[data-job-link]", HTMLAnchorElement).href = `/jobs/${job}`;
    } catch {
      const place = find(this.root, "[data-error]");
      place.textContent = place.dataset.lost ?? "";
      place.hidden = false;
    }
  }

  /** @param {any} job */
  #tell({ spec, step, facts }) {
    const loss = this.board.curves.get("loss");
    const [first, last] = [loss?.values[0], loss?.values.at(-1)];
    const evalLoss = this.board.curves.get("eval_loss")?.values.at(-1);
    const isPerToken = FROM_SCRATCH.includes(spec.objective) && first != null && last != null;
    const values = {
      steps: number(step),
      batch: number(spec.train_batch_size),
      warmup_steps: number(spec.warmup_steps),
      learning_rate: measure(spec.learning_rate),
      vocab_size: number(facts.vocab_size),
      uniform: measure(Math.log(facts.vocab_size)),
      first: measure(first),
      last: measure(last),
      first_perplexity: measure(Math.exp(first ?? 0)),
      last_perplexity: measure(Math.exp(last ?? 0)),
      eval_loss: measure(evalLoss),
    };
    /** @type {Record<string, boolean>} */
    const isTrue = {
      steps: true,
      uniform: isPerToken && !spec.base_model && Boolean(facts.vocab_size),
      perplexity: isPerToken && last < first,
      validation: evalLoss != null,
    };
    for (const place of findAll(this.root, "[data-sentence]")) {
      place.textContent = fill(place.dataset.sentence ?? "", values);
      place.hidden = !isTrue[place.dataset.when ?? ""];
    }
  }
}

/** @param {string} address */
async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(address);
  return answer.json();
}

/** @param {HTMLElement} root */
export function start(root) {
  new TrainPage(root);
}

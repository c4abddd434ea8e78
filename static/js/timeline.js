// @ts-nocheck
// The history of a job as a timeline, newest first: its lines, and above those of each attempt a heading.

import { ago, fill, number, span } from "./format.js";
import { localTimes } from "./times.js";

const ICONS = { person: "circle-user-round", go: "play", wait: "clock", warn: "triangle-alert", good: "circle-check", bad: "circle-alert", end: "circle-slash" };
const VERDICTS = { exact: "circle-check", equivalent: "circle-check", different: "triangle-alert", comparing: "clock" };
const REFRESH = 20_000; // how old a line is, is told anew this often

export function showIcon(element, name) {
  const use = element.querySelector("use");
  use.setAttribute("href", use.getAttribute("href").replace(/#.*/, `#${name}`));
}

export function showVerdict(mark, verdict) {
  mark.hidden = !verdict;
  mark.dataset.verdict = verdict?.verdict ?? "";
  if (!verdict) return;
  showIcon(mark, VERDICTS[verdict.verdict]);
  mark.querySelector("[data-proof]").textContent = verdict.message;
}

export class Timeline {
  constructor(root, words) {
    Object.assign(this, { list: root.querySelector("[data-history]"), words, attempts: new Map() });
    this.line = root.querySelector("template[data-history-line]").content.firstElementChild;
    this.heading = root.querySelector("template[data-attempt-line]").content.firstElementChild;
    this.#tellAges();
    setInterval(() => this.#tellAges(), REFRESH);
  }

  add(entry) {
    const line = this.line.cloneNode(true);
    Object.assign(line.dataset, { seq: entry.seq, kind: entry.kind, fence: entry.fence, at: entry.at });
    showIcon(line, ICONS[entry.kind]);
    line.querySelector("[data-sentence]").textContent = entry.message ?? "";
    const next = line.querySelector("[data-next]");
    next.hidden = !entry.next_step;
    next.textContent = entry.next_step ?? "";
    const at = document.createElement("time");
    at.dateTime = entry.at;
    line.querySelector("[data-exact]").replaceChildren(at);
    localTimes(line);
    const lines = this.#lines();
    lines.find((other) => other.dataset.seq === line.dataset.seq)?.remove();
    this.list.insertBefore(line, this.#lines().find((other) => Number(other.dataset.seq) < entry.seq) ?? null);
    this.#group();
  }

  know(attempts) {
    this.attempts = new Map(attempts.map((attempt) => [String(attempt.fence), attempt]));
    this.#group();
  }

  #lines() {
    return [...this.list.querySelectorAll("li[data-seq]")];
  }

  // Put a heading before the newest line of each attempt, and between any two lines the time between them.
  #group() {
    for (const old of this.list.querySelectorAll(".attempt")) old.remove();
    const lines = this.#lines();
    lines.forEach((line, i) => {
      const { fence, at } = line.dataset;
      if (fence !== "0" && lines[i - 1]?.dataset.fence !== fence) line.before(this.#heading(fence));
      const between = lines[i + 1] ? (new Date(at) - new Date(lines[i + 1].dataset.at)) / 1000 : 0;
      line.querySelector("[data-gap]").textContent = between >= 1 ? `+${span(between)}` : "";
    });
    this.#tellAges();
  }

  #heading(fence) {
    const heading = this.heading.cloneNode(true);
    const attempt = this.attempts.get(fence);
    heading.querySelector("[data-number]").textContent = fill(this.words.attempt, { n: fence });
    const where = attempt ? [attempt.node] : [];
    if (attempt?.resume_step) where.push(fill(this.words.from_step, { step: number(attempt.resume_step) }));
    heading.querySelector("[data-where]").textContent = where.join(" · ");
    showVerdict(heading.querySelector(".verdict"), attempt?.verdict);
    return heading;
  }

  #tellAges() {
    for (const line of this.#lines()) line.querySelector("[data-ago]").textContent = ago(new Date(line.dataset.at));
  }
}

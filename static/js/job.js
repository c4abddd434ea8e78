// @ts-nocheck
// The page of one job, kept up to date by its one stream of events. First load, live and reload are the same code.

import { Board } from "./chart.js";
import { Curve } from "./curve.js";
import { compact, fill, measure, number, span } from "./format.js";
import { LogView } from "./log.js";
import { Saves } from "./saves.js";
import { Stream } from "./stream.js";
import { Timeline, showVerdict } from "./timeline.js";

const root = document.getElementById("job");
const words = JSON.parse(root.dataset.words);
const url = `/api/v1/jobs/${root.dataset.id}`;
const TERMINAL = ["succeeded", "failed", "cancelled"];
const QUIET_BEFORE_END = 5_000; // an ended job whose stream is silent this long has nothing more to say
const find = (selector, within = root) => within.querySelector(selector);
const title = document.title;

const board = new Board(root, words, async (start, end) => {
  const answer = await fetch(`${url}/metrics?start=${start}&end=${end}&points=1500`).catch(() => null);
  if (!answer?.ok) return null;
  return curvesOf((await answer.json()).series);
});
const log = new LogView(find("[data-log]"), find("[data-follow]"), find("[data-no-log]"));
const timeline = new Timeline(root, words);
const saves = new Saves(root, words, (checkpoints) => {
  board.checkpoints = new Map(checkpoints.map(({ step, id }) => [step, id]));
  board.draw();
  showWays();
});
let ending = 0;
let isOver = false;
let job = null;

function curvesOf(series) {
  const curves = new Map();
  for (const [name, data] of Object.entries(series)) {
    const curve = new Curve();
    curve.replace(data);
    curves.set(name, curve);
  }
  return curves;
}

function addPoints({ series }) {
  for (const [name, points] of Object.entries(series)) {
    if (!board.curves.has(name)) board.curves.set(name, new Curve());
    board.curves.get(name).add(points);
  }
  board.draw();
}

function showJob(news) {
  job = news;
  isOver = TERMINAL.includes(job.state);
  if (root.dataset.state !== job.state) {
    root.dataset.state = job.state;
    find("[data-announce]").textContent = fill(words.now, { state: words[`state.${job.state}`] });
  }
  const badge = find("[data-badge] .badge");
  badge.dataset.state = job.state;
  badge.textContent = words[`state.${job.state}`];
  const node = find("[data-node]");
  node.hidden = !job.node;
  node.textContent = job.node ?? "";
  showProgress(job);
  showPhases(job);
  for (const [name, value] of Object.entries(job.latest)) {
    const place = find(`[data-stat=${name}]`);
    if (place) place.textContent = name === "tokens_per_second" && typeof value === "number" ? compact(value) : measure(value);
  }
  for (const place of root.querySelectorAll("[data-fact]")) {
    const value = job.facts[place.dataset.fact];
    if (value != null) place.textContent = place.dataset.fact === "num_parameters" ? compact(value) : number(value);
  }
  showTroubles(job);
  showRecoveries(job);
  showWays();
}

function showTroubles({ failure, notice }) {
  const alert = find("[data-failure]");
  alert.hidden = !failure;
  if (failure) {
    find("[data-cause]", alert).textContent = failure.cause;
    find("[data-next-step]", alert).textContent = failure.next_step;
    find("[data-failure-log]", alert).hidden = !failure.log.length;
    find("pre", alert).textContent = failure.log.join("\n");
    find("[data-actions]", alert).replaceChildren(...failure.actions.map(({ label, form }) => {
      const link = document.createElement("a");
      return Object.assign(link, { className: "button small", href: form, textContent: label });
    }));
  }
  const banner = find("[data-notice]");
  banner.hidden = !notice;
  find("[data-message]", banner).textContent = notice?.message ?? "";
  find("[data-next-step]", banner).textContent = notice?.next_step ?? "";
}

function showRecoveries({ state, num_recoveries: n, repeated_steps: steps, setback, verdict, adjustments }) {
  const why = setback?.message ?? "";
  const lost = state === "recovering" ? why : "";
  const line = find("[data-recovered]");
  line.hidden = !n && !verdict && !lost;
  const count = find("[data-count]", line);
  count.hidden = !n && !lost;
  count.lastElementChild.textContent = n ? fill(words.recovered, { n, why, steps: number(steps) }) : lost;
  showVerdict(find(".verdict", line), verdict);
  const changed = [];
  if (adjustments.per_device_batch_size) changed.push(fill(words.micro_batch, { n: adjustments.per_device_batch_size }));
  if (adjustments.skipped_steps) changed.push(fill(words.skipped, { steps: adjustments.skipped_steps.join(", ") }));
  find("[data-adjusted]").hidden = !changed.length;
  find("[data-adjusted]").textContent = changed.join(" ");
}

// What can be done with the job now: one button for each way.
function showWays() {
  if (!job) return;
  const shown = { pause: job.desired === "run", resume: job.desired === "pause", cancel: job.desired !== "cancel" };
  for (const [name, isShown] of Object.entries(shown)) {
    const form = find(`[data-${name}]`);
    if (form) form.hidden = isOver || !isShown;
    if (form?.hidden) document.getElementById(name)?.close();
  }
  const newest = saves.known.find(({ state }) => state === "ready");
  const onward = find("[data-continue]");
  onward.hidden = !newest || !(isOver || job.state === "paused");
  if (newest) onward.href = `/jobs/new?from=${newest.id}`;
}

function showProgress(job) {
  const { phase, done, total } = job.progress;
  const training = isOver || !phase || ["train", "evaluate", "save"].includes(phase);
  const share = total > 1 ? ` ${Math.floor((100 * done) / total)} %` : "";
  const steps = fill(words.step_of, { step: number(job.step), total: number(job.max_steps) });
  find("[data-said]").textContent = job.wait ? job.wait.message : training ? steps : words[`phase.${phase}`] + share;
  let rest = "";
  if (isOver && job.elapsed_seconds) rest = fill(words.took, { time: span(job.elapsed_seconds) });
  else if (job.eta_seconds) rest = fill(words.left, { time: span(job.eta_seconds) });
  find("[data-rest]").textContent = rest;
  const bar = find("[data-progress] progress");
  bar.value = job.step;
  bar.className = job.state === "succeeded" ? "good" : isOver ? "quiet" : "";
  document.title = isOver || !job.step ? title : `${Math.floor((100 * job.step) / job.max_steps)} % · ${title}`;
}

function showPhases(job) {
  const { phase, phases } = job.progress;
  for (const line of root.querySelectorAll("[data-phase]")) {
    const name = line.dataset.phase;
    const part = phases[name];
    const current = phase === name || (name === "train" && phase === "evaluate");
    line.dataset.status = current && !isOver ? "now" : part && part.done >= part.total ? "done" : "";
    if (!part) continue;
    const bar = find("progress", line);
    bar.max = Math.max(1, part.total);
    bar.value = part.total ? part.done : 1;
    find("[data-took]", line).textContent = part.seconds ? span(part.seconds) : "";
  }
}

// Put a line where its key belongs: replaces one with the same key, else goes before the first smaller one.
function place(list, line, key) {
  const keyOf = (element) => Number(element.dataset.key);
  line.dataset.key = key;
  const lines = [...list.children];
  const same = lines.find((element) => keyOf(element) === key);
  if (same) same.replaceWith(line);
  else list.insertBefore(line, lines.find((element) => keyOf(element) < key) ?? null);
}

function clone(name) {
  return find(`template[${name}]`).content.cloneNode(true).firstElementChild;
}

function showSample({ step, prompt, text }) {
  const line = clone("data-sample");
  find("[data-step]", line).textContent = fill(words.step, { step: number(step) });
  find("[data-prompt]", line).textContent = prompt;
  find("[data-text]", line).textContent = text;
  find("[data-no-samples]").hidden = true;
  place(find("[data-samples]"), line, step);
}

function showHistory(entry) {
  timeline.add(entry);
  if (entry.reason === "resumed" || entry.reason === "continued") {
    board.resumes.add(entry.data.step);
    board.draw();
  }
}

const handlers = {
  job: showJob,
  attempts: ({ data }) => timeline.know(data),
  curve: ({ series }) => {
    board.curves = curvesOf(series);
    board.draw();
  },
  points: addPoints,
  sample: showSample,
  history: showHistory,
  checkpoints: ({ data }) => saves.show(data),
  log: ({ text }) => log.add(text),
};

// Every event of an ended job puts its end off: the last of the log and the checkpoints come behind the state.
function watched(handle) {
  return (data) => {
    handle(data);
    clearTimeout(ending);
    if (isOver) ending = setTimeout(() => stream.end(), QUIET_BEFORE_END);
  };
}

function tell(status) {
  const place = find("[data-stream]");
  place.dataset.status = status;
  place.textContent = place.dataset[status];
}

const stream = new Stream(
  `${url}/events`,
  Object.fromEntries(Object.entries(handlers).map(([name, handle]) => [name, watched(handle)])),
  tell,
);

// Uploads corpora that are dropped or chosen: files and whole folders, each with its progress, and all together with
// rate and time left. They can be paused, and go on after a reload when the same files are chosen again.

import { call } from "./api.js";
import { refresh } from "./refresh.js";
import { cloneTemplate, find, findAll } from "./dom.js";
import { bytes, fill, fillPlural, number, span } from "./format.js";
import { ResumableUpload } from "./resumable-upload.js";
import { acceptDrops, confirmLeavingWhile, filesOf } from "./transfer.js";

/** @import { NamedFile } from "./transfer.js" */

const MAX_PARALLEL = 3;
const MAX_NAMES_SHOWN = 8;
const UPDATE_INTERVAL_MS = 250;
const RATE_SECONDS = 8; // over which the rate is measured

/** Bytes per second lately. */
class Rate {
  /** @type {[at: number, done: number][]} */
  #points = [];

  /** @param {number} done */
  add(done) {
    const now = performance.now() / 1000;
    this.#points.push([now, done]);
    while (this.#points.length > 2 && now - this.#points[0][0] > RATE_SECONDS) this.#points.shift();
  }

  /** @returns {number} 0 while nothing is known */
  get value() {
    const [first, last] = [this.#points[0], this.#points[this.#points.length - 1]];
    return first && last[0] > first[0] ? Math.max(0, (last[1] - first[1]) / (last[0] - first[0])) : 0;
  }
}

/** The row of a file. */
class Row {
  rate = new Rate();
  #shownAt = 0;

  /**
   * @param {NamedFile} named
   * @param {HTMLElement} form
   * @param {Batch} batch
   */
  constructor([path, file], form, batch) {
    this.words = form.dataset;
    this.batch = batch;
    this.element = cloneTemplate(form, "[data-upload-row]");
    this.progress = find(this.element, "progress", HTMLProgressElement);
    this.upload = new ResumableUpload(file, path, () => this.#change());
    find(this.element, "[data-name]").textContent = path;
    this.progress.setAttribute("aria-label", path);
    this.#on("[data-pause]", () => this.upload.pause());
    this.#on("[data-resume]", () => batch.resume(this));
    this.#on("[data-abort]", () => batch.leaveOut(this));
    this.#show();
  }

  /**
   * @param {string} selector
   * @param {() => void} act
   */
  #on(selector, act) {
    const button = find(this.element, selector);
    button.addEventListener("click", act);
    button.setAttribute("aria-label", `${button.textContent?.trim()}: ${this.upload.path}`);
  }

  #change() {
    const { state, sent, file } = this.upload;
    const now = performance.now();
    if (state === "running") this.rate.add(sent);
    if (state === "running" && sent < file.size && now - this.#shownAt < UPDATE_INTERVAL_MS) return;
    this.#shownAt = now;
    this.#show();
    this.batch.change(this);
  }

  #show() {
    const { state, sent, file, problem } = this.upload;
    const values = { done: bytes(sent), total: bytes(file.size), speed: bytes(this.rate.value), left: span((file.size - sent) / this.rate.value) };
    const words = { waiting: this.words.waiting, paused: fill(this.words.paused ?? "", values), failed: "", arrived: this.words.kept, running: "" };
    const running = this.rate.value > 0 ? fill(this.words.speed ?? "", values) : fill(this.words.sent ?? "", values);
    find(this.element, "[data-status]").textContent = state === "running" ? running : (words[state] ?? "");
    this.progress.value = file.size ? sent / file.size : 0;
    const error = find(this.element, ".error");
    error.hidden = state !== "failed";
    error.textContent = state === "failed" ? problem || (this.words.broken ?? "") : "";
    find(this.element, "[data-pause]").hidden = state !== "running";
    find(this.element, "[data-resume]").hidden = state !== "paused" && state !== "failed";
    find(this.element, "[data-abort]").hidden = state === "arrived";
  }
}

/** Files that were dropped or chosen together. */
class Batch {
  /** @type {Row[]} */
  rows = [];
  #rate = new Rate();
  #isPaused = false;
  #isEnding = false;
  #key = crypto.randomUUID();

  /**
   * @param {HTMLElement} form
   * @param {NamedFile[]} files
   * @param {() => void} onEnd
   */
  constructor(form, files, onEnd) {
    this.form = form;
    this.words = form.dataset;
    this.onEnd = onEnd;
    this.element = cloneTemplate(form, "[data-batch]");
    this.list = find(this.element, "[data-rows]");
    this.isTogether = form.dataset.corpus !== undefined || (files.length > 1 && this.#option("together") === "true");
    this.isNamed = this.isTogether || files.length === 1;
    this.options = { name: this.#option("name"), encoding: this.#option("encoding"), kind: this.#option("kind") };
    this.rows = files.map((named) => new Row(named, form, this));
    if (this.isTogether && !this.options.name) this.options.name = files[0][0].includes("/") ? files[0][0].split("/")[0] : "";
    find(this.element, "[data-pause-all]").addEventListener("click", () => this.pause());
    find(this.element, "[data-resume-all]").addEventListener("click", () => this.resumeAll());
    find(this.element, "[data-cancel-all]").addEventListener("click", () => this.cancel());
    find(this.element, "[data-again]").addEventListener("click", () => this.#end());
    find(this.element, "[data-total]").hidden = files.length < 2;
    this.#next();
  }

  /** @param {string} name */
  #option(name) {
    const chosen = this.form.querySelector(`[name=${name}]:checked, select[name=${name}], input[type=text][name=${name}]`);
    return chosen instanceof HTMLInputElement || chosen instanceof HTMLSelectElement ? chosen.value : "";
  }

  get isBusy() {
    return this.rows.some(({ upload }) => upload.state === "running" || upload.state === "waiting") || this.#isEnding;
  }

  /** @param {Row} row */
  change(row) {
    const { state } = row.upload;
    if (state === "arrived" && !this.isTogether) this.#createOne(row);
    if (state !== "running") this.#next();
    this.#show();
  }

  /** @param {Row} row */
  resume(row) {
    this.#isPaused = false;
    row.upload.start();
  }

  pause() {
    this.#isPaused = true;
    for (const { upload } of this.rows) if (upload.state === "running") upload.pause();
    this.#show();
  }

  /** Go on with what is paused, or failed when the connection was lost. */
  resumeAll() {
    this.#isPaused = false;
    for (const { upload } of this.rows) if (upload.state === "paused" || upload.state === "failed") upload.state = "waiting";
    this.#next();
  }

  /** The connection is back. */
  reconnect() {
    if (!this.#isPaused && this.rows.some(({ upload }) => upload.state === "failed" && !upload.problem)) this.resumeAll();
  }

  async cancel() {
    this.#isPaused = true;
    this.#remove();
    await Promise.all(this.rows.map(({ upload }) => upload.cancel()));
  }

  /** @param {Row} row */
  leaveOut(row) {
    this.rows = this.rows.filter((other) => other !== row);
    row.element.remove();
    row.upload.cancel();
    if (this.rows.length) this.#next();
    else this.#remove();
    this.#show();
  }

  #remove() {
    this.element.remove();
    this.onEnd();
  }

  #next() {
    const waiting = this.rows.filter(({ upload }) => upload.state === "waiting");
    const numRunning = this.rows.filter(({ upload }) => upload.state === "running").length;
    for (const row of this.#isPaused ? [] : waiting.slice(0, Math.max(0, MAX_PARALLEL - numRunning))) {
      this.list.append(row.element);
      row.upload.start();
    }
    const rest = this.rows.filter(({ upload }) => upload.state !== "arrived");
    for (const row of this.rows) if (row.upload.state === "arrived" && this.rows.length > MAX_NAMES_SHOWN) row.element.remove();
    if (!rest.length && this.rows.length && this.isTogether && !this.#isEnding) this.#end();
  }

  #show() {
    const done = this.rows.reduce((sum, { upload }) => sum + upload.sent, 0);
    const total = this.rows.reduce((sum, { upload }) => sum + upload.file.size, 0);
    const arrived = this.rows.filter(({ upload }) => upload.state === "arrived").length;
    this.#rate.add(done);
    const values = {
      files: number(arrived),
      all: number(this.rows.length),
      done: bytes(done),
      total: bytes(total),
      speed: bytes(this.#rate.value),
      left: span((total - done) / this.#rate.value),
    };
    const numRunning = this.rows.filter(({ upload }) => upload.state === "running").length;
    const sentence = numRunning && this.#rate.value ? this.words.totalSpeed : this.words.totalSent;
    find(this.element, "[data-total-status]").textContent = fill(sentence ?? "", values);
    find(this.element, "[data-total] progress", HTMLProgressElement).value = total ? done / total : 0;
    find(this.element, "[data-pause-all]").hidden = !numRunning;
    find(this.element, "[data-resume-all]").hidden = Boolean(numRunning) || arrived === this.rows.length;
  }

  /** Make a corpus, or a new version of one, of all files. */
  async #end() {
    this.#isEnding = true;
    const error = find(this.element, "[data-batch-error]");
    error.hidden = true;
    find(this.element, "[data-again]").hidden = true;
    try {
      const corpus = await this.#create(this.rows);
      this.#remove(); // nothing keeps the page from being left
      this.#announce(corpus);
      if (this.form.dataset.corpus !== undefined) location.href = `/corpora/${corpus.id}`;
    } catch (problem) {
      error.textContent = problem instanceof Error ? problem.message : "";
      error.hidden = false;
      find(this.element, "[data-again]").hidden = false;
      find(this.element, "[data-total]").hidden = false;
    }
    this.#isEnding = false;
    this.#refresh();
  }

  /** @param {Row} row */
  async #createOne(row) {
    try {
      const corpus = await this.#create([row]);
      row.element.remove();
      this.rows = this.rows.filter((other) => other !== row);
      if (!this.rows.length) this.#remove();
      this.#announce(corpus);
    } catch (problem) {
      const error = find(row.element, ".error");
      error.textContent = problem instanceof Error ? problem.message : "";
      error.hidden = false;
      find(row.element, "[data-abort]").hidden = false;
    }
    this.#refresh();
  }

  /**
   * @param {Row[]} rows
   * @returns {Promise<{ id: string, name: string }>}
   * @throws {Error} with the server's message.
   */
  async #create(rows) {
    const { corpus } = this.form.dataset;
    const uploads = rows.map(({ upload }) => upload.id);
    const url = corpus === undefined ? "/api/v1/corpora/from-uploads" : `/api/v1/corpora/${corpus}/versions`;
    const body = corpus === undefined ? { uploads, ...this.options, name: this.isNamed ? this.options.name : "" } : { uploads };
    const headers = { "Content-Type": "application/json", "Idempotency-Key": `${this.#key}-${uploads[0]}-${uploads.length}` };
    const answer = await call("POST", url, body, { headers }).catch((error) => {
      throw error instanceof TypeError ? new Error(this.words.broken) : error;
    });
    await Promise.all(rows.map(({ upload }) => upload.forget()));
    return answer;
  }

  /** @param {{ id: string, name: string }} corpus which is not read yet */
  #announce(corpus) {
    this.form.dispatchEvent(new CustomEvent("corpus-created", { bubbles: true, detail: corpus }));
  }

  #refresh() {
    if (this.form.dataset.corpus !== undefined) return;
    for (const place of findAll(document, "[data-refresh]")) refresh(place);
  }
}

/** @param {HTMLElement} form */
export function start(form) {
  const place = find(form, "[data-uploads]");
  const note = find(form, "[data-left-out]");
  const words = form.dataset;
  /** @type {Set<Batch>} */
  const batches = new Set();

  /** @param {NamedFile} named */
  function problemOf([path, file]) {
    const name = path.split("/").pop() ?? "";
    const extension = name.includes(".") ? name.split(".").pop()?.toLowerCase() : "";
    if (!words.formats?.split(" ").includes(extension ?? "")) return words.extension;
    if (file.size > Number(words.max)) return words.tooLarge;
    return file.size ? "" : words.empty;
  }

  /** @param {NamedFile[]} files */
  function add(files) {
    const visible = files.filter(([path]) => !path.split("/").pop()?.startsWith("."));
    const refused = visible.filter((named) => problemOf(named));
    const accepted = visible.filter((named) => !problemOf(named)).sort(([one], [other]) => (one < other ? -1 : 1));
    const lines = refused.slice(0, MAX_NAMES_SHOWN).map((named) => `${named[0]}: ${problemOf(named)}`);
    if (refused.length > lines.length) lines.push(fillPlural(words.more, refused.length - lines.length));
    note.replaceChildren(
      ...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line, className: "error" })),
    );
    note.hidden = !lines.length;
    if (!accepted.length) return;
    const batch = new Batch(form, accepted, () => batches.delete(batch));
    batches.add(batch);
    place.append(batch.element);
  }

  find(form, "[data-plain]").hidden = true;
  for (const element of findAll(form, "[data-live]")) element.hidden = false;
  form.classList.add("live");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const input of findAll(form, "input[type=file]")) {
    if (!(input instanceof HTMLInputElement)) continue;
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])];
      input.value = "";
      add(files.map((file) => [file.webkitRelativePath || file.name, file]));
    });
  }
  const folder = find(form, "[data-folder]", HTMLInputElement);
  find(form, "[data-choose-folder]").addEventListener("click", () => folder.click());
  acceptDrops(form, async (data) => add(await filesOf(data)));
  window.addEventListener("online", () => {
    for (const batch of batches) batch.reconnect();
  });
  confirmLeavingWhile(() => [...batches].some((batch) => batch.isBusy));
}

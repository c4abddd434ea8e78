// Uploads corpora that are dropped or chosen: several at once, each with its progress, speed and time left.

import { refresh } from "./refresh.js";
import { cloneTemplate, find } from "./dom.js";
import { bytes, fill, span } from "./format.js";
import { acceptDrops, confirmLeavingWhile, sendFile } from "./transfer.js";

const MAX_PARALLEL = 2;
const UPDATE_INTERVAL_MS = 250;
const SUCCESS_SHOWN_MS = 3000;

/** One file: a row with its progress, first waiting, then sent, then gone or with an error to dismiss. */
class Upload {
  /** @type {HTMLElement} */
  row;
  #abort = new AbortController();

  /**
   * @param {File} file
   * @param {HTMLElement} form
   */
  constructor(file, form) {
    this.file = file;
    this.words = form.dataset;
    this.row = cloneTemplate(form, "[data-upload-row]");
    this.progress = find(this.row, "progress", HTMLProgressElement);
    this.button = find(this.row, "[data-abort]");
    find(this.row, "[data-name]").textContent = file.name;
    this.progress.setAttribute("aria-label", file.name);
    this.button.addEventListener("click", () => this.#cancel());
    this.show(this.words.waiting);
  }

  get isCancelled() {
    return this.#abort.signal.aborted;
  }

  /** @returns {string | undefined} why the server would not take the file */
  get problem() {
    const { file, words } = this;
    const extension = file.name.includes(".") ? file.name.split(".").pop()?.toLowerCase() : "";
    if (!words.formats?.split(" ").includes(extension ?? "")) return words.extension;
    if (file.size > Number(words.max)) return words.tooLarge;
    return file.size ? undefined : words.empty;
  }

  /** @param {string} [text] */
  show(text) {
    find(this.row, "[data-status]").textContent = text ?? "";
  }

  /** @param {string} [message] */
  fail(message) {
    const place = find(this.row, ".error");
    place.textContent = message ?? "";
    place.hidden = false;
    this.show("");
    this.progress.hidden = true;
    if (this.button.lastChild) this.button.lastChild.textContent = this.words.dismiss ?? "";
  }

  #cancel() {
    this.#abort.abort();
    this.row.remove();
  }

  /** @param {URLSearchParams} query */
  async send(query) {
    const url = `/api/v1/corpora?${query}`;
    const options = { progress: this.#meter(), signal: this.#abort.signal, fallback: this.words.broken ?? "" };
    try {
      await sendFile("POST", url, this.file, options);
    } catch (error) {
      return this.fail(error instanceof Error ? error.message : "");
    }
    this.progress.value = 1;
    this.show(this.words.kept);
    this.button.remove();
    setTimeout(() => this.row.remove(), SUCCESS_SHOWN_MS);
  }

  /** @returns {(loaded: number) => void} shows progress, at most every UPDATE_INTERVAL_MS */
  #meter() {
    const started = performance.now();
    const total = this.file.size;
    let shownAt = 0;
    return (loaded) => {
      const now = performance.now();
      if (now - shownAt < UPDATE_INTERVAL_MS && loaded < total) return;
      shownAt = now;
      const speed = (1000 * loaded) / Math.max(1, now - started);
      const values = { done: bytes(loaded), total: bytes(total), speed: bytes(speed), left: span((total - loaded) / speed) };
      this.progress.value = loaded / total;
      this.show(fill(this.words.speed ?? "", values));
    };
  }
}

/** @param {HTMLElement} form */
export function start(form) {
  const input = find(form, "input[type=file]", HTMLInputElement);
  const rows = find(form, "[data-uploads]");
  /** @type {Upload[]} */
  let queue = [];
  let numRunning = 0;

  /** @param {Iterable<File>} files */
  function add(files) {
    for (const file of files) {
      const upload = new Upload(file, form);
      rows.append(upload.row);
      if (upload.problem) upload.fail(upload.problem);
      else queue.push(upload);
    }
    sendNext();
  }

  function sendNext() {
    queue = queue.filter((upload) => !upload.isCancelled);
    while (numRunning < MAX_PARALLEL && queue.length) send(/** @type {Upload} */ (queue.shift()));
  }

  /** @param {Upload} upload */
  async function send(upload) {
    numRunning += 1;
    const encoding = find(form, "[name=encoding]", HTMLSelectElement).value;
    const kind = find(form, "[name=kind]", HTMLSelectElement).value;
    await upload.send(new URLSearchParams({ filename: upload.file.name, encoding, kind }));
    numRunning -= 1;
    refresh(find(document, "[data-refresh]"));
    sendNext();
  }

  find(form, "[data-plain]").hidden = true;
  form.classList.add("live");
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("change", () => {
    add([...(input.files ?? [])]);
    input.value = "";
  });
  acceptDrops(form, (data) => add([...data.files]));
  confirmLeavingWhile(() => numRunning > 0 || queue.length > 0);
}

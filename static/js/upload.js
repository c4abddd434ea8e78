// Uploads corpora by drag and drop or through the file input: several at once, each with progress, speed and the time left.

import { refresh } from "./corpus.js";

const AT_ONCE = 2;
const MOMENT = 250;
const form = document.querySelector("[data-upload]");
const input = form.querySelector("input[type=file]");
const drop = form.querySelector("[data-drop]");
const rows = form.querySelector("[data-uploads]");
const template = form.querySelector("[data-upload-row]");
const words = form.dataset;
const waiting = [];
let running = 0;

const language = document.documentElement.lang;

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes.toLocaleString(language, { maximumFractionDigits: unit ? 1 : 0 })} ${units[unit]}`;
}

function span(seconds) {
  const [value, unit] = seconds < 90 ? [seconds, "second"] : seconds < 5400 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit, maximumFractionDigits: 0 }).format(Math.max(1, value));
}

function fault(file) {
  const extension = file.name.includes(".") ? file.name.split(".").pop().toLowerCase() : "";
  if (!words.formats.split(" ").includes(extension)) return words.extension;
  if (file.size > Number(words.max)) return words.tooLarge;
  return file.size ? "" : words.empty;
}

function fail(row, sentence) {
  const place = row.querySelector(".error");
  place.textContent = sentence;
  place.hidden = false;
  row.querySelector("[data-said]").textContent = "";
  row.querySelector("progress").hidden = true;
  const button = row.querySelector("[data-abort]");
  button.lastChild.textContent = words.dismiss;
  button.onclick = () => row.remove();
}

function add(file) {
  const row = template.content.cloneNode(true).querySelector("li");
  row.querySelector("[data-name]").textContent = file.name;
  row.querySelector("[data-said]").textContent = words.waiting;
  row.querySelector("progress").setAttribute("aria-label", file.name);
  rows.append(row);
  const sentence = fault(file);
  if (sentence) {
    fail(row, sentence);
    return;
  }
  const job = { file, row };
  row.querySelector("[data-abort]").onclick = () => {
    waiting.splice(waiting.indexOf(job), 1);
    row.remove();
  };
  waiting.push(job);
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    send(waiting.shift());
  }
}

function send({ file, row }) {
  const request = new XMLHttpRequest();
  const started = performance.now();
  let drawn = 0;
  request.upload.onprogress = ({ loaded, total }) => {
    const now = performance.now();
    if (now - drawn < MOMENT && loaded < total) return;
    drawn = now;
    const speed = (loaded / Math.max(1, now - started)) * 1000;
    const values = { done: size(loaded), total: size(total), speed: size(speed), left: span((total - loaded) / speed) };
    row.querySelector("progress").value = loaded / total;
    row.querySelector("[data-said]").textContent = words.speed.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  };
  request.onloadend = () => {
    running -= 1;
    finish(request, row);
    next();
  };
  row.querySelector("[data-abort]").onclick = () => {
    request.onloadend = null;
    request.abort();
    row.remove();
    running -= 1;
    next();
  };
  const query = new URLSearchParams({ filename: file.name, encoding: form.elements.encoding.value, kind: form.elements.kind.value });
  request.open("POST", `/api/v1/corpora?${query}`);
  request.responseType = "json";
  request.send(file);
}

function finish(request, row) {
  if (request.status !== 201) {
    fail(row, request.response?.title ?? words.broken);
    return;
  }
  row.querySelector("progress").value = 1;
  row.querySelector("[data-said]").textContent = words.kept;
  row.querySelector("[data-abort]").remove();
  setTimeout(() => row.remove(), 3000);
  refresh(document.querySelector("[data-refresh]"));
}

function take(files) {
  for (const file of files) add(file);
  next();
}

form.querySelector("[data-plain]").hidden = true;
form.classList.add("live");
form.addEventListener("submit", (event) => event.preventDefault());
input.addEventListener("change", () => {
  take([...input.files]);
  input.value = "";
});
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  take([...event.dataTransfer.files]);
});
// A file that misses the zone must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
window.addEventListener("beforeunload", (event) => {
  if (running || waiting.length) event.preventDefault();
});

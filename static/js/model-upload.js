// Uploads a base model: a dropped or chosen folder file by file, or an archive; then has it imported and goes to its page.

import { bytes, fill } from "./format.js";

const place = document.querySelector("[data-model-upload]");
const drop = place.querySelector("[data-drop]");
const row = place.querySelector("[data-row]");
const words = place.dataset;
const PLAIN = /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^(vocab|merges)\.txt$|^(spiece|tokenizer)\.model$|^(chat_template\.jinja|README\.md|LICENSE)$|^[A-Za-z0-9][\w.-]*\.safetensors(\.index\.json)?$/;
const ARCHIVE = /\.(zip|tar|tar\.gz|tgz)$/;
let busy = false;

function fail(sentence) {
  busy = false;
  row.hidden = true;
  place.querySelector("[data-error]").textContent = sentence;
  place.querySelector("[data-error]").hidden = false;
}

async function ask(method, path, body) {
  const options = { method, headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) };
  const answer = await fetch(path, options).catch(() => null);
  const found = await answer?.json().catch(() => null);
  if (!answer?.ok) throw new Error(found?.title ?? words.broken);
  return found;
}

function put(path, file, moved) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded }) => moved(loaded);
    request.onloadend = () => {
      if (request.status === 200) resolve();
      else reject(new Error(request.response?.title ?? words.broken));
    };
    request.open("PUT", path);
    request.responseType = "json";
    request.send(file);
  });
}

// `files` are [name, File]; what belongs to no model is left out and named.
async function take(files, folder) {
  if (busy || !files.length) return;
  const archive = files.length === 1 && ARCHIVE.test(files[0][0]);
  const chosen = archive ? files : files.filter(([name]) => PLAIN.test(name));
  const rest = files.filter((entry) => !chosen.includes(entry)).map(([name]) => name);
  place.querySelector("[data-error]").hidden = true;
  place.querySelector("[data-rest]").hidden = !rest.length;
  place.querySelector("[data-rest]").textContent = fill(words.leftOut, { names: rest.slice(0, 12).join(", ") });
  const total = chosen.reduce((sum, [, file]) => sum + file.size, 0);
  if (!archive && !chosen.some(([name]) => name === "config.json")) return fail(words.unfit);
  if (total > Number(words.max)) return fail(words.tooLarge);
  busy = true;
  row.hidden = false;
  row.querySelector("[data-name]").textContent = folder;
  try {
    const { id } = await ask("POST", "/api/v1/models", { name: folder.slice(0, 120) });
    await send(id, chosen, total);
    await ask("POST", `/api/v1/models/${id}/import`);
    busy = false;
    location.href = `/models/${id}`;
  } catch (error) {
    fail(error.message);
  }
}

async function send(id, files, total) {
  let sent = 0;
  for (const [name, file] of files) {
    const moved = (loaded) => {
      row.querySelector("progress").value = (sent + loaded) / total;
      const values = { name, done: bytes(sent + loaded), total: bytes(total) };
      row.querySelector("[data-said]").textContent = fill(words.sending, values);
    };
    try {
      await put(`/api/v1/models/${id}/files/${encodeURIComponent(name)}`, file, moved);
    } catch (error) {
      await fetch(`/api/v1/models/${id}`, { method: "DELETE" }).catch(() => null);
      throw error;
    }
    sent += file.size;
  }
}

// The files of a dropped folder itself, not of folders inside it.
async function entries(item) {
  const entry = item.webkitGetAsEntry?.();
  if (!entry?.isDirectory) return { folder: "", files: [[item.getAsFile().name, item.getAsFile()]] };
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const found = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!found.length) return { folder: entry.name, files };
    for (const one of found.filter((inner) => inner.isFile)) {
      files.push([one.name, await new Promise((resolve, reject) => one.file(resolve, reject))]);
    }
  }
}

function nameOf(files, folder) {
  if (folder) return folder;
  return files.length === 1 ? files[0][0].replace(ARCHIVE, "") || words.model : words.model;
}

place.hidden = false;
for (const input of place.querySelectorAll("[data-pick]")) {
  input.addEventListener("change", () => {
    const depth = (file) => (file.webkitRelativePath || file.name).split("/").length;
    const files = [...input.files].filter((file) => depth(file) <= 2).map((file) => [file.name, file]);
    const folder = input.files[0]?.webkitRelativePath.split("/")[0] ?? "";
    input.value = "";
    take(files, nameOf(files, folder));
  });
}
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  const found = await Promise.all([...event.dataTransfer.items].filter((item) => item.kind === "file").map(entries));
  const files = found.flatMap((one) => one.files);
  take(files, nameOf(files, found.find((one) => one.folder)?.folder ?? ""));
});
// A file that misses the zone must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
window.addEventListener("beforeunload", (event) => {
  if (busy) event.preventDefault();
});

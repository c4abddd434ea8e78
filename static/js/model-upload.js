// Uploads a base model: a dropped or chosen folder file by file, or an archive; then has it imported and opens its page.

import { call, RequestRefused } from "./api.js";
import { find, findAll } from "./dom.js";
import { bytes, fill, fillPlural } from "./format.js";
import { acceptDrops, confirmLeavingWhile, sendFile } from "./transfer.js";

/** @typedef {[name: string, file: File]} NamedFile */
/** @typedef {{ folder: string, files: NamedFile[] }} Folder */

const MODEL_FILE = new RegExp(
  [
    "^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\\.json$",
    "^(vocab|merges)\\.txt$",
    "^(spiece|tokenizer)\\.model$",
    "^(chat_template\\.jinja|README\\.md|LICENSE)$",
    "^[A-Za-z0-9][\\w.-]*\\.safetensors(\\.index\\.json)?$",
  ].join("|"),
);
const ARCHIVE = /\.(zip|tar|tar\.gz|tgz)$/;
const MAX_NAMES_SHOWN = 12;
const MAX_NAME_LENGTH = 120;

class ModelUpload {
  isBusy = false;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.words = root.dataset;
    this.row = find(root, "[data-row]");
    this.error = find(root, "[data-error]");
  }

  /** @param {string} [message] */
  fail(message) {
    this.isBusy = false;
    this.row.hidden = true;
    this.error.textContent = message ?? "";
    this.error.hidden = false;
  }

  /**
   * Upload what belongs to a model, name what does not, and import it.
   * @param {NamedFile[]} files
   * @param {string} name of the model
   */
  async take(files, name) {
    if (this.isBusy || !files.length) return;
    const isArchive = files.length === 1 && ARCHIVE.test(files[0][0]);
    const accepted = isArchive ? files : files.filter(([filename]) => MODEL_FILE.test(filename));
    const total = accepted.reduce((sum, [, file]) => sum + file.size, 0);
    this.error.hidden = true;
    this.#showLeftOut(files.filter((entry) => !accepted.includes(entry)).map(([filename]) => filename));
    if (!isArchive && !accepted.some(([filename]) => filename === "config.json")) return this.fail(this.words.unfit);
    if (total > Number(this.words.max)) return this.fail(this.words.tooLarge);
    this.isBusy = true;
    this.row.hidden = false;
    find(this.row, "[data-name]").textContent = name;
    try {
      const { id } = await this.#post("/api/v1/models", { name: name.slice(0, MAX_NAME_LENGTH) });
      await this.#send(id, accepted, total);
      await this.#post(`/api/v1/models/${id}/import`);
      this.isBusy = false;
      location.href = `/models/${id}`;
    } catch (error) {
      this.fail(error instanceof Error ? error.message : "");
    }
  }

  /** @param {string[]} names */
  #showLeftOut(names) {
    const place = find(this.root, "[data-rest]");
    place.hidden = !names.length;
    const shown = names.slice(0, MAX_NAMES_SHOWN).join(", ");
    const rest = names.length - MAX_NAMES_SHOWN;
    place.textContent =
      rest > 0 ? fillPlural(this.words.leftOutMore, rest, { names: shown }) : fill(this.words.leftOut ?? "", { names: shown });
  }

  /**
   * @param {string} path
   * @param {object} [body]
   * @returns {Promise<any>} the JSON of the response
   * @throws {Error} with the server's message.
   */
  async #post(path, body) {
    return call("POST", path, body).catch((error) => {
      throw error instanceof RequestRefused ? error : new Error(this.words.broken);
    });
  }

  /**
   * Send the files one after another. If one fails, the model is deleted.
   * @param {string} id
   * @param {NamedFile[]} files
   * @param {number} total in bytes
   */
  async #send(id, files, total) {
    let sent = 0;
    try {
      for (const [name, file] of files) {
        const before = sent;
        const url = `/api/v1/models/${id}/files/${encodeURIComponent(name)}`;
        const progress = (/** @type {number} */ loaded) => this.#show(name, before + loaded, total);
        await sendFile("PUT", url, file, { progress, fallback: this.words.broken ?? "" });
        sent += file.size;
      }
    } catch (error) {
      await fetch(`/api/v1/models/${id}`, { method: "DELETE" }).catch(() => null);
      throw error;
    }
  }

  /**
   * @param {string} name
   * @param {number} done in bytes
   * @param {number} total in bytes
   */
  #show(name, done, total) {
    find(this.row, "progress", HTMLProgressElement).value = done / total;
    const values = { name, done: bytes(done), total: bytes(total) };
    find(this.row, "[data-status]").textContent = fill(this.words.sending ?? "", values);
  }
}

/**
 * The files directly in a dropped folder, not in its subfolders; or a dropped file.
 * @param {DataTransferItem} item
 * @returns {Promise<Folder>}
 */
async function readDropped(item) {
  const entry = item.webkitGetAsEntry();
  const single = item.getAsFile();
  if (!(entry instanceof FileSystemDirectoryEntry)) return { folder: "", files: single ? [[single.name, single]] : [] };
  const reader = entry.createReader();
  /** @type {NamedFile[]} */
  const files = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return { folder: entry.name, files };
    for (const inner of batch.filter((inner) => inner instanceof FileSystemFileEntry)) {
      files.push([inner.name, await new Promise((resolve, reject) => inner.file(resolve, reject))]);
    }
  }
}

/**
 * The files directly in a folder that was chosen, or a chosen archive.
 * @param {File[]} files
 * @returns {Folder}
 */
function readChosen(files) {
  const depth = (/** @type {File} */ file) => (file.webkitRelativePath || file.name).split("/").length;
  return {
    folder: files[0]?.webkitRelativePath.split("/")[0] ?? "",
    files: files.filter((file) => depth(file) <= 2).map((file) => [file.name, file]),
  };
}

/** @param {HTMLElement} root */
export function start(root) {
  const upload = new ModelUpload(root);
  const take = (/** @type {Folder} */ { folder, files }) => {
    const archive = files.length === 1 ? files[0][0].replace(ARCHIVE, "") : "";
    upload.take(files, folder || archive || (root.dataset.model ?? ""));
  };
  root.hidden = false;
  for (const input of findAll(root, "[data-pick]").filter((input) => input instanceof HTMLInputElement)) {
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])];
      input.value = "";
      take(readChosen(files));
    });
  }
  acceptDrops(root, async (data) => {
    const items = [...data.items].filter((item) => item.kind === "file");
    const parts = await Promise.all(items.map(readDropped));
    take({ folder: parts.find(({ folder }) => folder)?.folder ?? "", files: parts.flatMap(({ files }) => files) });
  });
  confirmLeavingWhile(() => upload.isBusy);
}

// Sending files with progress, and zones to drop them on.

import { find } from "./dom.js";

/**
 * Send a file as the body of a request. (fetch reports no progress of what it sends.)
 * @param {string} method
 * @param {string} url
 * @param {File} file
 * @param {{ progress: (bytes: number) => void, signal?: AbortSignal, fallback: string }} options
 *   `fallback` is the message of an error for which the server has none
 * @returns {Promise<any>} the JSON of the response
 * @throws {Error} with the server's message; also when the signal aborts or the connection breaks.
 */
export function sendFile(method, url, file, { progress, signal, fallback }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded }) => progress(loaded);
    request.onloadend = () => {
      if (request.status >= 200 && request.status < 300) resolve(request.response);
      else reject(new Error(request.response?.title ?? fallback));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.open(method, url);
    request.responseType = "json";
    request.send(file);
  });
}

/**
 * Let files be dropped on the [data-drop] in `root`. One that misses it does not replace the page.
 * @param {HTMLElement} root
 * @param {(data: DataTransfer) => void} take
 */
export function acceptDrops(root, take) {
  const zone = find(root, "[data-drop]");
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer) take(event.dataTransfer);
  });
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
}

/** @typedef {[path: string, file: File]} NamedFile */

/**
 * All files that were dropped, also those in folders, with the path from what was dropped.
 * @param {DataTransfer} data
 * @returns {Promise<NamedFile[]>}
 */
export async function filesOf(data) {
  const items = [...data.items].filter((item) => item.kind === "file");
  const loose = items.map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
  const found = await Promise.all(
    loose.map(({ entry, file }) => (entry ? filesIn(entry, "") : file ? [/** @type {NamedFile} */ ([file.name, file])] : [])),
  );
  return found.flat();
}

/**
 * @param {FileSystemEntry} entry
 * @param {string} folder with a slash at its end
 * @returns {Promise<NamedFile[]>}
 */
async function filesIn(entry, folder) {
  if (entry instanceof FileSystemFileEntry) {
    return [[folder + entry.name, await new Promise((resolve, reject) => entry.file(resolve, reject))]];
  }
  if (!(entry instanceof FileSystemDirectoryEntry)) return [];
  const reader = entry.createReader();
  /** @type {NamedFile[]} */
  const files = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return files;
    for (const inner of entries) files.push(...(await filesIn(inner, `${folder}${entry.name}/`)));
  }
}

/**
 * Have the browser ask before it leaves the page while something is being sent.
 * @param {() => boolean} isBusy
 */
export function confirmLeavingWhile(isBusy) {
  window.addEventListener("beforeunload", (event) => {
    if (isBusy()) event.preventDefault();
  });
}

// Uploads the archive of a job with progress, and opens the page of the task that imports it.

import { find } from "./dom.js";
import { bytes, fill } from "./format.js";
import { confirmLeavingWhile, sendFile } from "./transfer.js";

/** @param {HTMLElement} root a form, which works without this script, too */
export function start(root) {
  const row = find(root, "[data-row]");
  const error = find(root, "[data-error]");
  const button = find(root, ".actions button", HTMLButtonElement);
  let isBusy = false;

  root.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = find(root, "input[type=file]", HTMLInputElement).files?.[0];
    if (!file || isBusy) return;
    isBusy = button.disabled = true;
    row.hidden = false;
    error.hidden = true;
    find(row, "[data-name]").textContent = file.name;
    const progress = (/** @type {number} */ done) => {
      find(row, "progress", HTMLProgressElement).value = done / file.size;
      const values = { done: bytes(done), total: bytes(file.size) };
      find(row, "[data-status]").textContent = fill(root.dataset.sending ?? "", values);
    };
    try {
      const url = `/api/v1/jobs/import?filename=${encodeURIComponent(file.name)}`;
      const task = await sendFile("POST", url, file, { progress, fallback: root.dataset.broken ?? "" });
      isBusy = false;
      location.href = `/tasks/${task.id}`;
    } catch (refused) {
      isBusy = button.disabled = false;
      row.hidden = true;
      error.textContent = refused instanceof Error ? refused.message : "";
      error.hidden = false;
    }
  });
  confirmLeavingWhile(() => isBusy);
}

// Corpora that are uploaded in the dialog of the form of a new job: each is selected in the form once it is read.

import { call, RequestRefused } from "./api.js";
import { find } from "./dom.js";
import { fill } from "./format.js";

const POLL_MS = 1000;

/**
 * @param {HTMLElement} form
 * @param {(id?: string) => Promise<void>} update draws the form again, with a corpus selected
 */
export function followUploads(form, update) {
  const dialog = document.getElementById("upload");
  if (!(dialog instanceof HTMLDialogElement)) return;
  dialog.addEventListener("corpus-created", async (event) => {
    const { id, name } = /** @type {CustomEvent<{ id: string, name: string }>} */ (event).detail;
    if (!find(dialog, "[data-uploads]").children.length) dialog.close();
    say("reading", name);
    await update();
    const isReady = await isRead(id);
    await update(isReady ? id : undefined);
    const box = form.querySelector(`[name=corpora][value="${CSS.escape(id)}"]`);
    if (!isReady) say("failed", name, `/corpora/${id}`);
    else say(box instanceof HTMLInputElement && box.checked ? "" : "unfit", name);
  });

  /**
   * @param {string} word "", or the name of a sentence of the template
   * @param {string} name of the corpus
   * @param {string} [href] a page that says more
   */
  function say(word, name, href) {
    const status = find(form, "[data-upload-status]");
    status.textContent = fill(status.dataset[word] ?? "", { name });
    if (href) status.append(" ", Object.assign(document.createElement("a"), { href, textContent: name }));
  }
}

/**
 * Wait until a corpus has been read, and say whether it can be used.
 * @param {string} id
 * @returns {Promise<boolean>}
 */
async function isRead(id) {
  for (;;) {
    try {
      const { state } = await call("GET", `/api/v1/corpora/${id}`);
      if (state !== "parsing") return state === "ready";
    } catch (error) {
      if (error instanceof RequestRefused) return false; // it was deleted
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

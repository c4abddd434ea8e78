// On every page: local times, forms that are not sent twice, dialogs, copy buttons, notices, and the modules that parts of the
// page ask for with <... data-module="name">.

import { start as startCopyButtons } from "./copy.js";
import { closest, findAll } from "./dom.js";
import { follow as followNotices } from "./notices.js";
import { localTimes } from "./times.js";

/** @type {Record<string, () => Promise<{ start: (root: HTMLElement) => void }>>} */
const MODULES = {
  "api-reference": () => import("./api-reference.js"),
  "archive-upload": () => import("./archive-upload.js"),
  chat: () => import("./chat.js"),
  compare: () => import("./compare.js"),
  "corpus-upload": () => import("./corpus-upload.js"),
  "draft-review": () => import("./draft-review.js"),
  inspection: () => import("./inspection.js"),
  job: () => import("./job.js"),
  "job-form": () => import("./job-form.js"),
  "learn-train": () => import("./learn-train.js"),
  "model-upload": () => import("./model-upload.js"),
  "length-cut": () => import("./length-cut.js"),
  "notice-permission": () => import("./notice-permission.js"),
  "record-table": () => import("./record-table.js"),
  refresh: () => import("./refresh.js"),
  playground: () => import("./playground.js"),
  "time-lapse": () => import("./time-lapse.js"),
  "token-colors": () => import("./token-colors.js"),
  "token-compare": () => import("./token-compare.js"),
};

// What was typed into a field of a password can be read: <label hidden><input type="checkbox" data-reveal="id">.
for (const box of findAll(document, "[data-reveal]")) {
  const field = document.getElementById(box.dataset.reveal ?? "");
  if (!(box instanceof HTMLInputElement && box.parentElement && field instanceof HTMLInputElement)) continue;
  box.parentElement.hidden = false;
  box.addEventListener("change", () => {
    field.type = box.checked ? "text" : "password";
  });
}

// A button that opens a dialog: <button data-dialog="id">. Inside the dialog, <button data-close> closes it.
document.addEventListener("click", (event) => {
  const opener = closest(event, "[data-dialog]");
  const dialog = opener && document.getElementById(opener.dataset.dialog ?? "");
  if (dialog instanceof HTMLDialogElement) {
    event.preventDefault();
    dialog.showModal();
  }
  closest(event, "[data-close]")?.closest("dialog")?.close();
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || !(form instanceof HTMLFormElement) || form.method === "dialog") return;
  if (event.submitter?.getAttribute("formtarget") === "_blank") return; // the page stays, and can send something else
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});

// A page restored from the back/forward cache may send its forms again.
window.addEventListener("pageshow", () => {
  for (const form of findAll(document, "form[data-sent]")) delete form.dataset.sent;
});

startCopyButtons(document);
localTimes(document);
if (document.querySelector("[data-unread]")) followNotices();
for (const root of findAll(document, "[data-module]")) {
  const load = MODULES[root.dataset.module ?? ""];
  load?.().then(({ start }) => {
    start(root);
    root.dataset.started = "yes";
  });
}

// On every page: the number of unread notices, and notices as notifications of the browser once the user allows them.
// One page of all that are open follows the stream; the others hear of it. The list of notices shows new ones at once.

import { findAll } from "./dom.js";
import { refresh } from "./refresh.js";

const LOCK = "athanor-notices";

/** @typedef {{ id: string, title: string, text: string, address: string, is_for_browser: boolean, unread: number }} Notice */

/** Whether this browser has notifications for this site, and what the user says to them. */
export function permission() {
  return "Notification" in window && window.isSecureContext ? Notification.permission : "unsupported";
}

/** Follow the notices if the user allows notifications or looks at the list, and if no other page does. */
export function follow() {
  if (permission() !== "granted" && !document.getElementById("notices")) return;
  const others = new BroadcastChannel(LOCK);
  others.onmessage = (event) => show(event.data);
  // The lock is released when the page is closed; then another one follows. Only sites with https have locks.
  if ("locks" in navigator) navigator.locks.request(LOCK, () => new Promise(() => open(others)));
  else open(others);
}

/** @param {BroadcastChannel} others */
function open(others) {
  const source = new EventSource("/notices/events");
  source.addEventListener("notice", (event) => {
    /** @type {Notice} */
    const notice = JSON.parse(event.data);
    show(notice.unread);
    others.postMessage(notice.unread);
    if (notice.is_for_browser && permission() === "granted") notify(notice);
  });
}

/** @param {Notice} notice */
function notify({ id, title, text, address }) {
  const shown = new Notification(title, { body: text, tag: id });
  shown.onclick = () => {
    window.focus();
    location.assign(address);
  };
}

/** @param {number} count of unread notices */
function show(count) {
  for (const place of findAll(document, "[data-unread]")) {
    place.textContent = String(count);
    place.hidden = count === 0;
  }
  const list = document.getElementById("notices");
  if (list) refresh(list);
}

// The card that turns on notifications in this browser. The browser asks only when the button is pressed.

import { find, findAll } from "./dom.js";
import { follow, permission } from "./notices.js";

/** @param {HTMLElement} root */
export function start(root) {
  const button = find(root, "[data-ask]", HTMLButtonElement);
  button.addEventListener("click", async () => {
    await Notification.requestPermission();
    show(root, button);
    follow();
  });
  show(root, button);
}

/**
 * @param {HTMLElement} root
 * @param {HTMLButtonElement} button
 */
function show(root, button) {
  const state = permission();
  for (const place of findAll(root, "[data-permission]")) place.hidden = place.dataset.permission !== state;
  button.disabled = state !== "default";
}

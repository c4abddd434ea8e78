// <button data-copy="id of an element" data-done="Copied">: copies the element's text and says so on the button.

import { closest } from "./dom.js";

/**
 * Put a text on the clipboard. Without a secure connection the browser forbids that: then the text is selected.
 * @param {string} text
 * @param {Node} source the element that shows the text
 * @returns {Promise<boolean>} whether it was copied
 */
export async function copyText(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection()?.selectAllChildren(source);
    return false;
  }
}

/** @param {Document} root */
export function start(root) {
  root.addEventListener("click", async (event) => {
    const button = closest(event, "[data-copy]");
    const source = button && root.getElementById(button.dataset.copy ?? "");
    if (!source || !(await copyText(source.textContent ?? "", source))) return;
    if (button.lastChild) button.lastChild.textContent = button.dataset.done ?? "";
  });
}

// Turns an element into another version of itself that the server has rendered: what did not change keeps its focus,
// its selection and its scroll position. <details id="..."> stay as open as their reader left them, and boxes with
// data-keep as checked, and open dialogs stay open. What an element with data-drawn holds is its script's, and stays.

import { Idiomorph } from "../vendor/idiomorph/idiomorph.esm.js";
import { localTimes } from "./times.js";

/**
 * @param {string} html
 * @returns {Document}
 */
export function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

/**
 * @param {Element} element
 * @param {Element} fresh of another document
 */
export function morph(element, fresh) {
  for (const fold of element.querySelectorAll("details")) {
    const twin = fold.id && fresh.querySelector(`#${CSS.escape(fold.id)}`);
    if (twin instanceof HTMLDetailsElement) twin.open = fold.open || twin.querySelector(".error") !== null;
  }
  for (const box of element.querySelectorAll("input[data-keep]")) {
    const twin = fresh.querySelector(`#${CSS.escape(box.id)}`);
    if (box instanceof HTMLInputElement) twin?.toggleAttribute("checked", box.checked);
  }
  localTimes(fresh);
  const beforeNodeMorphed = (/** @type {Element | Node} */ node) => !(node instanceof Element && node.hasAttribute("data-drawn"));
  const beforeAttributeUpdated = (/** @type {string} */ name, /** @type {Element} */ node) =>
    name !== "data-started" && !(name === "open" && node instanceof HTMLDialogElement);
  Idiomorph.morph(element, fresh, { ignoreActiveValue: true, callbacks: { beforeNodeMorphed, beforeAttributeUpdated } });
}

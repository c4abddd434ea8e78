// The tokens of a text by several tokenizers: the one that is chosen, by mouse or arrow keys, is described below them.

import { find, findAll } from "./dom.js";
import { fillPlural } from "./format.js";
import { TokenStrip } from "./token-strip.js";

/** @param {HTMLElement} root */
export function start(root) {
  for (const box of findAll(root, ".token-row")) {
    const line = find(/** @type {HTMLElement} */ (box.parentElement), "[data-detail-line]");
    new TokenStrip(box, (i) => {
      const { id = "", bytes = "" } = findAll(box, "[role=option]")[i].dataset;
      const text = findAll(box, "[role=option]")[i].textContent?.trim() ?? "";
      line.textContent = fillPlural(root.dataset.detail, Number(bytes), { text, id });
    });
  }
}

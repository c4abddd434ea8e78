// A slider below a histogram of lengths: what a sequence length would cut.

import { find, findAll } from "./dom.js";

/** @param {HTMLElement} root */
export function start(root) {
  const slider = find(root, "input[type=range]", HTMLInputElement);
  const sentences = findAll(root, "[data-length]");
  const bars = [...root.querySelectorAll("rect")];
  const show = () => {
    const chosen = Number(slider.value);
    sentences.forEach((sentence, position) => {
      sentence.hidden = position !== chosen;
    });
    bars.forEach((bar, position) => {
      bar.classList.toggle("cut", position > chosen);
    });
    slider.setAttribute("aria-valuetext", sentences[chosen]?.textContent?.trim() ?? "");
  };
  slider.addEventListener("input", show);
  show();
}

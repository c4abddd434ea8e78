// Parts of a page that the server renders again. A hidden tab asks for nothing.
//   <div id="..." data-module="refresh" data-every="3">   from the page itself, every so many seconds
//   <div data-module="refresh" data-refresh="URL">        from a URL, every second while something in it is [data-busy]
// With data-after="reload" the whole page is loaded again once nothing is busy any more.

import { morph, parse } from "./morph.js";

/** @param {HTMLElement} place */
export function start(place) {
  const { every } = place.dataset;
  setTimeout(async () => {
    if (!document.hidden && (every || place.querySelector("[data-busy]"))) await refresh(place);
    start(place);
  }, 1000 * Number(every ?? 1));
}

/**
 * Render a part again; if the server cannot be reached, leave it as it is, and say so.
 * @param {HTMLElement} place
 */
export async function refresh(place) {
  const { refresh: source, after } = place.dataset;
  const answer = await fetch(source ?? location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  const note = document.querySelector("[data-unreachable]");
  if (note instanceof HTMLElement) note.textContent = answer ? "" : (note.dataset.unreachable ?? "");
  if (!answer?.ok || answer.redirected) return;
  const text = await answer.text();
  const fresh = source ? place.cloneNode(false) : parse(text).getElementById(place.id);
  if (!(fresh instanceof HTMLElement)) return;
  if (source) fresh.innerHTML = text;
  morph(place, fresh);
  if (after === "reload" && !place.querySelector("[data-busy]")) location.reload();
}

// @ts-nocheck
// <div data-refresh="URL">: draws its content again every second while something in it is marked data-busy.
// With data-then="reload" the page is loaded anew once nothing is. A hidden tab asks for nothing.

import { localTimes } from "./times.js";

const SECOND = 1000;

export async function refresh(place) {
  let answer;
  try {
    answer = await fetch(place.dataset.refresh, { headers: { Accept: "text/html" } });
  } catch {
    return; // offline: look again next time
  }
  if (!answer.ok || answer.redirected) return;
  const text = await answer.text();
  if (place.dataset.seen !== text) {
    place.dataset.seen = text;
    place.innerHTML = text;
    localTimes(place);
  }
  if (!place.querySelector("[data-busy]") && place.dataset.then === "reload") location.reload();
}

function follow(place) {
  setTimeout(async () => {
    if (!document.hidden && place.querySelector("[data-busy]")) await refresh(place);
    follow(place);
  }, SECOND);
}

for (const place of document.querySelectorAll("[data-refresh]")) follow(place);

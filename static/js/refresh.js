// @ts-nocheck
// <div data-live="3">: fetches its page again every so many seconds and takes over what changed. Hidden tabs rest.

import { localTimes } from "./times.js";

async function refresh(place, index) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = drawn.querySelectorAll("[data-live]")[index];
  if (!fresh || fresh.innerHTML === place.seen) return;
  place.seen = fresh.innerHTML;
  if (place.contains(document.activeElement)) return keepFocus(place, fresh);
  place.replaceChildren(...fresh.childNodes);
  localTimes(place);
}

// The link that has the focus keeps it when its surroundings are drawn anew.
function keepFocus(place, fresh) {
  const { href } = document.activeElement;
  place.replaceChildren(...fresh.childNodes);
  localTimes(place);
  [...place.querySelectorAll("a")].find((link) => link.href === href)?.focus({ preventScroll: true });
}

function follow(place, index) {
  setTimeout(async () => {
    if (!document.hidden) await refresh(place, index);
    follow(place, index);
  }, 1000 * Number(place.dataset.live));
}

document.querySelectorAll("[data-live]").forEach(follow);

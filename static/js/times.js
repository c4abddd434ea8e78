// Instants in the reader's own time zone.

const language = document.documentElement.lang;
const clock = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const exactClock = new Intl.DateTimeFormat(language, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/**
 * Write each <time datetime="..."> in local time, once; inside [data-exact] to the second.
 * @param {ParentNode} root
 */
export function localTimes(root) {
  for (const element of root.querySelectorAll("time")) {
    const at = new Date(element.dateTime);
    if (element.title || Number.isNaN(at.getTime())) continue;
    element.title = element.dateTime;
    element.textContent = (element.closest("[data-exact]") ? exactClock : clock).format(at);
  }
}

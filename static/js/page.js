// On every page: instants in local time, forms that do not send twice, confirmation dialogs.

const language = document.documentElement.lang;
const clock = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const seconds = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const exactClock = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", ...seconds });

export function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([title])")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    element.title = element.dateTime;
    element.textContent = (element.closest("[data-exact]") ? exactClock : clock).format(at);
  }
}

// A button that opens a dialog: <button data-dialog="id">; inside it, <button data-close> leaves things as they are.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) {
    event.preventDefault();
    document.getElementById(opener.dataset.dialog).showModal();
  }
  event.target.closest("[data-close]")?.closest("dialog")?.close();
});

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "dialog") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});

// A page that comes back from the browser's memory may send its forms again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

localTimes(document);

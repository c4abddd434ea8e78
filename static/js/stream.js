// @ts-nocheck
// One EventSource that survives: it remembers the last event's id, rests while the tab is hidden and says how it is.

const REST_AFTER = 30_000; // a tab hidden this long lets go of its connection
const RETRY_AFTER = 2_000;

export class Stream {
  // handlers: {event name: (data) => void}; tell: (status) => void with live, reconnecting, offline, login or ended
  constructor(url, handlers, tell) {
    Object.assign(this, { url, handlers, tell, last: "", source: null, timer: 0, over: false });
    document.addEventListener("visibilitychange", () => this.#visibility());
    window.addEventListener("online", () => this.#reopen(0));
    window.addEventListener("offline", () => this.tell("offline"));
    this.#open();
  }

  // The subject has come to its end: nothing will follow.
  end() {
    this.over = true;
    this.#close();
    this.tell("ended");
  }

  #open() {
    this.#close();
    if (this.over) return;
    const address = this.last ? `${this.url}?after=${encodeURIComponent(this.last)}` : this.url;
    const source = new EventSource(address);
    this.source = source;
    source.onopen = () => this.tell("live");
    source.onerror = () => this.#broken(source);
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        handle(JSON.parse(event.data));
        this.last = event.lastEventId;
      });
    }
  }

  #close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  #reopen(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#open(), delay);
  }

  async #broken(source) {
    if (source !== this.source) return;
    this.tell(navigator.onLine ? "reconnecting" : "offline");
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    const answer = await fetch("/api/v1/me").catch(() => null);
    if (answer?.status === 401) {
      this.over = true;
      this.tell("login");
    } else {
      this.#reopen(RETRY_AFTER);
    }
  }

  #visibility() {
    clearTimeout(this.timer);
    if (document.hidden) this.timer = setTimeout(() => this.#close(), REST_AFTER);
    else if (this.source?.readyState !== EventSource.OPEN) this.#reopen(0);
  }
}

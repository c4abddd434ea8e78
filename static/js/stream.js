// One EventSource that survives: it remembers the last event's ID, rests while the tab is hidden and reports its state.
// A server that hangs breaks no connection: it is noticed by its silence.

const REST_AFTER = 30_000; // milliseconds in a hidden tab after which the connection is closed
const RETRY_AFTER = 2_000; // milliseconds
const SILENCE = 9_000; // milliseconds without a byte after which a connection is dead: two pings of event_source.py

/** @typedef {"live" | "reconnecting" | "offline" | "login" | "ended"} Status */

export class Stream {
  /**
   * @param {string} url
   * @param {string} cursor the ID of the last event seen; "" for none
   * @param {Record<string, (data: any) => void>} handlers by the name of the event
   * @param {{ status: (status: Status) => void, event: () => void }} listeners told of the connection and of each event
   */
  constructor(url, cursor, handlers, listeners) {
    this.url = url;
    this.cursor = cursor;
    this.handlers = handlers;
    this.listeners = listeners;
    this.timer = 0;
    this.watchdog = 0;
    this.isOver = false;
    /** @type {EventSource | null} */
    this.source = null;
    document.addEventListener("visibilitychange", () => this.#onVisibilityChange());
    window.addEventListener("online", () => this.#reopen(0));
    window.addEventListener("offline", () => this.listeners.status("offline"));
    this.#open();
  }

  // Nothing more will follow.
  end() {
    this.isOver = true;
    this.#close();
    this.listeners.status("ended");
  }

  #open() {
    this.#close();
    if (this.isOver) return;
    const source = new EventSource(this.cursor ? `${this.url}?after=${encodeURIComponent(this.cursor)}` : this.url);
    this.source = source;
    this.#awaitBytes();
    source.onopen = () => {
      this.#awaitBytes();
      this.listeners.status("live");
    };
    source.onerror = () => this.#onError(source);
    source.addEventListener("ping", () => this.#awaitBytes());
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        this.#awaitBytes();
        handle(JSON.parse(event.data));
        this.cursor = event.lastEventId;
        this.listeners.event();
      });
    }
  }

  // Connect anew unless the server sends something in time.
  #awaitBytes() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      this.#tellBroken();
      this.#open();
    }, SILENCE);
  }

  #tellBroken() {
    this.listeners.status(navigator.onLine ? "reconnecting" : "offline");
  }

  #close() {
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    this.source?.close();
    this.source = null;
  }

  /** @param {number} delay in milliseconds */
  #reopen(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#open(), delay);
  }

  /** @param {EventSource} source */
  async #onError(source) {
    if (source !== this.source) return;
    this.#tellBroken();
    if (source.readyState !== EventSource.CLOSED) return; // the browser retries on its own
    clearTimeout(this.watchdog);
    const answer = await fetch("/api/v1/me").catch(() => null);
    const page = await fetch(location.href, { method: "HEAD" }).catch(() => null);
    if (source !== this.source) return; // meanwhile another connection was opened
    if (answer?.status === 401) {
      this.isOver = true;
      this.listeners.status("login");
    } else if (page?.status === 404) {
      location.reload(); // deleted, or no longer shared with this user: the page says so
    } else {
      this.#reopen(RETRY_AFTER);
    }
  }

  #onVisibilityChange() {
    clearTimeout(this.timer);
    if (document.hidden) this.timer = setTimeout(() => this.#close(), REST_AFTER);
    else if (this.source?.readyState !== EventSource.OPEN) this.#reopen(0);
  }
}

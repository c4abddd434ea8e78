// One file that is uploaded by the tus protocol: it can be paused, and goes on where it was after a lost connection, a
// reload of the page, or a restart of the server.

import "../vendor/tus/tus.min.js";
import { call } from "./api.js";

/** @import { DetailedError } from "../vendor/tus/tus.min.js" */

const ENDPOINT = "/api/v1/uploads";
const RETRY_DELAYS_MS = [0, 1000, 3000, 5000, 10000];
const WHOLE_BYTES = 2 ** 20; // files up to this size are sent with the request that announces them

/** @typedef {"waiting" | "running" | "paused" | "failed" | "arrived"} UploadState */

export class ResumableUpload {
  /** @type {UploadState} */
  state = "waiting";
  /** Why it failed, as the server says; empty if there was no answer. */
  problem = "";
  /** Bytes that have arrived. */
  sent = 0;
  #isPrepared = false;

  /**
   * @param {File} file
   * @param {string} path its name, with folders
   * @param {(upload: ResumableUpload) => void} onChange
   */
  constructor(file, path, onChange) {
    this.file = file;
    this.path = path;
    this.onChange = onChange;
    this.upload = new window.tus.Upload(file, {
      endpoint: ENDPOINT,
      metadata: { filename: file.name, relativePath: path },
      retryDelays: RETRY_DELAYS_MS,
      uploadDataDuringCreation: file.size <= WHOLE_BYTES,
      removeFingerprintOnSuccess: false, // until a corpus is made of it
      fingerprint: async () => ["athanor", path, file.size, file.lastModified].join("/"),
      onProgress: (sent) => this.#progress(sent),
      onSuccess: () => this.#become("arrived"),
      onError: (error) => this.#fail(error),
    });
  }

  /** @returns {string} the ID that the server has given it */
  get id() {
    return this.upload.url?.split("/").pop() ?? "";
  }

  /** Begin, or go on. */
  async start() {
    this.#become("running");
    if (!this.#isPrepared) await this.#findEarlier();
    if (this.state === "running") this.upload.start();
  }

  pause() {
    if (this.state === "running") this.upload.abort();
    this.#become("paused");
  }

  /** Delete what has arrived. */
  async cancel() {
    await this.upload.abort(true).catch(() => null);
    await this.forget();
  }

  /** A corpus was made of it, or it is deleted: the next time it is a new upload. */
  async forget() {
    const earlier = await this.upload.findPreviousUploads();
    for (const { urlStorageKey } of earlier) await window.tus.defaultOptions.urlStorage.removeUpload(urlStorageKey);
  }

  async #findEarlier() {
    this.#isPrepared = true;
    for (const earlier of await this.upload.findPreviousUploads()) {
      const isOpen = await call("GET", new URL(earlier.uploadUrl ?? "", location.href).pathname)
        .then((known) => !known.corpus_id)
        .catch(() => false);
      if (isOpen) return this.upload.resumeFromPreviousUpload(earlier);
      await window.tus.defaultOptions.urlStorage.removeUpload(earlier.urlStorageKey);
    }
  }

  /** @param {number} sent */
  #progress(sent) {
    this.sent = sent;
    this.onChange(this);
  }

  /** @param {DetailedError} error */
  #fail(error) {
    try {
      this.problem = JSON.parse(error.originalResponse?.getBody() ?? "").title ?? "";
    } catch {
      this.problem = "";
    }
    this.#become("failed");
  }

  /** @param {UploadState} state */
  #become(state) {
    this.state = state;
    if (state === "arrived") this.sent = this.file.size;
    this.onChange(this);
  }
}

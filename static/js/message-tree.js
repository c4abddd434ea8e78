// The messages of a conversation: a tree in which those below one parent are alternatives.

/** @import { Settings } from "./sampling.js" */

/**
 * @typedef {{
 *   id: string, parent_id: string | null, role: "user" | "assistant", content: string,
 *   model_id?: string | null, model_name?: string | null, settings?: Settings & { temperature?: number | null }, seed?: number | null,
 *   finish_reason?: string | null, num_tokens?: number | null, tokens_per_second?: number | null, tokens?: string,
 * }} Message `tokens` are those of an answer (see token-pack.js), if their probabilities are known, else empty
 */

export class MessageTree {
  /** @type {Map<string, Message>} */
  #byId = new Map();

  /** @param {Message[]} messages the oldest first */
  constructor(messages = []) {
    for (const message of messages) this.add(message);
  }

  /** @param {Message} message */
  add(message) {
    this.#byId.set(message.id, message);
  }

  /** @param {string | null} id */
  get(id) {
    return id === null ? undefined : this.#byId.get(id);
  }

  /**
   * The messages from the first one to a leaf.
   * @param {string | null} leafId
   */
  path(leafId) {
    /** @type {Message[]} */
    const path = [];
    for (let message = this.get(leafId); message; message = this.get(message.parent_id)) path.unshift(message);
    return path;
  }

  /**
   * The alternatives of a message with itself, the oldest first.
   * @param {Message} message
   */
  alternatives({ parent_id }) {
    return [...this.#byId.values()].filter((other) => other.parent_id === parent_id);
  }

  /**
   * The end of the newest branch below a message.
   * @param {Message} message
   * @returns {Message}
   */
  newestLeaf(message) {
    const child = [...this.#byId.values()].findLast((other) => other.parent_id === message.id);
    return child ? this.newestLeaf(child) : message;
  }

  /**
   * Remove a message and what follows it.
   * @param {string} id
   */
  remove(id) {
    for (const message of [...this.#byId.values()]) if (message.parent_id === id) this.remove(message.id);
    this.#byId.delete(id);
  }
}

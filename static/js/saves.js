// @ts-nocheck
// The checkpoints on the page of a job: drawn anew whenever one comes, goes, or is pinned.

import { bytes, fill, number } from "./format.js";

const SHOWN = ["best", "pinned", "regular"]; // reasons to stay that are worth a word: the newest always stay

export class Saves {
  constructor(root, words, changed) {
    Object.assign(this, { list: root.querySelector("[data-checkpoints]"), words, changed, known: [] });
    this.none = root.querySelector("[data-no-checkpoints]");
    this.line = root.querySelector("template[data-checkpoint]").content.firstElementChild;
    this.list.addEventListener("submit", (event) => this.#pin(event));
  }

  show(checkpoints) {
    this.known = checkpoints;
    const old = new Map([...this.list.children].map((line) => [line.dataset.id, line]));
    this.list.replaceChildren(...checkpoints.map((checkpoint) => this.#fill(old.get(checkpoint.id) ?? this.line.cloneNode(true), checkpoint)));
    this.none.hidden = checkpoints.length > 0;
    this.changed(checkpoints);
  }

  #fill(line, { id, step, metrics, num_bytes: size, state, pinned, kept }) {
    Object.assign(line.dataset, { id, state });
    const shown = { step: number(step) };
    const loss = typeof metrics.eval_loss === "number" ? metrics.eval_loss.toFixed(3) : "–";
    const link = line.querySelector("[data-href]");
    link.textContent = fill(this.words.step, shown);
    link.href = `/checkpoints/${id}`;
    line.querySelector("[data-detail]").textContent = `${loss} · ${bytes(size)}`;
    const places = { try: `/playground?checkpoint=${id}`, onward: `/jobs/new?from=${id}`, zip: `/api/v1/checkpoints/${id}/download` };
    for (const [name, href] of Object.entries(places)) {
      const place = line.querySelector(`[data-${name}]`);
      place.href = href;
      place.setAttribute("aria-label", fill(this.words[`${name}_step`], shown));
    }
    line.querySelector("[data-pin]").action = `/checkpoints/${id}/${pinned ? "unpin" : "pin"}`;
    const pin = line.querySelector("[data-pin] button");
    pin.setAttribute("aria-pressed", pinned);
    pin.setAttribute("aria-label", fill(this.words.pin_step, shown));
    const tags = [...(state === "corrupt" ? ["corrupt"] : []), ...SHOWN.filter((word) => kept.includes(word))];
    line.querySelector("[data-tags]").replaceChildren(...tags.map((word) => this.#tag(word)));
    return line;
  }

  #tag(word) {
    const tag = document.createElement("span");
    tag.className = `tag ${word === "corrupt" ? "bad" : word}`;
    tag.textContent = this.words[`kept.${word}`];
    return tag;
  }

  async #pin(event) {
    event.preventDefault();
    const path = new URL(event.target.action).pathname;
    const answer = await fetch(`/api/v1${path}`, { method: "POST" }).catch(() => null);
    if (!answer?.ok) return;
    const changed = await answer.json();
    this.show(this.known.map((checkpoint) => (checkpoint.id === changed.id ? changed : checkpoint)));
  }
}

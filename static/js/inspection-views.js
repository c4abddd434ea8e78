// Views of what a model makes of a text. Each asks for one kind of answer and draws it into its panel.

import { find, findAll } from "./dom.js";
import { fill, fillPlural, measure, number, percent } from "./format.js";
import { TokenStrip, tokenText } from "./token-strip.js";

/**
 * @typedef {{ id: number, text: string, num_bytes: number, is_special: boolean }} Token
 * @typedef {{ id: number, text: string, probability: number }} Prediction
 * @typedef {Token & { log_prob: number | null, rank: number | null, top: Prediction[] }} ScoredToken
 */

const TOP_K = 8;
const MAX_BITS = 14; // of surprise: then a token has the darkest color
const DARKEST = 45; // percent of the accent: text stays readable on it
const SHOWN_NUMBERS = 6; // of a vector

/** @param {number} logProb */
const bitsOf = (logProb) => -logProb / Math.LN2;

export class View {
  /**
   * @param {HTMLElement} panel
   * @param {Record<string, string>} words
   * @param {() => void} ask for an answer anew
   */
  constructor(panel, words, ask) {
    this.panel = panel;
    this.words = words;
    this.ask = ask;
  }

  /**
   * The fields of the request besides the model.
   * @param {string} text
   * @returns {object}
   */
  request(text) {
    return { text };
  }

  /** @param {any} _answer */
  show(_answer) {
    for (const part of findAll(this.panel, "[data-result], [data-table]")) part.hidden = false;
  }

  /** Forget what was chosen for another model. */
  reset() {}

  /** @param {string} [status] empty when nothing is under way */
  say(status) {
    this.panel.ariaBusy = String(Boolean(status));
    find(this.panel, "[data-status]").textContent = status ?? "";
    find(this.panel, "[data-error]").hidden = true;
  }

  /** @param {string} [message] */
  fail(message) {
    this.say("");
    const place = find(this.panel, "[data-error]");
    place.textContent = message ?? "";
    place.hidden = !message;
  }

  /** @param {string} sentence */
  detail(sentence) {
    find(this.panel, "[data-detail]").textContent = sentence;
  }

  /** @param {(string | number)[][]} rows */
  fillTable(rows) {
    const body = find(this.panel, "[data-table] tbody", HTMLTableSectionElement);
    body.replaceChildren();
    for (const [first, ...rest] of rows) {
      const row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = String(first);
      row.append(head);
      for (const value of rest) {
        const cell = row.insertCell();
        cell.className = "number";
        cell.textContent = String(value);
      }
    }
  }
}

/**
 * A list of names with bars and values.
 * @param {HTMLElement} list
 * @param {{ name: string, share: number, value: string }[]} rows `share` from 0 to 1
 */
export function drawBars(list, rows) {
  const items = rows.map(({ name, share, value }) => {
    const item = document.createElement("li");
    const [label, bar, figure] = ["name", "bar", "value"].map((part) => {
      const element = document.createElement("span");
      element.className = part;
      return element;
    });
    label.textContent = name;
    bar.style.setProperty("--share", `${100 * Math.max(0, share)}%`);
    figure.textContent = value;
    item.append(label, bar, figure);
    return item;
  });
  list.replaceChildren(...items);
}

/** @param {Prediction[]} predictions */
const predictionBars = (predictions) =>
  predictions.map(({ text, probability }) => ({ name: tokenText(text), share: probability, value: percent(probability) }));

export class TokenizeView extends View {
  /** @param {{ tokens: Token[] }} answer */
  show(answer) {
    super.show(answer);
    const strip = new TokenStrip(find(this.panel, "[data-tokens]"), (i) => this.#describe(answer.tokens[i]));
    strip.draw(answer.tokens);
    strip.choose(0);
    this.fillTable(answer.tokens.map((token) => [tokenText(token.text), token.id, token.num_bytes]));
  }

  /** @param {Token} token */
  #describe({ text, id, num_bytes, is_special }) {
    const values = { text: tokenText(text), id };
    this.detail(is_special ? fill(this.words.special, values) : fillPlural(this.words.token, num_bytes, values));
  }
}

export class ScoreView extends View {
  /** @param {string} text */
  request(text) {
    const place = find(this.panel, "[data-for-source]");
    const source = place.hidden ? "" : find(place, "[name=source]", HTMLTextAreaElement).value;
    return { text, source, top_k: TOP_K };
  }

  /** @param {{ tokens: ScoredToken[], is_pseudo: boolean }} answer */
  show(answer) {
    super.show(answer);
    const { tokens, is_pseudo } = answer;
    const unscored = is_pseudo ? this.words.unmasked : this.words.unscored;
    const strip = new TokenStrip(find(this.panel, "[data-tokens]"), (i) => this.#describe(tokens[i], unscored));
    strip.draw(tokens, (i) => {
      const logProb = tokens[i].log_prob;
      return logProb === null ? 0 : Math.min(1, bitsOf(logProb) / MAX_BITS) * DARKEST;
    });
    strip.choose(Math.max(0, tokens.findIndex((token) => token.log_prob !== null)));
    this.fillTable(
      tokens.map(({ text, log_prob, rank }) =>
        log_prob === null
          ? [tokenText(text), "–", "–", "–"]
          : [tokenText(text), percent(Math.exp(log_prob)), bitsOf(log_prob).toFixed(2), number(rank)],
      ),
    );
  }

  /**
   * @param {ScoredToken} token
   * @param {string} unscored the sentence for one without figures
   */
  #describe({ text, log_prob, rank, top }, unscored) {
    drawBars(find(this.panel, "[data-bars]"), predictionBars(top));
    const values = { text: tokenText(text), rank: number(rank) };
    if (log_prob === null) this.detail(fill(unscored, values));
    else {
      const figures = { probability: percent(Math.exp(log_prob)), bits: bitsOf(log_prob).toFixed(1) };
      this.detail(fill(this.words.scored, { ...values, ...figures }));
    }
  }
}

export class NeighborsView extends View {
  /** @type {number | null} */
  #position = null;
  #text = "";

  /** @param {string} text */
  request(text) {
    if (text !== this.#text) this.#position = null;
    this.#text = text;
    return { text, position: this.#position, top_k: 12 };
  }

  reset() {
    this.#position = null;
  }

  /**
   * @param {{ tokens: Token[], position: number,
   *   neighbors: { id: number, text: string, similarity: number }[] }} answer
   */
  show(answer) {
    super.show(answer);
    const { tokens, position, neighbors } = answer;
    const strip = new TokenStrip(find(this.panel, "[data-tokens]"), (i) => {
      if (i === position) return;
      this.#position = i;
      this.ask();
    });
    strip.draw(tokens);
    strip.choose(position);
    const { text, id, num_bytes } = tokens[position];
    this.detail(fillPlural(this.words.token, num_bytes, { text: tokenText(text), id }));
    const rows = neighbors.map((row) => ({ name: tokenText(row.text), share: row.similarity, value: row.similarity.toFixed(3) }));
    drawBars(find(this.panel, "[data-bars]"), rows);
  }
}

export class FillMaskView extends View {
  /** @param {string} text */
  request(text) {
    return { text, top_k: TOP_K };
  }

  /** @param {{ tokens: Token[], masks: { position: number, top: Prediction[] }[] }} answer */
  show(answer) {
    super.show(answer);
    const words = answer.tokens.map((token) => (token.is_special ? "" : token.text));
    for (const { position, top } of answer.masks) words[position] = top[0]?.text ?? "";
    const filled = document.createElement("p");
    filled.className = "filled";
    filled.textContent = words.join("").replace(/ ?##/g, "").trim();
    const parts = answer.masks.flatMap(({ top }, i) => {
      const title = document.createElement("h2");
      title.textContent = fill(this.words.mask, { n: i + 1 });
      const list = document.createElement("ol");
      list.className = "bars";
      drawBars(list, predictionBars(top));
      return [title, list];
    });
    find(this.panel, "[data-masks]").replaceChildren(filled, ...parts);
  }
}

export class ClassifyView extends View {
  /** @param {{ labels: { label: string, probability: number }[] }} answer */
  show(answer) {
    super.show(answer);
    const rows = answer.labels.map(({ label, probability }) => ({
      name: label,
      share: probability,
      value: percent(probability),
    }));
    drawBars(find(this.panel, "[data-bars]"), rows);
  }
}

export class EmbedView extends View {
  /** @param {string} text */
  request(text) {
    return { texts: [text, find(this.panel, "[name=other]", HTMLTextAreaElement).value] };
  }

  /** @param {{ embeddings: number[][], similarity: number[][], num_tokens: number[] }} answer */
  show(answer) {
    super.show(answer);
    const lines = answer.embeddings.map((vector, i) => {
      const line = document.createElement("li");
      const values = vector.slice(0, SHOWN_NUMBERS).map((value) => value.toFixed(3));
      const figures = { number: i + 1, size: number(vector.length), values: values.join(", ") };
      line.textContent = fillPlural(this.words.vector, answer.num_tokens[i], figures);
      return line;
    });
    find(this.panel, "[data-vectors]").replaceChildren(...lines);
  }
}

/**
 * What an answer says in figures, by the names that pages use for them.
 * @param {string} task
 * @param {any} answer
 * @returns {Record<string, string>}
 */
export function factsOf(task, answer) {
  return FACTS[task]?.(answer) ?? {};
}

/** @type {Record<string, (answer: any) => Record<string, string>>} */
const FACTS = {
  tokenize: tokenFacts,
  score: scoreFacts,
  attention: ({ tokens, num_layers, num_heads }) => ({
    num_tokens: number(tokens.length),
    num_layers: number(num_layers),
    num_heads: number(num_heads),
    num_maps: number(num_layers * num_heads),
  }),
  neighbors: ({ tokens, position, neighbors, vocab_size, hidden_size }) => ({
    token: tokenText(tokens[position].text),
    id: String(tokens[position].id),
    vocab_size: number(vocab_size),
    hidden_size: number(hidden_size),
    num_weights: number(vocab_size * hidden_size),
    nearest: tokenText(neighbors[0]?.text ?? ""),
    similarity: neighbors[0]?.similarity.toFixed(3) ?? "–",
  }),
  embed: ({ similarity }) => ({ similarity: similarity[0][1]?.toFixed(3) ?? "–" }),
};

/** @param {{ tokens: Token[], vocab_size: number }} answer */
function tokenFacts({ tokens, vocab_size }) {
  const own = tokens.filter((token) => !token.is_special);
  const numBytes = own.reduce((sum, token) => sum + token.num_bytes, 0);
  return {
    num_tokens: number(tokens.length),
    num_bytes: number(numBytes),
    bytes_per_token: own.length ? (numBytes / own.length).toFixed(2) : "–",
    vocab_size: number(vocab_size),
    first: tokenText(own[0]?.text ?? ""),
    first_id: String(own[0]?.id ?? "–"),
  };
}

/** @param {{ tokens: ScoredToken[], num_scored: number, loss: number, perplexity: number, bits_per_byte: number }} answer */
function scoreFacts({ tokens, num_scored, loss, perplexity, bits_per_byte }) {
  return {
    num_scored: number(num_scored),
    num_first: number(tokens.filter(({ rank }) => rank === 1).length),
    loss: measure(loss),
    perplexity: measure(perplexity),
    bits_per_byte: measure(bits_per_byte),
  };
}

// One generation: sends the request and reports what comes back.

import { RequestRefused } from "./api.js";
import { post } from "./sse.js";

/**
 * @typedef {{ id: number, text: string, bytes?: number[], logprob: number }} TokenProbability
 * @typedef {TokenProbability & { top: TokenProbability[] }} GeneratedToken
 * @typedef {{ text: string, num_tokens: number, tokens?: GeneratedToken[] }} Piece
 * @typedef {{ finish_reason: string, num_tokens: number, tokens_per_second: number, seed: number }} Outcome
 * @typedef {{ role: string, content: string }} ChatMessage
 * @typedef {{
 *   checkpoint: string, prompt?: string, messages?: ChatMessage[], prefill?: string, max_tokens?: number, stream: boolean,
 * } & import("./sampling.js").Settings} GenerationRequest
 * @typedef {{
 *   waiting: (message: string) => void,
 *   start: (seed: number) => void,
 *   loading: (percent: number) => void,
 *   piece: (piece: Piece) => void,
 * }} Listener
 */

/**
 * @param {GenerationRequest} request
 * @param {Listener} listener
 * @param {AbortSignal} signal stops the generation
 * @returns {Promise<Outcome>}
 * @throws {RequestRefused} with the server's message; another error if the connection broke or the signal aborted.
 */
export async function generate(request, listener, signal) {
  for await (const { name, data } of post("/api/v1/generate", request, signal)) {
    if (name === "waiting") listener.waiting(data.message);
    else if (name === "start") listener.start(data.seed);
    else if (name === "loading") listener.loading(data.percent);
    else if (name === "piece") listener.piece(data);
    else if (name === "failure") throw new RequestRefused({ title: data.message });
    else if (name === "done") return data;
  }
  throw new TypeError("the stream ended before the text");
}

/**
 * Whether a text ended because the model reads no more tokens.
 * @param {Outcome} outcome
 * @param {number} [maxTokens]
 */
export function isContextFull({ finish_reason, num_tokens }, maxTokens = 0) {
  return finish_reason === "length" && num_tokens < maxTokens;
}

// The tokens of an answer as they are stored with it: JSON of nested lists, with rounded log-probabilities.

/** @import { GeneratedToken, Piece, TokenProbability } from "./generate.js" */

/** @typedef {[id: number, text: string, logprob: number]} PackedProbability */
/** @typedef {[...PackedProbability, top: PackedProbability[]]} PackedToken */
/** @typedef {[text: string, tokens: PackedToken[]]} PackedPiece */

const MAX_LENGTH = 300_000; // MAX_TOKENS_LENGTH of app/conversations/schemas.py
const ROUNDING = 1_000; // of log-probabilities

/**
 * The pieces of a text as a string. Those that no longer fit into the longest one that is stored lose their tokens.
 * @param {Piece[]} pieces
 */
export function packPieces(pieces) {
  let length = JSON.stringify(pieces.map(({ text }) => [text, []])).length;
  const packed = pieces.map(({ text, tokens }) => {
    const packedTokens = (tokens ?? []).map(packToken);
    length += JSON.stringify(packedTokens).length;
    return [text, length <= MAX_LENGTH ? packedTokens : []];
  });
  return JSON.stringify(packed);
}

/**
 * @param {string} packed
 * @returns {Piece[]}
 */
export function unpackPieces(packed) {
  /** @type {PackedPiece[]} */
  const pieces = JSON.parse(packed);
  return pieces.map(([text, tokens]) => ({ text, num_tokens: tokens.length, tokens: tokens.map(unpackToken) }));
}

/** @param {GeneratedToken} token */
function packToken({ top, ...token }) {
  return [...packProbability(token), top.map(packProbability)];
}

/** @param {TokenProbability} token */
function packProbability({ id, text, logprob }) {
  return [id, text, Math.round(logprob * ROUNDING) / ROUNDING];
}

/**
 * @param {PackedToken} token
 * @returns {GeneratedToken}
 */
function unpackToken([id, text, logprob, top]) {
  return { ...unpackProbability([id, text, logprob]), top: top.map(unpackProbability) };
}

/**
 * @param {PackedProbability} token
 * @returns {TokenProbability}
 */
function unpackProbability([id, text, logprob]) {
  return { id, text, logprob };
}

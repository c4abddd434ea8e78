// <element data-module="token-colors" data-tokens="…">: a text that others wrote, with its tokens colored by surprise.

import { unpackPieces } from "./token-pack.js";
import { TokenText } from "./token-text.js";

/** @param {HTMLElement} root */
export function start(root) {
  const text = new TokenText(root, root, null);
  for (const piece of unpackPieces(root.dataset.tokens ?? "[]")) text.append(piece);
  text.flush();
}

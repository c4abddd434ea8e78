// POSTs JSON and yields the server-sent events of the response, which EventSource cannot do.

import { RequestRefused } from "./api.js";

/**
 * @param {string} url
 * @param {object} body
 * @param {AbortSignal} signal ends the request
 * @returns {AsyncGenerator<{ name: string, data: any }>}
 * @throws {RequestRefused} if the response is an error.
 */
export async function* post(url, body, signal) {
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok || !response.body) throw new RequestRefused(await response.json());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop() ?? "";
    for (const message of messages) {
      const event = parse(message);
      if (event) yield event;
    }
  }
}

/** @param {string} message */
function parse(message) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of message.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return fields.data === undefined ? null : { name: fields.event, data: JSON.parse(fields.data) };
}

// JSON requests to the API, and the errors that it answers.

/** @import { FieldError } from "./errors.js" */

/** The server refused a request; `fields` are the errors of its fields. */
export class RequestRefused extends Error {
  /** @param {{ title: string, errors?: FieldError[] }} problem */
  constructor(problem) {
    super(problem.title);
    this.fields = problem.errors ?? [];
  }
}

/**
 * @param {string} method
 * @param {string} url
 * @param {object} [body]
 * @param {RequestInit} [options]
 * @returns {Promise<any>} the JSON of the response, or null if it has none
 * @throws {RequestRefused} if the response is an error; TypeError if there is none.
 */
export async function call(method, url, body, options) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body), ...options });
  if (!response.ok) throw new RequestRefused(await response.json());
  return response.status === 204 ? null : response.json();
}

// The errors of a form, each under its field.

import { findAll } from "./dom.js";

/** @typedef {{ field: string, message: string }} FieldError */

/** @param {HTMLElement} form */
export function clearErrors(form) {
  for (const line of findAll(form, "[data-field] > .error")) line.remove();
  for (const control of findAll(form, "[aria-invalid]")) control.removeAttribute("aria-invalid");
}

/**
 * Replace the errors that a form shows. The field of an error is a `data-field`, or begins with one and a dot.
 * @param {HTMLElement} form
 * @param {FieldError[]} errors
 * @returns {HTMLElement[]} the controls that are marked, in the order of the errors
 */
export function showErrors(form, errors) {
  clearErrors(form);
  return errors.map((error) => showError(form, error)).filter((control) => control !== null);
}

/**
 * @param {HTMLElement} form
 * @param {FieldError} error
 * @returns {HTMLElement | null}
 */
function showError(form, { field, message }) {
  const name = field.split(".")[0];
  const place = findAll(form, "[data-field]").find((element) => element.dataset.field === name);
  if (!place) return null;
  const line = document.createElement("p");
  line.className = "error";
  line.id = `field-${name}-error`;
  line.setAttribute("role", "alert");
  const label = place.querySelector("label, legend")?.textContent?.trim();
  line.textContent = label && message.startsWith(`${name} `) ? label + message.slice(name.length) : message;
  place.append(line);
  place.closest("details")?.setAttribute("open", "");
  const [control] = findAll(place, "input:not([type=radio], [type=checkbox]), select, textarea");
  control?.setAttribute("aria-invalid", "true");
  control?.setAttribute("aria-describedby", `field-${name}-help field-${name}-error`);
  return control ?? null;
}

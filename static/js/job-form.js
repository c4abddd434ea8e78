// The form of a new job. Every change posts it, as submitting would; the server answers with the form, its plan and
// its errors, and the page takes them over.

import { closest, find } from "./dom.js";
import { followUploads } from "./form-uploads.js";
import { morph, parse } from "./morph.js";
import { ProposalCurve } from "./proposal-curve.js";

const DRAFT = "athanor-job-form:"; // and the address: in the session, the controls until the form is sent
const DRAFT_PATH = "/jobs/new"; // other addresses answer a form that was sent
const DELAY = 300; // milliseconds after the last key
const AT_ONCE = "select, [type=radio], [type=checkbox]";

/** @param {HTMLElement} form */
export function start(form) {
  if (!(form instanceof HTMLFormElement)) return;
  let timer = 0;
  let turn = 0; // the answer to an earlier state of the form is dropped
  /** @type {Set<string>} */
  const uploaded = new Set(); // corpora to select with the next answer that is shown
  const curve = new ProposalCurve(form, () => schedule("/jobs/propose", DELAY));

  /**
   * @param {string} path
   * @param {HTMLButtonElement} [button] whose value is sent, too
   */
  async function update(path, button) {
    clearTimeout(timer);
    turn += 1;
    const current = turn;
    const data = new FormData(/** @type {HTMLFormElement} */ (form), button);
    for (const id of uploaded) data.append("corpora", id);
    const html = await post(path, data);
    if (current !== turn) return;
    uploaded.clear();
    show(form, parse(html).getElementById(form.id));
    keep(/** @type {HTMLFormElement} */ (form));
    curve.update();
  }

  /**
   * @param {string} path
   * @param {number} delay in milliseconds
   */
  function schedule(path, delay) {
    clearTimeout(timer);
    turn += 1;
    timer = setTimeout(() => update(path), delay);
  }

  form.addEventListener("input", ({ target }) => {
    const control = /** @type {HTMLInputElement | HTMLSelectElement} */ (target);
    keep(form);
    if (control.name === "proposal_seconds") curve.update();
    schedule(control.name === "proposal_seconds" ? "/jobs/propose" : "/jobs/plan", control.matches(AT_ONCE) ? 0 : DELAY);
  });
  followUploads(form, async (id) => {
    if (id) uploaded.add(id);
    await update("/jobs/plan");
  });
  form.addEventListener("submit", ({ submitter }) => {
    if (submitter?.hasAttribute("formaction")) return;
    clearTimeout(timer);
    turn += 1;
    sessionStorage.removeItem(draftName());
  });
  restore(form).then(() => curve.update());
  form.addEventListener("click", (event) => {
    if (closest(event, "[data-propose]")) update("/jobs/propose");
    if (closest(event, "[data-start-over]")) {
      event.preventDefault();
      sessionStorage.removeItem(draftName());
      location.assign(location.pathname === DRAFT_PATH ? location.pathname + location.search : DRAFT_PATH);
    }
    const fix = closest(event, "[data-fix]");
    if (!(fix instanceof HTMLButtonElement)) return;
    event.preventDefault();
    update(fix.formAction, fix);
  });
}

/**
 * The page that answers a form; an empty string if there is none.
 * @param {string} path
 * @param {FormData | URLSearchParams} data
 * @returns {Promise<string>}
 */
async function post(path, data) {
  const answer = await fetch(path, { method: "POST", body: encode(data) }).catch(() => null);
  return answer?.ok && !answer.redirected ? answer.text() : "";
}

/** @param {FormData | URLSearchParams} data */
function encode(data) {
  return new URLSearchParams(/** @type {[string, string][]} */ ([...data]));
}

function draftName() {
  return DRAFT + location.pathname + location.search;
}

/** @param {HTMLFormElement} form */
function keep(form) {
  if (location.pathname === DRAFT_PATH) sessionStorage.setItem(draftName(), encode(new FormData(form)).toString());
}

/**
 * Fill in what the form held before its page was loaded again, in another language or theme for instance.
 * @param {HTMLFormElement} form
 */
async function restore(form) {
  const draft = sessionStorage.getItem(draftName());
  if (draft !== null) show(form, parse(await post("/jobs/plan", new URLSearchParams(draft))).getElementById(form.id));
}

/**
 * Replace the form by a new one. The previous plan stays, grayed out, until the next one arrives.
 * @param {HTMLElement} form
 * @param {HTMLElement | null} fresh
 */
function show(form, fresh) {
  const figures = form.querySelector("[data-figures]");
  if (!fresh) {
    const note = find(form, "[data-note]");
    note.textContent = note.dataset.away ?? "";
    figures?.classList.add("stale");
    return;
  }
  if (figures && !fresh.querySelector("[data-figures]")) {
    const stale = document.importNode(figures, true);
    stale.classList.add("stale");
    find(fresh, "[data-note]").after(stale);
  }
  morph(form, fresh);
}

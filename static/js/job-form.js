// @ts-nocheck
// The form of a new job: recipes fill the placeholders, every change plans the job anew, errors land on their fields.

import { bytes, compact, number } from "./format.js";

const DELAY = 300;
const form = document.querySelector("[data-job-form]");
const panel = document.querySelector("[data-plan]");
const labels = JSON.parse(panel.dataset.labels);
const parts = ["weights", "gradients", "optimizer", "activations", "logits", "update", "overhead"];
let timer = 0;
let asked = 0;

const origin = form.querySelector("[name=resume_from_checkpoint]"); // its job's spec stands for the recipe
const base = form.querySelector("[name=base_model]"); // with one, its network and tokenizer are given
const networks = JSON.parse(form.querySelector("[data-networks]")?.dataset.networks ?? "{}");
const WORDS = ["name", "sample_prompt", "tokenizer", "base_model", "resume_from_checkpoint"];
const APART = ["name", "tokenizer", "base_model"];

const controls = () => [...form.querySelectorAll("[data-field] :is(input:not([type=radio], [type=checkbox]), select)")];
const recipe = () => origin ?? form.querySelector("[name=recipe]:checked");

function applyRecipe() {
  const chosen = recipe();
  const defaults = JSON.parse(chosen.dataset.defaults);
  for (const control of controls()) {
    if (control.name === "name") control.placeholder = origin ? defaults.name : chosen.value;
    if (!(control.name in defaults) || APART.includes(control.name)) continue;
    showDefault(control, defaults[control.name], panel.dataset.fromRecipe);
  }
  if (base) applyBase(networks[base.value]);
  applyObjective(defaults.objective);
}

// Only the fields that the objective uses are shown, and only corpora that it learns from can be chosen.
const kinds = JSON.parse(form.querySelector("[data-kinds]")?.dataset.kinds ?? "{}");

function applyObjective(objective) {
  for (const place of form.querySelectorAll("[data-used-by]")) {
    place.hidden = !place.dataset.usedBy.split(" ").includes(objective);
  }
  const wanted = kinds[objective];
  if (!wanted) return;
  for (const place of form.querySelectorAll("[data-kind]")) {
    const box = place.querySelector("input");
    const fits = wanted.includes(place.dataset.kind);
    place.classList.toggle("unfit", !fits);
    if (!fits) box.checked = false;
    box.disabled = !fits;
  }
  const line = form.querySelector("[data-wanted]");
  line.textContent = line.dataset.sentence.replace("{kinds}", wanted.join(", "));
}

function showDefault(control, value, sentence) {
  if (control.tagName === "SELECT") control.options[0].textContent = sentence.replace("{value}", value);
  else control.placeholder = value;
  const shown = form.querySelector(`[data-shows="${control.name}"]`);
  if (shown) shown.textContent = control.value || value;
}

function applyBase(network) {
  if (dial) dial.hidden = Boolean(network); // it proposes a network
  const names = [...Object.keys(Object.values(networks)[0] ?? {}), "vocab_size", "tokenizer"];
  for (const control of controls().filter(({ name }) => names.includes(name))) {
    control.disabled = Boolean(network);
    if (!network) continue;
    control.value = "";
    if (control.name === "tokenizer") continue;
    showDefault(control, network[control.name] ?? "–", form.querySelector("[data-networks]").dataset.fromBase);
  }
}

// As app/jobs/views/form.py reads the form: empty means what the recipe says, "auto" means open.
function partialSpec() {
  const spec = origin ? {} : { recipe: recipe().value };
  for (const { name, value } of controls()) {
    const text = value.trim();
    if (!text) continue;
    if (text === "auto") spec[name] = null;
    else if (["true", "false"].includes(text)) spec[name] = text === "true";
    else if (WORDS.includes(name)) spec[name] = text;
    else spec[name] = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : text;
  }
  for (const name of ["corpora", "validation_corpora"]) {
    const chosen = [...form.querySelectorAll(`[name=${name}]:checked`)].map((box) => box.value);
    if (chosen.length) spec[name] = chosen;
  }
  return spec;
}

async function plan() {
  const turn = ++asked;
  const spec = partialSpec();
  const { choose, wrong, away } = panel.dataset;
  if (!spec.corpora && !origin) return note(choose);
  const answer = await fetch("/api/v1/jobs/plan", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(spec),
  }).catch(() => null);
  if (turn !== asked) return;
  const body = await answer?.json().catch(() => null);
  if (answer?.ok) return showPlan(body);
  const errors = body?.errors ?? [];
  showErrors(errors);
  note(!body ? away : errors.length ? wrong : body.title);
}

function note(sentence) {
  panel.querySelector("[data-note]").textContent = sentence;
  panel.querySelector("[data-note]").hidden = !sentence;
  panel.querySelector("[data-figures]").classList.toggle("stale", Boolean(sentence));
}

function showErrors(errors) {
  for (const old of form.querySelectorAll("[data-from-plan]")) old.remove();
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  for (const old of form.querySelectorAll("[data-field] > .error")) old.remove();
  for (const { field, message } of errors) {
    const name = field.split(".")[0];
    const place = form.querySelector(`[data-field="${name === "objective" ? "recipe" : name}"]`);
    if (!place) continue;
    const line = document.createElement("p");
    line.className = "error";
    line.id = `field-${name}-error`;
    line.dataset.fromPlan = "";
    line.textContent = message.startsWith(`${field} `) ? (labels[name] ?? name) + message.slice(field.length) : message;
    place.append(line);
    const control = place.querySelector("input:not([type=radio], [type=checkbox]), select");
    control?.setAttribute("aria-invalid", "true");
    control?.setAttribute("aria-describedby", `field-${name}-help field-${name}-error`);
    place.closest("details")?.setAttribute("open", "");
  }
}

function showPlan(answer) {
  showErrors([]);
  note("");
  const figures = panel.querySelector("[data-figures]");
  figures.hidden = false;
  const values = {
    num_parameters: compact(answer.num_parameters),
    num_tokens: compact(answer.num_tokens),
    num_epochs: answer.num_epochs == null ? "–" : number(Number(answer.num_epochs.toPrecision(2))),
    tokens_per_step: number(answer.tokens_per_step),
    vocab_size: number(answer.vocab_size),
    checkpoint_bytes: bytes(answer.checkpoint_bytes + answer.resume_bytes),
    memory_bytes: bytes(answer.memory_bytes),
    ...Object.fromEntries(parts.map((part) => [`memory.${part}`, bytes(answer.memory[part])])),
  };
  for (const [name, value] of Object.entries(values)) panel.querySelector(`[data-stat="${name}"]`).textContent = value;
  if (base?.value) showDefault(form.querySelector("[name=sequence_length]"), String(answer.spec.sequence_length), "");
  drawMemory(answer);
  showFigures(answer);
  panel.querySelector("[data-reason]").textContent = answer.reason;
  panel.querySelector("[data-reason]").dataset.fits = answer.fits === false ? "no" : "";
}

function showFigures({ figures, notes }) {
  for (const row of panel.querySelectorAll("[data-figure]")) {
    const figure = figures[row.dataset.figure];
    row.hidden = !figure;
    row.querySelector("[data-amount]").textContent = figure?.text ?? "";
    row.querySelector("[data-why]").textContent = figure?.reason ?? "";
  }
  const lines = notes.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  panel.querySelector("[data-notes]").replaceChildren(...lines);
}

function drawMemory({ memory, memory_bytes: total }) {
  let at = 0;
  const bars = parts.map((part) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const width = (1000 * memory[part]) / total;
    for (const [name, value] of Object.entries({ x: at, y: 0, width, height: 12 })) bar.setAttribute(name, value);
    bar.dataset.part = part;
    at += width;
    return bar;
  });
  panel.querySelector("[data-memory]").replaceChildren(...bars);
}

// One dial: a model for the chosen text and a time fills the form, and stays open to change.
const dial = form.querySelector("[data-dial]");

async function propose() {
  const corpora = [...form.querySelectorAll("[name=corpora]:checked")].map((box) => box.value);
  if (!corpora.length) return refuse(dial.dataset.choose);
  const answer = await fetch("/api/v1/jobs/propose", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ corpora, seconds: Number(dial.querySelector("select").value) }),
  }).catch(() => null);
  const body = await answer?.json().catch(() => null);
  if (!answer?.ok) return refuse(body?.title ?? panel.dataset.away);
  refuse("");
  fillIn(body.spec);
  const amounts = { size: compact(body.num_parameters), tokens: compact(body.num_tokens) };
  for (const row of dial.querySelectorAll("[data-proposed]")) {
    const name = row.dataset.proposed;
    row.hidden = false;
    row.querySelector("[data-amount]").textContent = amounts[name] ?? number(body.spec[name]);
    row.querySelector("[data-why]").textContent = body.reasons[name];
  }
  changed();
}

function refuse(sentence) {
  const line = dial.querySelector("[data-dial-error]");
  line.textContent = sentence;
  line.hidden = !sentence;
}

function fillIn(spec) {
  form.querySelector(`[name=recipe][value="${spec.recipe}"]`).checked = true;
  const defaults = JSON.parse(recipe().dataset.defaults);
  for (const control of controls()) {
    if (!(control.name in spec)) continue;
    const text = spec[control.name] == null ? "auto" : String(spec[control.name]);
    const usual = { yes: "true", no: "false" }[defaults[control.name]] ?? defaults[control.name];
    control.value = text === usual ? "" : text;
  }
}

if (dial) {
  dial.hidden = Boolean(base?.value);
  dial.querySelector("[data-propose]").addEventListener("click", propose);
}

function changed() {
  applyRecipe();
  clearTimeout(timer);
  timer = setTimeout(plan, DELAY);
}

panel.hidden = false;
form.addEventListener("input", changed);
applyRecipe();
if (!form.querySelector("[data-field] > .error")) plan();
else note(panel.dataset.wrong);

// The playground: streams a text into the page, keeps those of this visit beside each other, shows the same as a request.

import { Refused, post } from "./sse.js";

const form = document.querySelector("[data-playground]");
const narrow = matchMedia("(max-width: 1080px)");
const apple = /Mac|iPhone|iPad/.test(navigator.platform);

function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function figure(value) {
  return value.toLocaleString(document.documentElement.lang);
}

// ---- what is asked ----

function settings() {
  const { checkpoint, prompt, temperature, top_p, top_k, max_tokens, seed, random_seed, stop } = form.elements;
  return {
    checkpoint: checkpoint.value,
    prompt: prompt.value,
    max_tokens: Number(max_tokens.value),
    temperature: Number(temperature.value),
    top_p: Number(top_p.value),
    top_k: Number(top_k.value),
    seed: random_seed.checked || seed.value === "" ? null : Number(seed.value),
    stop: stop.value.split("\n").filter(Boolean),
    stream: true,
  };
}

function showRequest() {
  const asked = Object.fromEntries(
    Object.entries(settings()).filter(([, value]) => value !== null && value.length !== 0),
  );
  // Inside single quotes of a shell: an apostrophe is written as JSON's escape of it.
  const text = JSON.stringify(asked, null, 1).replace(/\n\s*/g, " ").replaceAll("'", "\\u0027");
  form.querySelector("[data-body]").textContent = text;
}

function showErrors(errors) {
  for (const old of form.querySelectorAll(".field > .error")) old.remove();
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  let first = null;
  for (const { field, message } of errors) {
    const place = form.querySelector(`[data-field="${field.split(".")[0]}"]`);
    if (!place) continue;
    const line = document.createElement("p");
    line.className = "error";
    line.setAttribute("role", "alert");
    line.textContent = message;
    place.append(line);
    const control = place.querySelector("input, select, textarea");
    control.setAttribute("aria-invalid", "true");
    first ??= control;
  }
  if (first) {
    first.closest("details")?.setAttribute("open", "");
    first.focus();
  }
  return first !== null;
}

// ---- one text ----

class Generation {
  constructor(asked) {
    this.asked = asked;
    this.controller = new AbortController();
    this.card = document.getElementById("generation").content.cloneNode(true).querySelector("[data-generation]");
    this.find = (name) => this.card.querySelector(`[data-${name}]`);
    this.find("label").textContent = form.elements.checkpoint.selectedOptions[0].dataset.label;
    this.find("given").textContent = asked.prompt;
    this.find("caret").hidden = false;
    this.tags = [`T ${asked.temperature}`, `p ${asked.top_p}`, `k ${asked.top_k}`];
    this.showTags();
    this.written = this.find("written").appendChild(new Text());
    this.pending = "";
    this.count = 0;
    this.wire();
  }

  get text() {
    return this.asked.prompt + this.written.data;
  }

  wire() {
    this.find("take").addEventListener("click", () => this.copy());
    this.find("continue").addEventListener("click", () => {
      form.elements.prompt.value = this.text;
      form.elements.prompt.focus();
      form.elements.prompt.setSelectionRange(this.text.length, this.text.length);
      form.elements.prompt.scrollTop = form.elements.prompt.scrollHeight;
      grow();
      showRequest();
    });
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text);
      this.find("take").querySelector("span").textContent = form.dataset.copied;
    } catch {
      // Without a secure connection the browser forbids it: select the text, so that Ctrl+C takes it.
      getSelection().selectAllChildren(this.find("text"));
    }
  }

  showTags() {
    this.find("tags").replaceChildren(
      ...this.tags.map((text) => {
        const tag = document.createElement("span");
        tag.className = "tag";
        tag.textContent = text;
        return tag;
      }),
    );
  }

  say(text) {
    this.find("said").textContent = text;
  }

  // Pieces come faster than the screen is drawn: what came since the last frame is put in at once.
  add(data) {
    this.count = data.num_tokens;
    if (!this.pending) requestAnimationFrame(() => this.flush());
    this.pending += data.text;
  }

  flush() {
    if (!this.pending) return;
    this.written.appendData(this.pending);
    this.pending = "";
    if (this.find("caret").hidden) return;
    this.say(""); // the count is not read out: it changes with every frame
    this.find("count").textContent = fill(form.dataset.writing, { n: figure(this.count) });
    const view = this.find("text");
    if (view.scrollHeight - view.scrollTop - view.clientHeight < 80) view.scrollTop = view.scrollHeight;
  }

  end() {
    this.find("caret").hidden = true;
    this.find("count").textContent = "";
    this.flush();
    this.find("actions").hidden = false;
  }

  begin({ seed }) {
    this.say(form.dataset.start);
    this.tags.push(fill(form.dataset.seed, { n: seed }));
    this.showTags();
    // Taking the tick off "random" then keeps the dice of the last text.
    if (form.elements.random_seed.checked) form.elements.seed.value = seed;
  }

  done({ num_tokens, tokens_per_second, finish_reason }) {
    this.find("caret").hidden = true; // a frame that is still to come must not say less than this
    // Fewer than asked for, and yet the length ended it: the model reads no more than its context.
    const full = finish_reason === "length" && num_tokens < this.asked.max_tokens;
    const why = form.dataset[full ? "full" : finish_reason];
    this.say(fill(form.dataset.done, { n: figure(num_tokens), rate: figure(tokens_per_second), why }));
  }

  fail(message) {
    const place = this.find("error");
    place.textContent = message;
    place.hidden = false;
    this.say("");
  }

  async run() {
    let ended = false;
    try {
      for await (const { name, data } of post("/api/v1/generate", this.asked, this.controller.signal)) {
        if (name === "waiting") this.say(data.message);
        if (name === "start") this.begin(data);
        if (name === "piece") this.add(data);
        if (name === "done") this.done(data);
        if (name === "failure") this.fail(data.message);
        ended = name === "done" || name === "failure";
      }
      if (!ended) this.fail(form.dataset.broken);
    } catch (error) {
      this.caught(error);
    }
    this.end();
  }

  caught(error) {
    if (this.controller.signal.aborted) {
      this.say(`${fill(form.dataset.writing, { n: figure(this.count) })} · ${form.dataset.cancelled}`);
    } else if (error instanceof Refused) {
      if (showErrors(error.fields)) this.card.remove();
      else this.fail(error.message);
    } else {
      this.fail(form.dataset.broken);
    }
  }
}

// ---- the page ----

let running = null;

function showBusy(busy) {
  for (const part of form.querySelectorAll("[data-when]")) part.hidden = (part.dataset.when === "busy") !== busy;
  form.querySelector("[data-run]").classList.toggle("primary", !busy);
}

async function generate() {
  showErrors([]);
  form.querySelector("[data-hint]")?.remove();
  running = new Generation(settings());
  form.querySelector("[data-generations]").prepend(running.card);
  if (narrow.matches) running.card.scrollIntoView({ block: "nearest" });
  showBusy(true);
  await running.run();
  running = null;
  showBusy(false);
}

function grow() {
  const { prompt } = form.elements;
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight + 2, innerHeight * 0.4)}px`;
}

function lock() {
  form.elements.seed.disabled = form.elements.random_seed.checked;
}

function start() {
  if (narrow.matches) form.querySelector("[data-settings]").open = false;
  form.noValidate = true; // the server names what is wrong, in the reader's language
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.controller.abort();
    else generate();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) {
      event.preventDefault();
      generate();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) running.controller.abort();
  });
  for (const range of form.querySelectorAll("[data-dial]")) {
    const control = form.elements[range.dataset.dial];
    range.hidden = false;
    range.addEventListener("input", () => (control.value = range.value));
    control.addEventListener("input", () => (range.value = control.value));
  }
  form.addEventListener("input", () => {
    lock();
    showRequest();
  });
  form.elements.prompt.addEventListener("input", grow);
  form.querySelector("[data-keys]").hidden = false;
  if (apple) form.querySelector("[data-keys] kbd").textContent = "⌘";
  lock();
  showRequest();
}

if (form) start();

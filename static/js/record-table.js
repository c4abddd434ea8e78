// A table in which a person writes records. The draft is kept in the browser; saving uploads it as a JSONL file.

import { cloneTemplate, closest, find, findAll } from "./dom.js";
import { fill, fillPlural, number } from "./format.js";

const DELAY = 400; // milliseconds after the last key until the draft is kept

/** @typedef {Record<string, string>} Cells by column */

/** @param {HTMLElement} root */
export function start(root) {
  if (root instanceof HTMLFormElement) new RecordTable(root);
}

class RecordTable {
  #timer = 0;
  #isSaving = false;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.columns = (form.dataset.columns ?? "").split(" ");
    this.key = `athanor-records-${form.dataset.user}-${form.dataset.kind}`;
    this.savedKey = `${this.key}-saved`; // the ID of the corpus that the draft became
    this.body = find(form, "[data-rows]");
    this.count = find(form, "[data-count]");
    form.addEventListener("input", () => this.#changed());
    form.addEventListener("keydown", (event) => this.#press(event));
    form.addEventListener("paste", (event) => this.#paste(event));
    form.addEventListener("click", (event) => this.#click(event));
    form.addEventListener("submit", (event) => this.#save(event));
    this.#open();
  }

  async #open() {
    await this.#forgetSaved();
    for (const cells of this.#draft()) this.#add(cells);
    if (!this.#rows.length) this.#add();
    this.#update();
  }

  // A draft that was saved as a corpus is kept until the corpus is ready: what cannot be read is corrected here.
  async #forgetSaved() {
    const id = localStorage.getItem(this.savedKey);
    const answer = id ? await fetch(`/api/v1/corpora/${id}`).catch(() => null) : null;
    const corpus = answer?.ok ? await answer.json() : null;
    if (!corpus || corpus.state === "parsing") return;
    localStorage.removeItem(this.savedKey);
    if (corpus.state === "ready") localStorage.removeItem(this.key);
  }

  get #rows() {
    return findAll(this.body, "tr");
  }

  /** @returns {Cells[]} */
  #draft() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      return Array.isArray(stored) ? stored : [];
    } catch {
      return [];
    }
  }

  /**
   * @param {HTMLElement} row
   * @returns {Cells}
   */
  #cells(row) {
    return Object.fromEntries(this.columns.map((name) => [name, this.#cell(row, name).value]));
  }

  /**
   * @param {HTMLElement} row
   * @param {string} name
   */
  #cell(row, name) {
    const cell = find(row, `[data-column="${name}"]`);
    if (cell instanceof HTMLTextAreaElement || cell instanceof HTMLSelectElement) return cell;
    throw new Error(`no cell ${name}`);
  }

  // What is chosen from a list has always a value: a row without any text is empty.
  /** @param {HTMLElement} row */
  #isEmpty(row) {
    return findAll(row, "textarea").every((cell) => cell instanceof HTMLTextAreaElement && !cell.value.trim());
  }

  /**
   * @param {Cells} [cells]
   * @param {HTMLElement | null} [after] the row that the new one follows; at the end by default
   */
  #add(cells = {}, after = null) {
    const row = cloneTemplate(this.form, "template[data-row]");
    for (const name of this.columns) if (cells[name]) this.#cell(row, name).value = cells[name];
    if (after) after.after(row);
    else this.body.append(row);
    return row;
  }

  /** @param {HTMLElement} row */
  #remove(row) {
    const neighbor = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    const next = neighbor instanceof HTMLElement ? neighbor : this.#add();
    this.#cell(next, this.columns[0]).focus();
    this.#changed();
  }

  #changed() {
    this.#update();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#keep(), DELAY);
  }

  #keep() {
    localStorage.removeItem(this.savedKey);
    const rows = this.#rows.filter((row) => !this.#isEmpty(row)).map((row) => this.#cells(row));
    if (rows.length) localStorage.setItem(this.key, JSON.stringify(rows));
    else localStorage.removeItem(this.key);
  }

  // Numbers of the rows, names of the cells for screen readers, and how many records are complete.
  #update() {
    this.#rows.forEach((row, i) => {
      find(row, "[data-number]").textContent = number(i + 1);
      for (const name of this.columns) {
        const cell = this.#cell(row, name);
        cell.ariaLabel = `${cell.dataset.title} ${number(i + 1)}`;
      }
    });
    const complete = this.#rows.filter((row) => Object.values(this.#cells(row)).every((text) => text.trim()));
    this.count.textContent = fillPlural(this.count.dataset.words, complete.length);
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const row = closest(event, "tr");
    if (!row || !(event.ctrlKey || event.metaKey)) return;
    if (event.key === "Enter") this.#cell(this.#add({}, row), this.columns[0]).focus();
    else if (event.key === "Backspace" && this.#isEmpty(row)) this.#remove(row);
    else return;
    event.preventDefault();
    this.#changed();
  }

  // Rows of a spreadsheet go into rows of the table, from the cell in which they are pasted.
  /** @param {ClipboardEvent} event */
  #paste(event) {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    const row = closest(event, "tr");
    if (!row || !text.includes("\t")) return;
    event.preventDefault();
    const cell = closest(event, "[data-column]");
    const first = this.columns.indexOf(cell?.dataset.column ?? this.columns[0]);
    let target = row;
    text
      .replace(/\r?\n$/, "")
      .split(/\r?\n/)
      .forEach((line, i) => {
        if (i) target = this.#add({}, target);
        line.split("\t").forEach((value, j) => {
          const name = this.columns[first + j];
          if (name) this.#cell(target, name).value = value;
        });
      });
    this.#changed();
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const row = closest(event, "tr");
    if (closest(event, "[data-remove]") && row) this.#remove(row);
    if (!closest(event, "[data-add]")) return;
    this.#cell(this.#add(), this.columns[0]).focus();
    this.#changed();
  }

  /** @param {SubmitEvent} event */
  async #save(event) {
    event.preventDefault();
    if (this.#isSaving) return;
    const { incomplete, none, saving, away } = this.count.dataset;
    const records = [];
    for (const [i, row] of this.#rows.entries()) {
      const cells = this.#cells(row);
      const isEmpty = this.#isEmpty(row);
      for (const name of this.columns) this.#cell(row, name).removeAttribute("aria-invalid");
      const missing = isEmpty ? undefined : this.columns.find((name) => !cells[name].trim());
      if (missing) {
        const cell = this.#cell(row, missing);
        cell.setAttribute("aria-invalid", "true");
        cell.focus();
        this.#fail(fill(incomplete ?? "", { n: number(i + 1), title: cell.dataset.title }));
        return;
      }
      if (!isEmpty) records.push(this.#record(cells));
    }
    if (!records.length) {
      this.#fail(none ?? "");
      return;
    }
    this.count.textContent = saving ?? "";
    this.#isSaving = true;
    const name = find(this.form, "[name=name]", HTMLInputElement).value;
    const query = new URLSearchParams({ filename: "records.jsonl", name, kind: this.form.dataset.kind ?? "" });
    const body = records.map((record) => `${JSON.stringify(record)}\n`).join("");
    const answer = await fetch(`/api/v1/corpora?${query}`, { method: "POST", body }).catch(() => null);
    const result = await answer?.json().catch(() => null);
    if (!answer?.ok) {
      this.#fail(result?.title ?? away ?? "");
      return;
    }
    clearTimeout(this.#timer);
    this.#keep();
    localStorage.setItem(this.savedKey, result.id);
    location.assign(`/corpora/${result.id}`);
  }

  /** @param {Cells} cells */
  #record(cells) {
    if (this.form.dataset.kind !== "chat") return cells;
    return { messages: this.columns.map((role) => ({ role, content: cells[role] })) };
  }

  /** @param {string} sentence */
  #fail(sentence) {
    this.#isSaving = false;
    const alert = find(this.form, "[data-error]");
    alert.hidden = false;
    find(alert, "p").textContent = sentence;
    this.#update();
  }
}

// The sampling settings of the playground: their controls, presets, and the values of the last visit in this browser.

import { find, findAll } from "./dom.js";

/** @typedef {Record<string, unknown> & { max_tokens?: number, seed?: number | null, stop?: string[] }} Settings */

const LAST = "athanor.sampling"; // of the chat and the completion; other tabs add their name
const OWN = "athanor.presets";
const NUM_ALTERNATIVES = 8; // of each token, where probabilities are shown

export class Sampling {
  /**
   * @param {HTMLElement} root an element with [data-sampling]
   * @param {() => void} [onChange]
   */
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.preset = find(root, "[data-preset]", HTMLSelectElement);
    this.last = root.dataset.sampling ? `${LAST}.${root.dataset.sampling}` : LAST;
    find(root, "[data-presets]").hidden = false;
    this.#connectSliders();
    this.#connectPresets();
    if (!root.querySelector("[aria-invalid]")) this.apply(read(this.last, {}));
    root.addEventListener("input", (event) => {
      if (event.target !== this.preset) this.#changed();
    });
    this.#changed();
  }

  /** What a request takes. @returns {Settings} */
  get values() {
    const entries = this.#numbers().map((input) => [input.name, Number(input.value)]);
    const seed = this.#input("seed").value;
    const isRandom = this.#input("random_seed").checked || seed === "";
    /** @type {Settings} */
    const values = { ...Object.fromEntries(entries), seed: isRandom ? null : Number(seed), stop: this.#lines("stop") };
    if (this.root.querySelector("[name=logit_bias]")) values.logit_bias = this.#biases();
    if (this.#probabilities) values.top_logprobs = this.#probabilities.checked ? NUM_ALTERNATIVES : null;
    return values;
  }

  /** @param {Settings} values of some settings or all */
  apply(values) {
    for (const input of this.#numbers()) if (input.name in values) input.value = String(values[input.name]);
    for (const name of ["stop", "logit_bias"]) {
      const place = this.root.querySelector(`[name=${name}]`);
      if (place instanceof HTMLTextAreaElement && name in values) place.value = lines(values[name]);
    }
    if (this.#probabilities && "top_logprobs" in values) this.#probabilities.checked = values.top_logprobs !== null;
    for (const slider of this.#sliders()) slider.value = this.#input(slider.dataset.slider ?? "").value;
  }

  /**
   * Show the seed of the last text: unchecking "random" then repeats it.
   * @param {number} seed
   */
  keepSeed(seed) {
    if (this.#input("random_seed").checked) this.#input("seed").value = String(seed);
  }

  #changed() {
    this.#input("seed").disabled = this.#input("random_seed").checked;
    write(this.last, this.#stored());
    this.#showPreset();
    this.onChange?.();
  }

  /** The settings without the seed, as they are kept. */
  #stored() {
    const { seed: _seed, ...stored } = this.values;
    return stored;
  }

  // ---- presets ------------------------------------------------------------------------------------------------------

  #connectPresets() {
    const dialog = find(this.root, "[data-preset-dialog]", HTMLDialogElement);
    const name = find(dialog, "[name=preset_name]", HTMLInputElement);
    const confirm = () => {
      if (!name.value.trim()) return name.setAttribute("aria-invalid", "true");
      write(OWN, { ...read(OWN, {}), [name.value.trim()]: this.#stored() });
      dialog.close();
      this.#showPreset();
    };
    this.preset.addEventListener("change", () => {
      this.apply(this.#settingsOf(this.preset.selectedOptions[0]));
      this.#changed();
    });
    find(this.root, "[data-save-preset]").addEventListener("click", () => {
      name.value = "";
      name.removeAttribute("aria-invalid");
      dialog.showModal();
    });
    find(dialog, "[data-confirm-preset]").addEventListener("click", confirm);
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      confirm();
    });
    find(this.root, "[data-delete-preset]").addEventListener("click", () => {
      const { [this.preset.selectedOptions[0]?.label ?? ""]: _deleted, ...kept } = read(OWN, {});
      write(OWN, kept);
      this.#showPreset();
      this.preset.focus();
    });
  }

  /** Select the preset that the settings equal, or none. */
  #showPreset() {
    const own = find(this.preset, "[data-own]", HTMLOptGroupElement);
    own.replaceChildren(...Object.entries(read(OWN, {})).map(([name, settings]) => ownOption(name, settings)));
    own.hidden = !own.children.length;
    const values = this.values;
    const isEqual = (/** @type {HTMLOptionElement} */ option) =>
      Object.entries(this.#settingsOf(option)).every(([key, value]) => lines(values[key]) === lines(value));
    const equal = [...this.preset.options].filter((option) => option.dataset.settings).findLast(isEqual);
    this.preset.value = equal?.value ?? "";
    find(this.preset, "[data-none]", HTMLOptionElement).hidden = equal !== undefined;
    find(this.root, "[data-delete-preset]").hidden = equal?.parentElement !== own;
  }

  /** @param {HTMLOptionElement} [option] @returns {Settings} */
  #settingsOf(option) {
    return JSON.parse(option?.dataset.settings ?? "{}");
  }

  // ---- controls -----------------------------------------------------------------------------------------------------

  #connectSliders() {
    for (const slider of this.#sliders()) {
      const input = this.#input(slider.dataset.slider ?? "");
      slider.hidden = false;
      slider.addEventListener("input", () => {
        input.value = slider.value;
      });
      input.addEventListener("input", () => {
        slider.value = input.value;
      });
    }
  }

  #sliders() {
    return findAll(this.root, "[data-slider]").filter((slider) => slider instanceof HTMLInputElement);
  }

  #numbers() {
    const inputs = findAll(this.root, ".slider input[type=number]");
    return inputs.filter((input) => input instanceof HTMLInputElement);
  }

  /** @param {string} name */
  #input(name) {
    return find(this.root, `[name=${name}]`, HTMLInputElement);
  }

  /** The checkbox for the probabilities of tokens, if the server can give them. */
  get #probabilities() {
    const input = this.root.querySelector("[name=token_probabilities]");
    return input instanceof HTMLInputElement ? input : null;
  }

  /** @param {string} name */
  #lines(name) {
    return find(this.root, `[name=${name}]`, HTMLTextAreaElement).value.split("\n").filter(Boolean);
  }

  #biases() {
    const pairs = this.#lines("logit_bias").map((line) => line.split(":").map((part) => part.trim()));
    return Object.fromEntries(pairs.map(([id, bias]) => [id, Number(bias)]));
  }
}

/**
 * @param {string} name
 * @param {Settings} settings
 */
function ownOption(name, settings) {
  const option = new Option(name, `own ${name}`);
  option.dataset.settings = JSON.stringify(settings);
  return option;
}

/**
 * A setting as the text of its control.
 * @param {unknown} value
 */
function lines(value) {
  if (Array.isArray(value)) return value.join("\n");
  if (typeof value !== "object" || value === null) return String(value);
  const pairs = Object.entries(value).map(([key, part]) => `${key}: ${part}`);
  return pairs.join("\n");
}

/**
 * @param {string} key
 * @param {any} fallback where the browser keeps nothing
 */
function read(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "") ?? fallback;
  } catch {
    return fallback;
  }
}

/**
 * @param {string} key
 * @param {object} value
 */
function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // a browser that keeps nothing: the settings last as long as the page
  }
}

// Numbers, sizes and durations in the page's language, as the server writes them.

const language = document.documentElement.lang;
const grouped = new Intl.NumberFormat(language);
const plurals = new Intl.PluralRules(language);
const UNITS = /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]); // in seconds
const MIN_UNITS = 1.2; // a unit is used from this many of it on

/** @param {number | null} [value] */
export function number(value) {
  return value == null ? "–" : grouped.format(value);
}

/** @param {number | null} [value] */
export function compact(value) {
  if (value == null) return "–";
  for (const [limit, unit] of /** @type {const} */ ([[1e9, "B"], [1e6, "M"], [1e3, "k"]])) {
    if (value >= limit) return `${Number((value / limit).toPrecision(3))} ${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}

/** @param {number | null} [value] */
export function bytes(value) {
  if (value == null) return "–";
  let rest = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (rest < 1024) return unit === "B" ? `${Math.round(rest)} B` : `${rest.toFixed(1)} ${unit}`;
    rest /= 1024;
  }
  return `${rest.toFixed(1)} TiB`;
}

/**
 * A duration in one unit.
 * @param {number | null} [seconds]
 */
export function span(seconds) {
  if (seconds == null) return "–";
  const [unit, size] = unitOf(seconds);
  const count = Math.max(1, Math.round(seconds / size));
  const isChinese = language.startsWith("zh"); // 3 秒, as the server writes it
  const text = new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: isChinese ? "short" : "long" }).format(count);
  return isChinese ? text.replace(/(\d)(?=\D+$)/, "$1 ") : text;
}

/**
 * How long ago an instant was, in one unit.
 * @param {Date} at
 */
export function ago(at) {
  const seconds = Math.max(0, (Date.now() - at.getTime()) / 1000);
  const [unit, size] = unitOf(seconds);
  return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(-Math.round(seconds / size), unit);
}

/** @param {number} seconds */
function unitOf(seconds) {
  return UNITS.find(([, size]) => seconds >= size * MIN_UNITS) ?? UNITS[UNITS.length - 1];
}

/**
 * A value of a curve: four significant digits, or the word for what is not finite.
 * @param {number | string | null} [value]
 */
export function measure(value) {
  if (value == null) return "–";
  if (typeof value === "string") return value;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e4) return compact(value);
  return size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/**
 * A sentence with each {name} replaced by its value.
 * @param {string} sentence
 * @param {Record<string, unknown>} values
 */
export function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_place, name) => String(values[name]));
}

/**
 * A sentence in its form for a number, each {name} replaced by its value; {n} is the number with separators.
 * @param {string | undefined} forms the JSON of plural_forms in app/core/i18n.py
 * @param {number} n
 * @param {Record<string, unknown>} [values]
 */
export function fillPlural(forms, n, values) {
  const { [plurals.select(n)]: form, other } = JSON.parse(forms ?? '{"other": ""}');
  return fill(form ?? other, { n: number(n), ...values });
}

/**
 * A probability in percent, with more digits the rarer it is.
 * @param {number} share from 0 to 1
 */
export function percent(share) {
  const digits = share >= 0.1 ? 0 : share >= 0.001 ? 1 : 3;
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }).format(share);
}

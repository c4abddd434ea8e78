// Numbers, sizes and durations in the page's language, as the server writes them.

const language = document.documentElement.lang;
const grouped = new Intl.NumberFormat(language);
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const THRESHOLD = 1.2; // from this much of a unit on, the unit is used

export function number(value) {
  return value == null ? "–" : grouped.format(value);
}

export function compact(value) {
  if (value == null) return "–";
  for (const [limit, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= limit) return `${Number((value / limit).toPrecision(3))} ${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}

export function bytes(value) {
  if (value == null) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return unit === "B" ? `${Math.round(value)} B` : `${value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

export function span(seconds) {
  if (seconds == null) return "–";
  const [unit, size] = UNITS.find(([, size]) => seconds >= size * THRESHOLD) ?? UNITS.at(-1);
  const count = Math.max(1, Math.round(seconds / size));
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long" }).format(count);
}

// How long ago an instant was, in one unit.
export function ago(at) {
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  const [unit, size] = UNITS.find(([, size]) => seconds >= size * THRESHOLD) ?? UNITS.at(-1);
  return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(-Math.round(seconds / size), unit);
}

// A value of a curve: four digits that matter, the word where it is no finite number.
export function measure(value) {
  if (value == null) return "–";
  if (typeof value === "string") return value;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e4) return compact(value);
  return size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_place, name) => values[name]);
}

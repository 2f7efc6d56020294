// Numbers and times in the page's language, as the server writes them.

const lang = document.documentElement.lang || "en";
const SIZES = ["kilobyte", "megabyte", "gigabyte", "terabyte"];
// A unit is used from two of it on, as on the server.
const DURATIONS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

function unit(value, name, display) {
  const options = { style: "unit", unit: name, unitDisplay: display, maximumFractionDigits: 1 };
  return new Intl.NumberFormat(lang, options).format(value);
}

export function size(bytes) {
  if (bytes < 1000) return unit(bytes, "byte", "long");
  let power = 1;
  while (power < SIZES.length && bytes / 1000 ** power >= 999.95) power += 1;
  // As for five: in German CLDR writes "1 Mbyte" and "5 MB".
  const number = new Intl.NumberFormat(lang, { maximumFractionDigits: 1 });
  return unit(5, SIZES[power - 1], "short").replace("5", number.format(bytes / 1000 ** power));
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [length, name] = DURATIONS.find(([many]) => whole >= 2 * many) ?? DURATIONS.at(-1);
  return unit(Math.floor((whole + Math.floor(length / 2)) / length), name, "long");
}

export function percent(share) {
  return new Intl.NumberFormat(lang, { style: "percent" }).format(Math.floor(share * 100) / 100);
}

// With seconds where one moment is told from the next; short where many stand below each other.
export function moment(date, { precise = false, short = false } = {}) {
  const options = { dateStyle: short ? "medium" : "long", timeStyle: precise ? "medium" : "short" };
  return new Intl.DateTimeFormat(lang === "en" ? "en-GB" : lang, options).format(date);
}

// "{done} of {size}" with these values; a template comes from the page, in its language.
export function fill(template, values) {
  return template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

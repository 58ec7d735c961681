// Numbers, times and names as a person reads them.

export const STATES = ["harmed", "broken", "stale", "unlabelled", "below", "changed", "waiting", "healthy"];

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return "<0.001";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

export const count = (value) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en");

export function percent(share, digits = 0) {
  if (share === null || share === undefined) return "–";
  if (share > 0 && share < 0.001) return "<0.1 %";
  return `${(share * 100).toFixed(share < 0.1 && share > 0 ? Math.max(1, digits) : digits)} %`;
}

export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  const seconds = Math.max(0, ms / 1000);
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

const two = (value) => String(value).padStart(2, "0");

/** A time with its zone: the same on the whole page. */
export function time(ms, zone, { seconds = true } = {}) {
  if (ms === null || ms === undefined) return "–";
  const at = new Date(ms);
  const utc = zone !== "local";
  const get = (part) => (utc ? at[`getUTC${part}`]() : at[`get${part}`]());
  const day = `${get("FullYear")}-${two(get("Month") + 1)}-${two(get("Date"))}`;
  const clock = `${two(get("Hours"))}:${two(get("Minutes"))}${seconds ? `:${two(get("Seconds"))}` : ""}`;
  return `${day} ${clock}`;
}

/** `86400s` as `1 day`; `1000 labels` as it is. */
export function windowName(name) {
  const seconds = /^(\d+(?:\.\d+)?)s$/.exec(name || "");
  if (!seconds) return name ? `last ${name}` : "";
  const n = Number(seconds[1]);
  for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    if (n >= size && n % size === 0) return n === size ? `last ${unit}` : `last ${n / size} ${unit}s`;
  }
  return `last ${n} s`;
}

/** A metric's name in words; validation calls accuracy `correct`. */
export const plain = (name) => (name === "correct" ? "accuracy" : (name || "").replaceAll("_", " "));

/** Rows as CSV; a cell that a spreadsheet would run as a formula is defused. */
export function csv(columns, rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\n");
}

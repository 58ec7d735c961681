// What every page is made of: badges, panels with their four moods, times, copies, dialogs.
import { html, useEffect, useRef, useState } from "./ui.js";
import { csv, duration, time } from "./format.js";
import { now, useLive } from "./live.js";
import { usePlace } from "./url.js";

const SHAPES = {
  harmed: "M8 1.5 15 14H1z",
  broken: "M8 1 15 8 8 15 1 8z",
  below: "M2 4l4 4 3-3 5 6M14 7v4h-4",
  changed: "M1 9c2.5 0 2.5-4 4.7-4S8 11 10.3 11 13 7 15 7",
  healthy: "M3 8.5 6.5 12 13 4.5",
  stale: "M8 3.5V8l3 2",
  unlabelled: "M3 8h10",
  waiting: "M4 8h.1M8 8h.1M12 8h.1",
};
const FILLED = ["harmed", "broken"];
const RINGED = ["stale"];

/** A state as shape, word and colour: any one of the three is enough. */
export function Badge({ state, word }) {
  const filled = FILLED.includes(state);
  return html`<span class="badge ${state}">
    <svg class=${filled ? "filled" : ""} viewBox="0 0 16 16" aria-hidden="true">
      ${RINGED.includes(state) && html`<circle cx="8" cy="8" r="6.5" />`}
      <path d=${SHAPES[state] || SHAPES.waiting} />
    </svg>
    ${word}
  </span>`;
}

/** One panel. Loading, empty, failed and old each look like what they are. */
export function Panel({ id, title, note, data, error, loading, empty, tools, children, wide }) {
  const nothing = !error && !loading && empty;
  return html`<section class="panel ${wide ? "wide" : ""}" id=${id} aria-labelledby=${`${id}-title`} aria-busy=${loading ? "true" : "false"}>
    <header>
      <h2 id=${`${id}-title`} tabindex="-1">${title}</h2>
      ${note && html`<p class="note">${note}</p>`}
      <div class="tools">${tools}</div>
    </header>
    ${error && html`<${Problem} error=${error} kept=${Boolean(data)} />`}
    ${loading && html`<${Loading} />`}
    ${nothing && html`<div class="mood empty">${empty}</div>`}
    ${!loading && !nothing && (data || !error) && children}
  </section>`;
}

export const Loading = () => html`<div class="mood loading" role="status"><span class="bars" aria-hidden="true"><i></i><i></i><i></i></span> Loading …</div>`;

export function Problem({ error, kept }) {
  return html`<div class="mood failed" role="alert">
    <strong>${kept ? "Not renewed:" : "This could not be shown:"}</strong> ${error.message}
    ${kept && " What you see is what was there before."}
  </div>`;
}

/** A time in the page's zone; how long ago by the console's clock on request. */
export function Time({ ms, ago, seconds = true }) {
  const zone = usePlace().query.get("zone");
  useLive(); // ages grow
  if (ms === null || ms === undefined) return html`<span class="muted">–</span>`;
  const iso = new Date(ms).toISOString();
  const absolute = `${time(ms, zone, { seconds })}${zone === "local" ? "" : " UTC"}`;
  return html`<time datetime=${iso} title=${iso}>${ago ? `${duration(now() - ms)} ago` : absolute}</time>`;
}

export function CopyCsv({ columns, rows, what }) {
  const [said, say] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(csv(columns, rows()));
      say("copied");
    } catch {
      say("the browser forbids it");
    }
    setTimeout(() => say(""), 2000);
  };
  return html`<button type="button" class="quiet" onClick=${copy} aria-label=${`Copy ${what} as CSV`}>
    ${said || "Copy CSV"}
  </button>`;
}

export function Choice({ label, value, options, onChange, id }) {
  return html`<label class="choice" for=${id}>
    <span>${label}</span>
    <select id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([key, text]) => html`<option value=${key} selected=${key === value}>${text}</option>`)}
    </select>
  </label>`;
}

/** A modal dialog: the browser keeps the focus in it, Escape closes it. */
export function Dialog({ title, onClose, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    return () => dialog.open && dialog.close();
  }, []);
  return html`<dialog ref=${ref} aria-labelledby="dialog-title" onClose=${onClose} onClick=${(event) => event.target === ref.current && onClose()}>
    <div class="inside">
      <h2 id="dialog-title">${title}</h2>
      ${children}
    </div>
  </dialog>`;
}

/** A tiny line for a table cell; the figures beside it say the same in words. */
export function Spark({ values, low = 0, className = "" }) {
  const known = (values || []).filter((value) => value !== null);
  if (known.length < 2) return html`<span class="muted">–</span>`;
  const top = Math.max(...known, low + 1e-9);
  const bottom = Math.min(...known, low);
  const x = (i) => 1 + (i * 78) / (values.length - 1);
  const y = (value) => 19 - (18 * (value - bottom)) / (top - bottom || 1);
  const path = values.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(value ?? bottom).toFixed(1)}`).join("");
  return html`<svg class="spark ${className}" viewBox="0 0 80 20" preserveAspectRatio="none" aria-hidden="true"><path d=${path} /></svg>`;
}

/** Any value as JSON text. It is set as text, whatever is in it. */
export const Json = ({ value }) => html`<pre class="json" tabindex="0">${typeof value === "string" ? value : JSON.stringify(value, null, 2)}</pre>`;

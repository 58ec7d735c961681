// A metric over time: champion with its band, who ran beside it, baseline, coverage, what happened.
import { html, useCallback, useMemo, useState } from "./ui.js";
import { count, number, percent, plain, time, windowName } from "./format.js";
import { useData } from "./api.js";
import { Chart, span } from "./chart.js";
import { CopyCsv, Panel } from "./parts.js";
import { choose, usePlace } from "./url.js";

const SHADOWS = ["shadow-1", "shadow-2", "shadow-3", "shadow-4"];
const KINDS = { version: ["▼", "version went live"], command: ["◆", "command"], alert: ["▲", "alert opened"], held: ["◇", "retrain held back"] };

export function Quality({ path, window, metric }) {
  const { query } = usePlace();
  const zone = query.get("zone");
  const theme = query.get("theme") || document.documentElement.dataset.theme || "";
  const [at, hover] = useState(null);
  const asked = new URLSearchParams({ window, metric });
  for (const [name, key] of [["start", "from"], ["end", "to"]]) {
    if (query.get(key)) asked.set(name, query.get(key));
  }
  const { data, error, loading } = useData(`${path}/series?${asked}`);
  const series = data?.series;
  const drawn = useMemo(() => (series ? columns(series) : null), [series]);
  const zoom = useCallback((from, to) => choose({ from, to }, { push: true }), []);
  const zoomed = query.get("from") || query.get("to");
  const empty = series && !series.t.length && html`<p>No window of this kind has closed${zoomed ? " in this range" : ""} yet.</p>`;
  const tools = html`
    ${zoomed && html`<button type="button" class="quiet" onClick=${() => choose({ from: null, to: null })}>Whole range</button>`}
    ${series?.t.length > 0 && html`<${CopyCsv} what="quality over time" columns=${["time", "version", metric, "low", "high", "validated", "coverage", "labelled", "predictions"]}
      rows=${() => series.t.map((t, i) => [new Date(t).toISOString(), series.version[i], series.value[i], series.low[i], series.high[i], series.baseline[i], series.coverage[i], series.labelled[i], series.predictions[i]])} />`}`;
  return html`<${Panel} id="quality" wide title=${`${capital(plain(metric)) || "Quality"} over time`} note=${windowName(window)} data=${series} error=${error} loading=${loading} empty=${empty} tools=${tools}>
    ${drawn && html`
      <${Reading} series=${series} metric=${metric} at=${at === null ? null : drawn.at[at]} zone=${zone} markers=${data.markers} />
      <${Chart} data=${drawn.main} lines=${drawn.lines} bands=${[{ series: [3, 2], colour: "band" }]} markers=${data.markers}
        height=${260} zone=${zone} theme=${theme} sync="quality" onZoom=${zoom} onHover=${hover}
        label=${words(series, metric, zone, data.markers)} />
      <p class="under">Label coverage</p>
      <${Chart} data=${drawn.coverage} lines=${[{ label: "coverage", colour: "muted", fill: "fill" }]} range=${[0, 1]} height=${70}
        zone=${zone} theme=${theme} sync="quality" onZoom=${zoom} onHover=${hover} axis=${false}
        label=${`Label coverage, now ${percent(series.coverage.at(-1))}`} />
      <${Legend} series=${series} />
      <details><summary>As a table, and what happened</summary><div class="columns">
        <${Table} series=${series} metric=${metric} zone=${zone} />
        <${Happened} markers=${data.markers} zone=${zone} />
      </div></details>`}
  <//>`;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A line must not run from one version to the next: a hole lies where they meet. */
function holed(series) {
  const at = [];
  series.t.forEach((_, i) => {
    if (i && series.version[i] !== series.version[i - 1]) at.push(null);
    at.push(i);
  });
  return at;
}

function columns(series) {
  const at = holed(series);
  const x = at.map((i, k) => (i === null ? (series.t[at[k - 1]] + series.t[at[k + 1]]) / 2 : series.t[i]) / 1000);
  const pick = (column) => at.map((i) => (i === null ? null : column[i]));
  const lines = [
    { label: "champion", colour: "line", width: 2.5 },
    { label: "low", width: 0 },
    { label: "high", width: 0 },
    { label: "validated", colour: "baseline", width: 1.5, dash: [6, 4] },
    ...series.shadows.map((line, i) => ({ label: `v${line.version} in shadow`, colour: SHADOWS[i % 4], width: 1.5, dash: [2, 3] })),
  ];
  return {
    lines,
    at,
    main: [x, ...[series.value, series.low, series.high, series.baseline, ...series.shadows.map((line) => line.value)].map(pick)],
    coverage: [x, pick(series.coverage)],
  };
}

/** The figures under the pointer, or the newest. */
function Reading({ series, metric, at, zone, markers }) {
  const i = at === null || at >= series.t.length ? series.t.length - 1 : at;
  const near = markers.filter((m) => Math.abs(m.t - series.t[i]) <= (series.t.at(-1) - series.t[0]) / 120);
  return html`<p class="reading">
    <b>${number(series.value[i])}</b>
    <span>${series.low[i] === null ? "" : `95 % ${number(series.low[i])}–${number(series.high[i])}`}</span>
    <span>v${series.version[i]}</span>
    <span>validated ${number(series.baseline[i])}</span>
    <span>${count(series.labelled[i])} of ${count(series.predictions[i])} labelled</span>
    <span class="muted">${time(series.t[i], zone, { seconds: false })}${zone === "local" ? "" : " UTC"}</span>
    ${at !== null && near.slice(0, 2).map((m) => html`<span class="event ${m.kind}">${KINDS[m.kind][0]} ${m.text}</span>`)}
  </p>`;
}

function Legend({ series }) {
  return html`<ul class="legend">
    <li><i class="key line"></i>champion</li><li><i class="key band"></i>95 % interval</li><li><i class="key baseline"></i>validated</li>
    ${series.shadows.slice(0, 4).map((line, i) => html`<li><i class=${`key ${SHADOWS[i]}`}></i>v${line.version} in shadow</li>`)}
    ${Object.entries(KINDS).map(([kind, [sign, text]]) => html`<li><i class=${`sign ${kind}`} aria-hidden="true">${sign}</i>${text}</li>`)}
    <li class="muted">drag to zoom</li>
  </ul>`;
}

function words(series, metric, zone, markers) {
  const known = series.value.filter((v) => v !== null);
  if (!known.length) return `${plain(metric)}: no labelled window`;
  return `${plain(metric)} from ${span(series, zone)}: now ${number(series.value.at(-1))}, between ${number(Math.min(...known))} and ${number(Math.max(...known))}; ${markers.length} events. A table follows.`;
}

const ROWS = 40;

function Table({ series, metric, zone }) {
  const newest = series.t.map((_, i) => i).slice(-ROWS).reverse();
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Quality as a table"><table>
    <caption>${`The newest ${newest.length} of ${count(series.points)} windows`}</caption>
    <thead><tr><th scope="col">Window ends</th><th scope="col">Version</th><th scope="col" class="n">${plain(metric)}</th><th scope="col" class="n">95 %</th><th scope="col" class="n">Labelled</th></tr></thead>
    <tbody>${newest.map((i) => html`<tr><td>${time(series.t[i], zone, { seconds: false })}</td><td>v${series.version[i]}</td><td class="n">${number(series.value[i])}</td>
      <td class="n">${series.low[i] === null ? "–" : `${number(series.low[i])}–${number(series.high[i])}`}</td><td class="n">${percent(series.coverage[i])}</td></tr>`)}</tbody>
  </table></div>`;
}

function Happened({ markers, zone }) {
  if (!markers.length) return html`<p class="muted">Nothing happened in this range.</p>`;
  return html`<ol class="events">${[...markers].reverse().map((m) => html`<li class=${m.kind}><span class="sign" aria-hidden="true">${KINDS[m.kind][0]}</span>
    <span class="hidden">${KINDS[m.kind][1]}: </span>${m.text} <span class="muted">${time(m.t, zone, { seconds: false })}</span></li>`)}</ol>`;
}

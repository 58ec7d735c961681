// One model: verdict, quality, drift, decisions, versions, runs, alerts.
import { html, useEffect } from "./ui.js";
import { duration, number, percent, plain, windowName } from "./format.js";
import { useData } from "./api.js";
import { useLive } from "./live.js";
import { Badge, Choice, Problem, Time } from "./parts.js";
import { choose, usePlace } from "./url.js";
import { AlertList } from "./alerts.js";
import { Decisions } from "./decisions.js";
import { Drift } from "./drift.js";
import { Quality } from "./quality.js";
import { Runs } from "./runs.js";
import { Segments } from "./segments.js";
import { Versions } from "./versions.js";

const PANELS = [["quality", "Quality"], ["drift", "Drift"], ["decisions", "Decisions"], ["versions", "Versions"], ["runs", "Runs"], ["segments", "Segments"], ["alerts", "Alerts"]];

export function Model({ name, session }) {
  const { query } = usePlace();
  const { rows } = useLive();
  const path = `/api/models/${encodeURIComponent(name)}`;
  const { data, error, loading } = useData(path);
  const row = rows.get(name) || data?.row;
  useEffect(() => {
    document.title = `${name} · Driftline`;
  }, [name]);
  if (!row) {
    return html`<div class="head"><h1>${name.slice(0, 200)}</h1></div>
      ${loading && html`<div class="mood loading" role="status"><span class="bars" aria-hidden="true"><i></i><i></i><i></i></span> Loading …</div>`}
      ${error && html`<${Problem} error=${error} />`}`;
  }
  const windows = data?.windows || [];
  const metrics = data?.metrics || [];
  const window = windows.includes(query.get("window")) ? query.get("window") : windows[0] || "";
  const metric = metrics.includes(query.get("metric")) ? query.get("metric") : metrics[0] || "";
  return html`
    <div class="head model">
      <p class="crumb"><a href="/">Fleet</a> /</p>
      <h1>${name}</h1>
      <${Badge} state=${row.state} word=${row.word} />
      ${row.pinned && html`<span class="tag">pinned</span>`}
    </div>
    <p class="verdict ${row.state}" aria-live="polite">${row.sentence}</p>
    ${error && html`<${Problem} error=${error} kept />`}
    <${Facts} row=${row} data=${data} />
    <div class="bar">
      <nav aria-label="On this page">${PANELS.map(([id, text]) => html`<a href=${`#${id}`} onClick=${jump}>${text}</a>`)}</nav>
      ${windows.length > 0 && html`<${Choice} id="window" label="Window" value=${window} options=${windows.map((w) => [w, windowName(w)])} onChange=${(w) => choose({ window: w })} />`}
      ${metrics.length > 0 && html`<${Choice} id="metric" label="Metric" value=${metric} options=${metrics.map((m) => [m, plain(m)])} onChange=${(m) => choose({ metric: m })} />`}
    </div>
    ${data && html`
      <${Quality} path=${path} window=${window} metric=${metric} />
      <${Drift} path=${path} window=${window} />
      <${Decisions} path=${path} />
      <${Versions} name=${name} path=${path} row=${row} session=${session} window=${window} metric=${metric} />
      <${Runs} path=${path} />
      <${Segments} path=${path} window=${window} metric=${metric} spec=${data.spec} />
      <${AlertList} model=${name} id="alerts" title="Alerts" session=${session} />`}
  `;
}

function jump(event) {
  event.preventDefault();
  event.stopPropagation();
  const id = event.target.getAttribute("href").slice(1);
  document.getElementById(id)?.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  document.getElementById(`${id}-title`)?.focus({ preventScroll: true });
}

function Facts({ row, data }) {
  const { figure } = row;
  const facts = [
    ["Live", row.champion === null ? "none" : `version ${row.champion}`, row.challengers.length ? `v${row.challengers.join(", v")} on trial` : row.previous !== null ? `v${row.previous} in shadow` : data?.spec?.task],
    ["Now", figure ? number(figure.value) : "–", figure ? `${plain(figure.name)}${figure.low !== null ? `, 95 % ${number(figure.low)}–${number(figure.high)}` : ""}` : "not measured"],
    ["Validated", number(figure?.baseline), figure?.baseline !== null && figure ? difference(figure) : ""],
    ["Labelled", percent(row.coverage), `${row.labelled.toLocaleString("en")} of ${row.predictions.toLocaleString("en")} in the ${windowName(row.window) || "window"}`],
    ...unseen(data?.newest, figure),
    ["Label delay", data?.delay?.[50] === null || !data ? "–" : `≤ ${duration(data.delay[50] * 1000)}`, data?.delay?.[95] ? `95 % within ${duration(data.delay[95] * 1000)}` : "no label seen since the console started"],
    ["Traffic", data ? `${number(data.rate.predictions)}/s` : "–", data ? `${number(data.rate.labels)} labels/s, last minute` : ""],
  ];
  return html`<dl class="facts">${facts.map(([name, value, more]) => html`<div><dt>${name}</dt><dd>${value}<span>${more}</span></dd></div>`)}
    <div><dt>Window ends</dt><dd class="when"><${Time} ms=${row.as_of_ms} seconds=${false} /><span>heard <${Time} ms=${row.heard_ms} ago /></span></dd></div></dl>`;
}

/** What the metric would be had all labels come, and what it is expected to be without them. */
function unseen(newest, figure) {
  const weighted = figure && newest?.weighted?.[figure.name];
  const expected = figure && newest?.estimate?.metrics[figure.name];
  const range = (m) => (m.low === undefined ? "" : `95 % ${number(m.low)}–${number(m.high)}`);
  return [
    ...(weighted ? [["Had all labels come", number(weighted.value), range(weighted)]] : []),
    ...(expected ? [["Expected without labels", number(expected.value), newest.estimate.reliable ? range(expected) : newest.estimate.reason || "not reliable"]] : []),
  ];
}

function difference({ value, baseline, more_is_better: better }) {
  const by = value - baseline;
  const good = better ? by >= 0 : by <= 0;
  return `${number(Math.abs(by))} ${good ? "better" : "worse"} than validated`;
}

// Every model in one line, the worst first. Rows are drawn as they scroll into sight.
import { html, useEffect, useMemo, useRef, useState } from "./ui.js";
import { STATES, count, number, percent, plain } from "./format.js";
import { useLive } from "./live.js";
import { Badge, CopyCsv, Problem, Spark, Time } from "./parts.js";
import { choose, modelHref, usePlace } from "./url.js";

const PAGE = 60;
const WORDS = {
  harmed: "harmed", broken: "data broken", stale: "stale", unlabelled: "no labels", below: "below validated",
  changed: "inputs changed", waiting: "waiting", healthy: "healthy",
};
const ORDERS = {
  state: (a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state) || a.model.localeCompare(b.model),
  model: (a, b) => a.model.localeCompare(b.model),
  gap: (a, b) => gap(a) - gap(b),
  coverage: (a, b) => (a.coverage ?? 2) - (b.coverage ?? 2),
};

/** How far a figure is from what was validated; negative is worse. */
export function gap({ figure }) {
  if (!figure || figure.baseline === null || figure.baseline === undefined) return 0;
  return (figure.value - figure.baseline) * (figure.more_is_better ? 1 : -1);
}

export function Fleet() {
  const { rows, loaded, mode, reader } = useLive();
  const { query } = usePlace();
  const search = query.get("q") || "";
  const state = query.get("state") || "";
  const order = query.get("sort") || "state";
  const all = useMemo(() => [...rows.values()], [rows]);
  const shown = useMemo(() => {
    const wanted = search.toLowerCase();
    return all
      .filter((row) => (!state || row.state === state) && (!wanted || `${row.model} ${row.owner}`.toLowerCase().includes(wanted)))
      .sort(ORDERS[order] || ORDERS.state);
  }, [all, search, state, order]);
  const totals = useMemo(() => {
    const found = Object.fromEntries(STATES.map((name) => [name, 0]));
    all.forEach((row) => { found[row.state] += 1; });
    return found;
  }, [all]);
  return html`
    <div class="head">
      <h1>Fleet</h1>
      <p class="lead" aria-live="polite">${loaded ? overview(totals, all.length) : ""}</p>
    </div>
    <div class="filters" role="group" aria-label="Filter by state">
      ${STATES.filter((name) => totals[name] || name === state).map((name) => html`
        <button type="button" class="chip" aria-pressed=${state === name ? "true" : "false"} onClick=${() => choose({ state: state === name ? null : name })}>
          <${Badge} state=${name} word=${WORDS[name]} /> <b>${totals[name]}</b>
        </button>`)}
      <label class="search"><span class="hidden">Search models</span>
        <input id="search" type="search" placeholder="Search models  ( / )" value=${search} onInput=${(event) => choose({ q: event.target.value })} />
      </label>
      <${CopyCsv} what="the fleet" columns=${["model", "state", "version", "metric", "value", "low", "high", "validated", "labelled", "predictions"]}
        rows=${() => shown.map((r) => [r.model, r.state, r.champion, r.figure?.name, r.figure?.value, r.figure?.low, r.figure?.high, r.figure?.baseline, r.labelled, r.predictions])} />
    </div>
    ${!loaded && mode === "lost" && html`<${Problem} error=${{ message: "the console does not answer; is `driftline console` still running?" }} />`}
    ${!loaded && mode !== "lost" && html`<div class="mood loading" role="status"><span class="bars" aria-hidden="true"><i></i><i></i><i></i></span> Loading the fleet …</div>`}
    ${loaded && !all.length && html`<${Nothing} reader=${reader} />`}
    ${loaded && all.length > 0 && !shown.length && html`<div class="mood empty">No model fits. <button type="button" class="quiet" onClick=${() => choose({ q: null, state: null })}>Show all ${all.length}</button></div>`}
    ${shown.length > 0 && html`<${Rows} rows=${shown} order=${order} key=${`${state}|${search}|${order}`} />`}
  `;
}

function overview(totals, n) {
  if (!n) return "";
  const bad = totals.harmed + totals.broken;
  const models = n === 1 ? "1 model" : `${count(n)} models`;
  if (bad) return `${bad} of ${models} ${bad === 1 ? "needs" : "need"} attention.`;
  if (totals.stale) return `${models}; ${totals.stale} went silent.`;
  return `${models}, nothing needs attention.`;
}

function Nothing({ reader }) {
  if (reader?.state === "away") {
    return html`<div class="mood failed" role="alert"><strong>Kafka is away:</strong> ${reader.problem}</div>`;
  }
  return html`<div class="mood empty">
    <p><strong>No models yet.</strong> Register one, or see the loop at work:</p>
    <pre>driftline models add churn.toml --data history.csv${"\n"}driftline demo</pre>
  </div>`;
}

function Rows({ rows, order }) {
  const [many, more] = useState(PAGE);
  const end = useRef(null);
  useEffect(() => {
    if (!end.current) return undefined;
    const seen = new IntersectionObserver((entries) => entries[0].isIntersecting && more((n) => n + PAGE), { rootMargin: "400px" });
    seen.observe(end.current);
    return () => seen.disconnect();
  }, [many < rows.length]);
  const heading = (key, text, className = "") => html`<th scope="col" class=${className} aria-sort=${order === key ? "ascending" : "none"}>
    <button type="button" onClick=${() => choose({ sort: key === "state" ? null : key })}>${text}<span aria-hidden="true">${order === key ? " ↓" : ""}</span></button></th>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Models"><table class="fleet" data-rows data-cards>
    <thead><tr>
      ${heading("model", "Model")}${heading("state", "State")}
      <th scope="col">Live</th>${heading("gap", "Now, against validated")}
      <th scope="col" class="trend">Trend</th>
      ${heading("coverage", "Labelled")}<th scope="col">Measured</th>
    </tr></thead>
    <tbody>${rows.slice(0, many).map((row) => html`<${Row} key=${row.model} row=${row} />`)}</tbody>
  </table>
  ${many < rows.length && html`<p class="more" ref=${end}><button type="button" class="quiet" onClick=${() => more((n) => n + PAGE)}>Show more of ${count(rows.length)}</button></p>`}
  </div>`;
}

function Row({ row }) {
  const { figure } = row;
  return useMemo(() => html`<tr class=${row.state}>
    <th scope="row"><a href=${modelHref(row.model)}>${row.model}</a><span class="sub">${row.sentence}</span></th>
    <td data-label="State"><${Badge} state=${row.state} word=${row.word} /></td>
    <td data-label="Live">${row.champion === null ? "–" : `v${row.champion}`}${row.challengers.length > 0 && html` <span class="tag">trial v${row.challengers.join(", v")}</span>`}${row.pinned && html` <span class="tag">pinned</span>`}${row.previous !== null && html` <span class="tag">probation</span>`}</td>
    <td data-label="Now">${figure ? html`<span class="figure"><b>${number(figure.value)}</b> <span class="muted">${figure.low !== null && `${number(figure.low)}–${number(figure.high)}`}</span></span>
      <span class="sub">${plain(figure.name)}, validated ${number(figure.baseline)}</span>` : html`<span class="muted">not measured</span>`}</td>
    <td class="trend"><${Spark} values=${row.trend} low=${Math.min(...(row.trend || [0]))} /></td>
    <td data-label="Labelled">${percent(row.coverage)} <span class="sub">of ${count(row.predictions)}</span></td>
    <td data-label="Measured"><${Time} ms=${row.heard_ms} ago /></td>
  </tr>`, [row]);
}

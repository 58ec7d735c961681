// Training attempts: one as a card, two side by side.
import { html } from "./ui.js";
import { count, duration, number, percent, plain, time } from "./format.js";
import { useData } from "./api.js";
import { Dialog, Panel, Problem, Time } from "./parts.js";
import { choose, usePlace } from "./url.js";

export function Runs({ path }) {
  const { query } = usePlace();
  const { data, error, loading } = useData(`${path}/runs`, { everyMs: 5000 });
  const open = Number(query.get("run")) || null;
  const [a, b] = (query.get("compare") || "").split(",").map(Number);
  const pick = (id) => {
    if (!a) choose({ compare: id });
    else if (a === id) choose({ compare: null });
    else choose({ compare: `${Math.min(a, id)},${Math.max(a, id)}` });
  };
  return html`<${Panel} id="runs" wide title="Runs" note="Every training attempt, accepted or refused. Choose two to compare." data=${data} error=${error} loading=${loading}
    empty=${data && !data.length && html`<p>No run yet: a retrain is commanded when harm is found, or by hand.</p>`}
    tools=${a > 0 && !b && html`<span class="muted">run ${a} chosen: choose another</span>`}>
    ${data && html`<div class="scroll" tabindex="0" role="region" aria-label="Runs"><table data-rows data-cards>
      <thead><tr><th scope="col">Run</th><th scope="col">Verdict</th><th scope="col">Version</th><th scope="col">Cause</th><th scope="col">Chosen</th><th scope="col" class="n">Rows</th><th scope="col">Begun</th><th scope="col"><span class="hidden">Compare</span></th></tr></thead>
      <tbody>${data.map((run) => html`<tr>
        <th scope="row" class="nowrap"><button type="button" class="link" onClick=${() => choose({ run: run.run_id })}>run ${run.run_id}</button></th>
        <td data-label="Verdict"><span class="tag ${run.verdict}">${run.verdict}</span></td><td data-label="Version">${run.version ? `v${run.version}` : "–"}</td>
        <td data-label="Cause">${run.cause}<span class="sub">${run.reason}</span></td>
        <td data-label="Chosen">${plain(run.candidates.find((c) => c.chosen)?.name) || "–"}</td><td data-label="Rows" class="n">${run.data ? count(run.data.rows || 0) : "–"}</td>
        <td data-label="Begun"><${Time} ms=${run.started_ms} seconds=${false} /></td>
        <td class="act"><button type="button" class="quiet" aria-pressed=${a === run.run_id || b === run.run_id ? "true" : "false"} onClick=${() => pick(run.run_id)}>Compare</button></td></tr>`)}</tbody>
    </table></div>`}
    ${open && html`<${Card} id=${open} />`}
    ${b > 0 && html`<${Comparison} a=${a} b=${b} />`}
  <//>`;
}

/** A model card: what the version is for is in the spec; this is what it came from. */
function Card({ id }) {
  const { data, error } = useData(`/api/runs/${id}`, { live: false });
  const run = data?.run;
  const { query } = usePlace();
  const zone = query.get("zone");
  return html`<${Dialog} title=${`Run ${id}`} onClose=${() => choose({ run: null })}>
    ${error && html`<${Problem} error=${error} />`}
    ${run && html`
      <p><span class="tag ${run.verdict}">${run.verdict}</span> ${run.reason}</p>
      <dl class="card">
        ${field("Model", run.model)}${field("Version", run.version && `v${run.version}`)}${field("Cause", run.cause)}${field("Asked by", run.who)}
        ${field("Took", run.finished_ms && duration(run.finished_ms - run.started_ms))}${field("Attempts", run.attempts)}${field("Seed", run.seed)}
        ${field("Rows", run.data && count(run.data.rows || 0))}${field("Labelled", run.data?.predictions && `${count(run.data.labelled)} of ${count(run.data.predictions)} (${percent(run.data.labelled / run.data.predictions)})`)}
        ${field("Data from", run.data?.start_ms && time(run.data.start_ms, zone, { seconds: false }))}${field("Data to", run.data?.end_ms && time(run.data.end_ms, zone, { seconds: false }))}${field("Source", run.data?.source)}
        ${field("Classes", run.data?.classes && Object.entries(run.data.classes).map(([name, n]) => `${name} ${count(n)}`).join(", "))}
        ${field("Erased", run.data?.erased)}
      </dl>
      <h3>Candidates, on the newest slice that none had seen</h3>
      ${run.candidates.map((c) => html`<div class="candidate"><b>${plain(c.name)}</b> ${c.chosen && html`<span class="tag accepted">chosen</span>`} ${c.problem && html`<span class="muted">${c.problem}</span>`}
        <ul>${Object.entries(c.metrics || {}).map(([name, f]) => html`<li>${plain(name)} <b>${number(f.value)}</b> ${f.low !== undefined && html`<span class="muted">${number(f.low)}–${number(f.high)}</span>`}</li>`)}</ul></div>`)}
      ${data.career.length > 0 && html`<h3>What became of version ${run.version}</h3>
        <ol class="history">${data.career.map((turn) => html`<li><b>${turn.part === "none" ? "out of play" : turn.part}</b>: ${turn.action}, ${turn.reason || "no reason given"} <span class="sub"><${Time} ms=${turn.changed_ms} seconds=${false} /> · ${turn.who || "command"}</span></li>`)}</ol>`}
      <details><summary>Exactly which data, code and bytes</summary>
        <dl class="card">${field("Data digest", run.data?.digest)}${field("Artefact", run.artefact_digest)}${field("Profile", run.profile_digest)}${Object.entries(run.libraries).map(([name, version]) => field(name, version))}</dl>
        ${(run.data?.ranges || []).map((r) => html`<code class="block">${r.topic}[${r.partition}] ${r.first}..${r.end}</code>`)}
      </details>`}
    <div class="buttons">${run && html`<a class="button" href=${`/api/runs/${id}/card`} download data-plain>Download the model card</a>`}
      <button type="button" class="quiet" onClick=${() => choose({ run: null })}>Close</button></div>
  <//>`;
}

const field = (name, value) => value !== null && value !== undefined && value !== "" && value !== 0 && html`<div><dt>${name}</dt><dd>${value}</dd></div>`;

function Comparison({ a, b }) {
  const { data, error } = useData(`/api/runs/${a}/against/${b}`, { live: false });
  const close = () => choose({ compare: null });
  return html`<${Dialog} title=${`Run ${a} against run ${b}`} onClose=${close}>
    ${error && html`<${Problem} error=${error} />`}
    ${data && html`<div class="scroll" tabindex="0" role="region" aria-label="Differences"><table>
      <thead><tr><th scope="col">What</th><th scope="col">run ${a}</th><th scope="col">run ${b}</th><th scope="col" class="n">change</th></tr></thead>
      <tbody>${data.differences.map((d) => html`<tr><th scope="row">${plain(d.field)}<span class="sub">${d.section}</span></th><td>${short(d.a)}</td><td>${short(d.b)}</td><td class="n">${d.change === null ? "" : `${d.change > 0 ? "+" : ""}${number(d.change)}`}${d.reading && html`<span class="sub">${d.reading}</span>`}</td></tr>`)}</tbody>
    </table></div>
    ${data.same.length > 0 && html`<p class="muted">The same in both: ${data.same.join(", ")}.</p>`}`}
    <div class="buttons"><button type="button" class="quiet" onClick=${close}>Close</button></div>
  <//>`;
}

function short(value) {
  if (typeof value === "number") return number(value, 6);
  if (value && typeof value.value === "number") {
    return `${number(value.value)}${value.low === undefined ? "" : ` (${number(value.low)}–${number(value.high)})`}`;
  }
  if (/^[0-9a-f]{64}$/.test(value)) return `${value.slice(0, 12)}…`;
  const text = value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

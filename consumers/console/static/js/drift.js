// Every signal against its reference; one of them opened as two histograms on the same bins.
import { html, useState } from "./ui.js";
import { count, number, percent, time, windowName } from "./format.js";
import { useData } from "./api.js";
import { Chart } from "./chart.js";
import { CopyCsv, Panel, Problem, Spark } from "./parts.js";
import { choose, usePlace } from "./url.js";

const FIRST = 10;
const LEVELS = { alarm: ["▲", "alarm"], rising: ["◆", "rising"], quiet: ["·", "quiet"] };

export function Drift({ path, window }) {
  const { query } = usePlace();
  const [all, showAll] = useState(false);
  const { data, error, loading } = useData(`${path}/drift?${new URLSearchParams({ window })}`);
  const search = (query.get("feature") || "").toLowerCase();
  const open = query.get("signal");
  const rows = (data?.rows || []).filter((row) => !search || row.signal.toLowerCase().includes(search));
  const shown = all || search ? rows : rows.slice(0, FIRST);
  const tools = html`
    ${data?.rows.length > FIRST && html`<label class="search small"><span class="hidden">Search features</span><input type="search" placeholder="Search features" value=${query.get("feature") || ""} onInput=${(e) => choose({ feature: e.target.value })} /></label>`}
    ${data?.rows.length > 0 && html`<${CopyCsv} what="drift" columns=${["signal", "evidence", "psi", "psi_noise", "psi_low", "psi_high", "js", "n", "null_rate", "unseen_rate"]}
      rows=${() => data.rows.map((r) => [r.signal, r.evidence, r.psi, r.psi_noise, r.psi_low, r.psi_high, r.js, r.n, r.null_rate, r.unseen_rate])} />`}`;
  return html`<${Panel} id="drift" wide title="Drift by feature" note=${`${windowName(window)} against the version's reference. Evidence decides: 1 is an alarm within the model's budget; PSI explains how far.`}
    data=${data} error=${error} loading=${loading} empty=${data && !data.rows.length && html`<p>No signal of the version that is live was compared yet.</p>`} tools=${tools}>
    ${data && html`<div class="scroll" tabindex="0" role="region" aria-label="Signals"><table class="drift" data-rows data-cards>
      <thead><tr><th scope="col">Signal</th><th scope="col">Evidence</th><th scope="col" class="n">PSI</th><th scope="col" class="n">noise alone</th><th scope="col">PSI over time</th><th scope="col" class="n">n</th><th scope="col" class="n">No value</th><th scope="col" class="n">Unseen</th></tr></thead>
      <tbody>${shown.map((row) => html`<${Signal} key=${row.signal} row=${row} open=${open === row.signal} path=${path} window=${window} />`)}</tbody>
    </table></div>
    ${rows.length > shown.length && html`<p class="more"><button type="button" class="quiet" onClick=${() => showAll(true)}>Show all ${count(rows.length)} signals</button></p>`}`}
  <//>`;
}

function Signal({ row, open, path, window }) {
  const [sign, word] = LEVELS[row.level];
  const share = Math.min(1, row.evidence);
  return html`<tr class=${row.level}>
      <th scope="row"><button type="button" class="link" aria-expanded=${open ? "true" : "false"} onClick=${() => choose({ signal: open ? null : row.signal })}>${row.signal}</button>${row.kind === "prediction" && html` <span class="tag">output</span>`}</th>
      <td data-label="Evidence"><span class="evidence ${row.level}"><span aria-hidden="true">${sign}</span> ${word} <span class="gauge" aria-hidden="true"><i style=${{ width: `${100 * share}%` }}></i></span> ${row.evidence >= 1 ? "≥ 1" : number(row.evidence, 2)}</span></td>
      <td data-label="PSI" class="n"><b>${number(row.psi)}</b> ${row.psi >= 0.001 && html`<span class="sub">${number(row.psi_low)}–${number(row.psi_high)}</span>`}</td>
      <td data-label="noise alone" class="n minor">${number(row.psi_noise)}</td>
      <td><${Spark} values=${row.spark} /></td>
      <td data-label="n" class="n minor">${count(row.n)}</td><td data-label="No value" class="n minor">${percent(row.null_rate, 1)}</td><td data-label="Unseen" class="n minor">${percent(row.unseen_rate, 1)}</td>
    </tr>
    ${open && html`<tr class="opened"><td colspan="8"><${Detail} path=${path} window=${window} signal=${row.signal} /></td></tr>`}`;
}

function Detail({ path, window, signal }) {
  const { query } = usePlace();
  const zone = query.get("zone");
  const theme = query.get("theme") || document.documentElement.dataset.theme || "";
  const { data, error, loading } = useData(`${path}/signal?${new URLSearchParams({ window, signal })}`, { everyMs: 4000 });
  if (loading) return html`<div class="mood loading" role="status">Loading …</div>`;
  if (!data) return html`<${Problem} error=${error} />`;
  const x = data.past.map((p) => p.end_ms / 1000);
  const m = data.measured;
  return html`${error && html`<${Problem} error=${error} kept />`}
  <p class="reading"><span>PSI <b>${number(m.psi)}</b></span><span>95 % ${number(m.psi_low)}–${number(m.psi_high)}</span><span>noise alone ${number(m.psi_noise)}</span><span>Jensen–Shannon ${number(m.js)}</span><span>no value ${percent(m.null_rate, 1)}</span><span>unseen ${percent(m.unseen_rate, 1)}</span><span>n ${count(m.n)}</span></p>
  <div class="columns">
    <${Histogram} bins=${data.bins} n=${data.measured.n} rows=${data.reference_rows} />
    <div><h3>PSI over time</h3>
      ${x.length > 1 ? html`<${Chart} data=${[x, data.past.map((p) => p.psi), data.past.map((p) => p.psi_noise)]} height=${180} zone=${zone} theme=${theme}
        lines=${[{ label: "psi", colour: "line" }, { label: "noise alone", colour: "baseline", dash: [6, 4], width: 1.5 }]}
        label=${`PSI, now ${number(data.measured.psi)}; noise alone would give ${number(data.measured.psi_noise)}`} />
        <ul class="legend"><li><i class="key line"></i>PSI</li><li><i class="key baseline"></i>noise alone</li><li class="muted">to ${time(data.measured.end_ms, zone, { seconds: false })}</li></ul>` : html`<p class="muted">One window so far.</p>`}
    </div></div>`;
}

function Histogram({ bins, n, rows }) {
  if (!bins.length) return html`<div><h3>Reference and live</h3><p class="muted">The version's reference is not at hand.</p></div>`;
  const top = Math.max(...bins.flatMap((bin) => [bin.reference_share, bin.live_share]), 1e-9);
  const width = (share) => ({ width: `${(100 * share) / top}%` });
  return html`<div><h3>Reference and live</h3>
    <ul class="legend"><li><i class="key reference"></i>reference, ${count(rows)} rows</li><li><i class="key live"></i>live, ${count(n)}</li></ul>
    <div class="scroll" tabindex="0" role="region" aria-label="Histogram"><table class="histogram"><thead class="hidden"><tr><th scope="col">Bin</th><th scope="col">Share</th><th scope="col">Reference</th><th scope="col">Live</th></tr></thead>
    <tbody>${bins.map((bin) => html`<tr><th scope="row">${bin.label}</th>
      <td class="bars"><i class="reference" style=${width(bin.reference_share)}></i><i class="live" style=${width(bin.live_share)}></i></td>
      <td class="n" title=${`${count(bin.reference)} in the reference`}>${percent(bin.reference_share)}</td><td class="n" title=${`${count(bin.live)} live`}><b>${percent(bin.live_share)}</b></td></tr>`)}</tbody></table></div></div>`;
}

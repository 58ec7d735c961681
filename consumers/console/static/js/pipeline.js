// How the stages keep up: rates, lag, label delay, dead letters, watermarks, recovery.
import { html } from "./ui.js";
import { count, duration, number } from "./format.js";
import { useData } from "./api.js";
import { now } from "./live.js";
import { Badge, Panel, Problem, Spark, Time } from "./parts.js";

const WORDS = {
  "keeping up": "healthy", "behind, working": "changed", "falling behind": "broken", "standing still": "harmed",
  "nobody runs it": "harmed", rebalancing: "stale", "nothing done yet": "waiting", "not told by this broker": "unlabelled",
};
const STAGES = { score: "Score", monitor: "Monitor", evaluate: "Evaluate", shadow: "Shadow", trainer: "Trainer" };

export function Pipeline() {
  const { data, error, loading } = useData("/api/pipeline", { everyMs: 2500 });
  const dead = Object.entries(data?.dead_letters || {});
  const refused = dead.reduce((sum, [, n]) => sum + n, 0);
  return html`<div class="head"><h1>Pipeline</h1><p class="lead" aria-live="polite">${data ? overview(data, refused) : ""}</p></div>
    ${data?.problem && html`<${Problem} error=${{ message: data.problem }} kept=${Boolean(data.sampled_ms)} />`}
    ${data && html`<dl class="facts">
      <div><dt>Predictions</dt><dd>${number(data.rate.predictions)}/s<span>joined by monitor, last minute</span></dd></div>
      <div><dt>Labels</dt><dd>${number(data.rate.labels)}/s<span>last minute</span></dd></div>
      <div><dt>Label delay</dt><dd>${data.delay[50] === null ? "–" : `≤ ${duration(data.delay[50] * 1000)}`}<span>${data.delay[95] === null ? "no label since the console started" : `95 % within ${duration(data.delay[95] * 1000)}`}</span></dd></div>
      <div><dt>Dead letters</dt><dd>${count(refused)}<span>${refused ? "lie in the .dlq topics" : "nothing was refused"}</span></dd></div>
      <div><dt>Console</dt><dd>${data.reader.state}<span>${data.refused ? `${count(data.refused)} records were no events` : "reads without a group"}</span></dd></div>
    </dl>`}
    <${Panel} id="stages" wide title="Stages" note="Records that a stage has not dealt with. Offsets count transactions too, so rates are a little high." data=${data} error=${error} loading=${loading}
      empty=${data && !data.groups.length && html`<p>Not sampled yet${data.problem ? "" : "; a moment"}.</p>`}>
      <div class="scroll" tabindex="0" role="region" aria-label="Stages"><table data-cards>
        <thead><tr><th scope="col">Stage</th><th scope="col">Reads</th><th scope="col">How it is</th><th scope="col" class="n">Lag</th><th scope="col">Lag, ten minutes</th><th scope="col" class="n">In</th><th scope="col" class="n">Done</th><th scope="col" class="n">Workers</th></tr></thead>
        <tbody>${(data?.groups || []).map((g) => html`<tr><th scope="row">${STAGES[g.role] || g.role}</th><td data-label="Reads">${g.entity}</td>
          <td data-label="How it is"><${Badge} state=${WORDS[g.word] || "waiting"} word=${g.word} /></td><td data-label="Lag" class="n"><b>${count(g.lag)}</b></td><td><${Spark} values=${g.lags} /></td>
          <td data-label="In" class="n">${g.rate_in === null ? "–" : `${number(g.rate_in)}/s`}</td><td data-label="Done" class="n">${g.rate_out === null ? "–" : `${number(g.rate_out)}/s`}</td><td data-label="Workers" class="n">${count(g.members)}</td></tr>`)}</tbody>
      </table></div>
    <//>
    <${Panel} id="watermarks" title="Watermarks" note="How far each partition of monitor is; a tick closes when all have passed it." data=${data} loading=${loading}
      empty=${data && !data.progress.length && html`<p>Monitor has not reported since the console started.</p>`}>
      <div class="scroll" tabindex="0" role="region" aria-label="Watermarks"><table data-cards>
        <thead><tr><th scope="col">Partition</th><th scope="col">Recovery</th><th scope="col">Watermark</th><th scope="col" class="n">Behind its clock</th></tr></thead>
        <tbody>${(data?.progress || []).map((p) => {
          const silent = now() - p.heard_ms;
          const [state, word] = silent > 15000 ? ["stale", `silent for ${duration(silent)}`] : data.replays ? ["changed", "replaying"] : p.caught_up ? ["healthy", "caught up"] : ["changed", "catching up"];
          return html`<tr><th scope="row">${p.partition}</th><td data-label="Recovery"><${Badge} state=${state} word=${word} /></td><td data-label="Watermark"><${Time} ms=${p.watermark_ms} /></td><td data-label="Behind" class="n">${data.replays ? "–" : duration(p.clock_ms - p.watermark_ms)}</td></tr>`;
        })}</tbody>
      </table></div>
    <//>
    <${Panel} id="dead" title="Dead letters" note="Refused, with the reason and the original bytes." data=${data} loading=${loading}>
      <table><thead><tr><th scope="col">Topic</th><th scope="col" class="n">Records</th><th scope="col"><span class="hidden">Look</span></th></tr></thead>
      <tbody>${dead.map(([entity, n]) => html`<tr><th scope="row">${entity}</th><td class="n">${n ? html`<b>${count(n)}</b>` : "0"}</td><td class="act">${n > 0 && !["commands.dlq", "alerts.dlq"].includes(entity) ? html`<a href=${`/events?entity=${entity}`}>look</a>` : n > 0 && html`<code>driftline dlq list ${entity.slice(0, -4)}</code>`}</td></tr>`)}</tbody></table>
    <//>
    <${Delays} delays=${data?.delays} />`;
}

function overview(data, refused) {
  const bad = data.groups.filter((g) => ["standing still", "nobody runs it", "falling behind"].includes(g.word));
  const lag = data.groups.reduce((sum, g) => sum + (g.lag || 0), 0);
  if (data.problem) return "The broker does not answer.";
  if (bad.length) return `${bad.map((g) => `${STAGES[g.role]}: ${g.word}`).join("; ")}.`;
  return `${count(lag)} records wait in all; ${count(refused)} lie in dead letters.`;
}

/** Label delays, doubling from bin to bin. */
function Delays({ delays }) {
  const bins = Object.entries(delays || {}).map(([k, n]) => [Number(k), n]).sort((a, b) => a[0] - b[0]);
  const top = Math.max(1, ...bins.map(([, n]) => n));
  return html`<${Panel} id="delays" title="Label delay" note="From prediction to label, lately." data=${delays} loading=${!delays} empty=${delays && !bins.length && html`<p>No label came since the console started.</p>`}>
    <table class="histogram"><tbody>${bins.map(([k, n]) => html`<tr><th scope="row">≤ ${duration((2 ** (k + 1) - 1) * 1000)}</th><td class="bars"><i class="live" style=${{ width: `${(100 * n) / top}%` }}></i></td><td class="n">${count(n)}</td></tr>`)}</tbody></table>
  <//>`;
}

// Who was live when and why; what may be done about it, behind a dialog that says what it will do.
import { html, useState } from "./ui.js";
import { duration, number, plain } from "./format.js";
import { call, useData } from "./api.js";
import { Dialog, Panel, Time } from "./parts.js";
import { choose } from "./url.js";

const VERBS = { promote: "Promote", rollback: "Roll back", pin: "Pin", unpin: "Unpin" };

export function Versions({ name, path, row, session, window, metric }) {
  const [asking, ask] = useState(null);
  const [done, say] = useState(null);
  const { data, error, loading, again } = useData(`${path}/versions`, { everyMs: 4000 });
  const operates = session?.role === "operate";
  const begin = (action, version = null) => ask({ action, version });
  const live = data?.live;
  const tools = live && (operates
    ? html`<button type="button" onClick=${() => begin("rollback")} disabled=${live.pinned}>Roll back …</button>
        <button type="button" onClick=${() => begin(live.pinned ? "unpin" : "pin")} disabled=${!live.champion}>${live.pinned ? "Unpin …" : "Pin …"}</button>`
    : html`<button type="button" class="quiet" onClick=${() => dispatchEvent(new Event("driftline:signin"))}>Sign in to promote, roll back or pin</button>`);
  return html`<${Panel} id="versions" wide title="Versions" note="Who was live when, by the registry’s clock." data=${data} error=${error} loading=${loading} tools=${tools}
    empty=${data && !data.versions.length && html`<p>No version is registered yet. <code>driftline models add ${name}.toml --data history.csv</code> trains the first.</p>`}>
    ${done && html`<p class="mood ${done.applied ? "good" : "failed"}" role="status">${done.sentence}</p>`}
    ${data && html`
      <${Timeline} reigns=${data.reigns} />
      <div class="scroll" tabindex="0" role="region" aria-label="Versions"><table data-rows data-cards>
        <thead><tr><th scope="col">Version</th><th scope="col">Role</th><th scope="col" class="n">Validated</th><th scope="col" class="n">Live</th><th scope="col">Registered</th><th scope="col">Run</th>${operates && html`<th scope="col"><span class="hidden">Actions</span></th>`}</tr></thead>
        <tbody>${data.versions.map((v) => html`<${Version} key=${v.version} v=${v} data=${data} window=${window} metric=${metric} operates=${operates} begin=${begin} />`)}</tbody>
      </table></div>
      <${History} entries=${data.history} decisions=${data.decisions} />`}
    ${asking && html`<${Confirm} path=${path} name=${name} asking=${asking} onClose=${(outcome) => { ask(null); if (outcome) { say(outcome); again(); } }} />`}
  <//>`;
}

function role(live, version) {
  if (!live) return "";
  if (live.champion === version) return live.probation ? "champion, on probation" : "champion";
  if (live.canary === version) return "canary, answers a share";
  if ((live.challengers || []).includes(version)) return "challenger, on trial";
  return live.previous === version ? "previous, in shadow" : "";
}

function Version({ v, data, window, metric, operates, begin }) {
  const measured = data.measured.find((m) => m.version === v.version && m.window === window);
  const now = measured?.metrics[metric];
  const part = role(data.live, v.version);
  return html`<tr class=${part.startsWith("champion") ? "current" : ""}>
    <th scope="row">v${v.version}</th><td data-label="Role">${part ? html`<span class="tag ${part.split(",")[0]}">${part}</span>` : html`<span class="muted">–</span>`}</td>
    <td data-label="Validated" class="n">${number(v.metrics[metric] ?? (metric === "accuracy" ? v.metrics.correct : null))} <span class="sub">${plain(metric)}</span></td>
    <td data-label="Live" class="n">${now ? html`<b>${number(now.value)}</b> <span class="sub"><${Time} ms=${measured.end_ms} seconds=${false} /></span>` : html`<span class="muted">–</span>`}</td>
    <td data-label="Registered"><${Time} ms=${v.created_ms} seconds=${false} /> <span class="sub">${v.who}</span></td>
    <td data-label="Run">${v.run_id === null ? "–" : html`<button type="button" class="link" onClick=${() => choose({ run: v.run_id })}>run ${v.run_id}</button>`}</td>
    ${operates && html`<td class="act">${data.live?.champion !== v.version && html`<button type="button" class="quiet" onClick=${() => begin("promote", v.version)} disabled=${data.live?.pinned} aria-label=${`Promote version ${v.version}`}>Promote …</button>`}</td>`}
  </tr>`;
}

/** Reigns as bars whose width is how long they lasted, and as words. */
function Timeline({ reigns }) {
  if (!reigns.length) return null;
  const end = Math.max(Date.now(), ...reigns.map((reign) => reign.end_ms || 0));
  const whole = Math.max(1, end - reigns[0].start_ms);
  return html`<ol class="timeline" aria-label="Who was live when">${reigns.slice(-12).map((reign) => {
    const ms = (reign.end_ms || end) - reign.start_ms;
    return html`<li class=${`v${reign.version % 5} ${reign.end_ms ? "" : "current"}`} style=${{ flexGrow: Math.max(0.04, ms / whole) }} title=${`${reign.reason} (${reign.who})`}>
      <b>v${reign.version}</b><span>${reign.end_ms ? duration(ms) : `live for ${duration(ms)}`}</span></li>`;
  })}</ol>`;
}

function History({ entries, decisions }) {
  const refused = decisions.filter((d) => !d.applied);
  return html`<details><summary>What was decided, by whom and why (${entries.length}${refused.length ? `, ${refused.length} refused` : ""})</summary>
    <ol class="history">${entries.map((e) => html`<li><b>${e.action}</b> ${e.champion ? `v${e.champion} live` : "no version live"}${e.challengers.length ? `, v${e.challengers.join(", v")} on trial` : ""}: ${e.reason}
      <span class="sub"><${Time} ms=${e.changed_ms} /> · ${e.who || "command"} · generation ${e.generation}</span></li>`)}</ol>
    ${refused.length > 0 && html`<h3>Refused</h3><ol class="history">${refused.map((d) => html`<li><b>${d.action}</b>${d.version ? ` v${d.version}` : ""}: ${d.refusal} <span class="sub"><${Time} ms=${d.decided_ms} /> · ${d.who || "command"} · ${d.reason}</span></li>`)}</ol>`}
  </details>`;
}

/** Says what will happen, asks for a reason, and only then does it. */
function Confirm({ path, name, asking, onClose }) {
  const [reason, write] = useState("");
  const [force, allow] = useState(false);
  const [problem, fail] = useState("");
  const [busy, work] = useState(false);
  const [preview, show] = useState(null);
  useState(() => {
    call(`${path}/preview`, { method: "POST", body: asking }).then(show, (error) => fail(error.message));
  });
  const act = async (event) => {
    event.preventDefault();
    work(true);
    fail("");
    try {
      onClose(await call(`${path}/act`, { method: "POST", body: { ...asking, reason, force, generation: preview.generation } }));
    } catch (error) {
      fail(error.message);
      work(false);
    }
  };
  const verb = VERBS[asking.action];
  const title = `${verb} ${asking.action === "promote" ? `version ${asking.version} of ` : ""}${name}?`;
  const ready = preview && !preview.refusal && (!preview.warning || force) && !busy;
  return html`<${Dialog} title=${title} onClose=${() => onClose(null)}>
    ${!preview && !problem && html`<p role="status">Looking what this would do …</p>`}
    ${preview?.refusal && html`<p class="mood failed">This would be refused: ${preview.refusal}.</p>`}
    ${preview?.effect && html`<p class="effect">${preview.effect}</p>`}
    ${preview?.warning && html`<p class="mood warn">${preview.warning}</p>
      <label class="check"><input type="checkbox" checked=${force} onChange=${(e) => allow(e.target.checked)} /> Do it all the same</label>`}
    ${problem && html`<p class="mood failed" role="alert">${problem}</p>`}
    <form onSubmit=${act}>
      ${!preview?.refusal && html`<label class="field">Why (kept in the history)<input name="reason" maxlength="500" value=${reason} onInput=${(e) => write(e.target.value)} autocomplete="off" /></label>`}
      <div class="buttons"><button type="button" class="quiet" onClick=${() => onClose(null)}>${preview?.refusal ? "Close" : "Cancel"}</button>
      ${!preview?.refusal && html`<button type="submit" class="primary" disabled=${!ready}>${busy ? "…" : `${verb}${asking.action === "promote" ? ` version ${asking.version}` : ""}`}</button>`}</div>
    </form>
  <//>`;
}

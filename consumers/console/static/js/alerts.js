// Problems from opening to resolving: one line each, its evidence behind it.
import { html, useState } from "./ui.js";
import { duration, plain } from "./format.js";
import { call, useData } from "./api.js";
import { Choice, Dialog, Json, Panel, Time } from "./parts.js";
import { choose, modelHref, usePlace } from "./url.js";

const SIGNS = { critical: ["harmed", "▲"], warning: ["broken", "◆"], info: ["changed", "●"] };

const KINDS = {
  acknowledge: ["Acknowledge", "You see to it. It stays until it is over, and counts as no breach meanwhile."],
  snooze: ["Snooze", "It is quiet for a while; then it is open again, if it still is."],
  resolve: ["Resolve", "You say that it is over. Should it not be, it comes back."],
  reopen: ["Reopen", "What was said of it is taken back."],
};
const SNOOZES = [["3600", "an hour"], ["43200", "12 hours"], ["86400", "a day"], ["604800", "a week"]];
const BY_ITSELF = ["harm", "data", "prediction", "drift", "probation", "stale", "unlabelled"];

export function Alerts({ session }) {
  const { query } = usePlace();
  const state = query.get("state") || "";
  return html`<div class="head"><h1>Alerts</h1><p class="lead">One object per problem, from opening to resolving.</p></div>
    <div class="filters" role="group" aria-label="Filter by state">
      ${[["", "All"], ["open", "Open"], ["resolved", "Resolved"]].map(([key, text]) => html`<button type="button" class="chip" aria-pressed=${state === key ? "true" : "false"} onClick=${() => choose({ state: key })}>${text}</button>`)}
    </div>
    <${AlertList} state=${state} id="feed" title="Feed" wide session=${session} />`;
}

export function AlertList({ model, state, id, title, wide, session }) {
  const asked = new URLSearchParams();
  if (model) asked.set("model", model);
  if (state) asked.set("state", state);
  const { data, error, loading } = useData(`/api/alerts?${asked}`, { everyMs: 3000 });
  const sorted = [...(data || [])].sort((a, b) => (a.state === "resolved") - (b.state === "resolved"));
  const empty = data && !data.length && html`<p>${state === "open" ? "No open alert." : "No alert yet."} Harm and broken data raise one; drift alone informs.</p>`;
  return html`<${Panel} id=${id} wide=${wide} title=${title} data=${data} error=${error} loading=${loading} empty=${empty}>
    <ul class="alerts" data-rows>${sorted.map((alert) => html`<${AlertLine} key=${alert.alert_id} alert=${alert} named=${!model} operates=${session?.role === "operate"} />`)}</ul>
  <//>`;
}

function AlertLine({ alert, named, operates }) {
  const [open, toggle] = useState(false);
  const [asking, ask] = useState(null);
  const [said, say] = useState("");
  const [kind, sign] = SIGNS[alert.severity];
  const lasted = (alert.resolved_ms ?? alert.updated_ms) - alert.opened_ms;
  const command = alert.evidence?.command || alert.evidence?.action;
  return html`<li class="${alert.state} ${kind}">
    <p class="first"><span class="sign ${kind}" aria-hidden="true">${sign}</span> <b>${alert.verdict}</b> <span class="tag ${alert.state}">${alert.state}</span> <span class="muted">${alert.severity}</span>
      ${named && html` · <a href=${modelHref(alert.model)}>${alert.model}</a>`}${alert.version && html` <span class="muted">v${alert.version}</span>`}</p>
    <p>${alert.sentence}</p>
    ${alert.handled_by && html`<p class="sub">${alert.state === "snoozed" ? html`snoozed until <${Time} ms=${alert.snoozed_until_ms} />` : alert.state} by ${alert.handled_by}${alert.note && `: ${alert.note}`}</p>`}
    ${alert.reopened > 0 && html`<p class="sub">came back ${alert.reopened} times</p>`}
    ${command && typeof command === "string" && html`<p class="sub">${plain(command)}</p>`}
    <p class="sub">opened <${Time} ms=${alert.opened_ms} />${alert.state === "resolved" ? `, lasted ${duration(lasted)}` : html`, last told <${Time} ms=${alert.updated_ms} />`}
      ${" · "}<button type="button" class="link" aria-expanded=${open ? "true" : "false"} onClick=${() => toggle(!open)}>${open ? "hide evidence" : "evidence"}</button></p>
    ${operates && alert.state !== "resolved" && BY_ITSELF.includes(alert.problem) && html`<div class="alert-actions">
      ${Object.entries(KINDS).filter(([kind]) => (kind === "reopen") === (alert.state !== "open") || kind === "resolve").map(([kind, [verb]]) => html`<button type="button" class="quiet" onClick=${() => ask(kind)} aria-label=${`${verb}: ${alert.sentence}`}>${verb} …</button>`)}
      ${said && html`<span class="muted" role="status">${said}</span>`}</div>`}
    ${asking && html`<${Handle} alert=${alert} kind=${asking} onClose=${(sentence) => { ask(null); if (sentence) say(sentence); }} />`}
    ${open && html`<${Json} value=${alert.evidence || {}} />`}
  </li>`;
}

/** Says what will happen, asks for a note, and tells evaluate. */
function Handle({ alert, kind, onClose }) {
  const [note, write] = useState("");
  const [seconds, last] = useState("86400");
  const [problem, fail] = useState("");
  const [verb, effect] = KINDS[kind];
  const act = async (event) => {
    event.preventDefault();
    try {
      const body = { kind, note, ...(kind === "snooze" ? { seconds: Number(seconds) } : {}) };
      const done = await call(`/api/alerts/${encodeURIComponent(alert.alert_id)}/handle`, { method: "POST", body });
      if (done.applied) onClose(done.sentence);
      else fail(done.sentence);
    } catch (error) {
      fail(error.message);
    }
  };
  return html`<${Dialog} title=${`${verb}: ${alert.verdict} of ${alert.model}`} onClose=${() => onClose("")}>
    <p class="effect">${effect}</p><p class="muted">${alert.sentence}</p>
    ${problem && html`<p class="mood failed" role="alert">${problem}</p>`}
    <form onSubmit=${act}>
      ${kind === "snooze" && html`<${Choice} id="snooze" label="For (event time)" value=${seconds} options=${SNOOZES} onChange=${last} />`}
      <label class="field">What others should know<input name="note" maxlength="2000" value=${note} onInput=${(e) => write(e.target.value)} autocomplete="off" /></label>
      <div class="buttons"><button type="button" class="quiet" onClick=${() => onClose("")}>Cancel</button><button type="submit" class="primary">${verb}</button></div>
    </form>
  <//>`;
}

// Problems from opening to resolving: one line each, its evidence behind it.
import { html, useState } from "./ui.js";
import { duration, plain } from "./format.js";
import { useData } from "./api.js";
import { Json, Panel, Time } from "./parts.js";
import { choose, modelHref, usePlace } from "./url.js";

const SIGNS = { critical: ["harmed", "▲"], warning: ["broken", "◆"], info: ["changed", "●"] };

export function Alerts() {
  const { query } = usePlace();
  const state = query.get("state") || "";
  return html`<div class="head"><h1>Alerts</h1><p class="lead">One object per problem, from opening to resolving.</p></div>
    <div class="filters" role="group" aria-label="Filter by state">
      ${[["", "All"], ["open", "Open"], ["resolved", "Resolved"]].map(([key, text]) => html`<button type="button" class="chip" aria-pressed=${state === key ? "true" : "false"} onClick=${() => choose({ state: key })}>${text}</button>`)}
    </div>
    <${AlertList} state=${state} id="feed" title="Feed" wide />`;
}

export function AlertList({ model, state, id, title, wide }) {
  const asked = new URLSearchParams();
  if (model) asked.set("model", model);
  if (state) asked.set("state", state);
  const { data, error, loading } = useData(`/api/alerts?${asked}`, { everyMs: 3000 });
  const sorted = [...(data || [])].sort((a, b) => (b.state === "open") - (a.state === "open"));
  const empty = data && !data.length && html`<p>${state === "open" ? "No open alert." : "No alert yet."} Harm and broken data raise one; drift alone informs.</p>`;
  return html`<${Panel} id=${id} wide=${wide} title=${title} data=${data} error=${error} loading=${loading} empty=${empty}>
    <ul class="alerts" data-rows>${sorted.map((alert) => html`<${AlertLine} key=${alert.alert_id} alert=${alert} named=${!model} />`)}</ul>
  <//>`;
}

function AlertLine({ alert, named }) {
  const [open, toggle] = useState(false);
  const [kind, sign] = SIGNS[alert.severity];
  const lasted = (alert.resolved_ms ?? alert.updated_ms) - alert.opened_ms;
  const command = alert.evidence?.command || alert.evidence?.action;
  return html`<li class="${alert.state} ${kind}">
    <p class="first"><span class="sign ${kind}" aria-hidden="true">${sign}</span> <b>${alert.verdict}</b> <span class="tag ${alert.state}">${alert.state}</span> <span class="muted">${alert.severity}</span>
      ${named && html` · <a href=${modelHref(alert.model)}>${alert.model}</a>`}${alert.version && html` <span class="muted">v${alert.version}</span>`}</p>
    <p>${alert.sentence}</p>
    ${command && typeof command === "string" && html`<p class="sub">${plain(command)}</p>`}
    <p class="sub">opened <${Time} ms=${alert.opened_ms} />${alert.state === "resolved" ? `, lasted ${duration(lasted)}` : html`, last told <${Time} ms=${alert.updated_ms} />`}
      ${" · "}<button type="button" class="link" aria-expanded=${open ? "true" : "false"} onClick=${() => toggle(!open)}>${open ? "hide evidence" : "evidence"}</button></p>
    <div class="alert-actions" data-alert=${alert.alert_id}></div>
    ${open && html`<${Json} value=${alert.evidence || {}} />`}
  </li>`;
}

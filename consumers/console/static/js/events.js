// One prediction with all that happened to it, by its id; and the newest records to begin with.
import { html, useEffect, useState } from "./ui.js";
import { count, number } from "./format.js";
import { useData } from "./api.js";
import { Json, Panel, Time } from "./parts.js";
import { choose, modelHref, usePlace } from "./url.js";

const STEPS = {
  requests: "asked for", predictions: "predicted", feedback: "the truth", examples: "joined",
  "requests.dlq": "request refused", "predictions.dlq": "prediction refused", "feedback.dlq": "feedback refused",
};
const ENTITIES = ["predictions", "feedback", "requests", "predictions.dlq", "feedback.dlq", "requests.dlq"];

export function Events() {
  const { query } = usePlace();
  const id = query.get("id") || "";
  const [typed, type] = useState(id);
  useEffect(() => type(id), [id]);
  const find = (event) => {
    event.preventDefault();
    choose({ id: typed.trim() || null }, { push: true });
  };
  return html`<div class="head"><h1>Events</h1><p class="lead">One prediction, with its request, its label and where each lies.</p></div>
    <form class="filters" onSubmit=${find} role="search">
      <label class="search wide"><span class="hidden">Prediction id</span><input id="search" type="search" placeholder="prediction_id  ( / )" value=${typed} onInput=${(e) => type(e.target.value)} autocomplete="off" spellcheck=${false} /></label>
      <button type="submit" class="primary">Find</button>
    </form>
    ${id ? html`<${Found} id=${id} />` : html`<${Newest} />`}`;
}

function Found({ id }) {
  const { data, error, loading } = useData(`/api/events?${new URLSearchParams({ id })}`, { live: false });
  const limits = data && !data.complete && html` Only the newest records were looked through.`;
  return html`<${Panel} id="found" wide title=${`Prediction ${id.slice(0, 120)}`} note=${data ? html`${count(data.found.length)} records; ${count(data.looked)} were looked through.${limits}` : "Looking through the topics …"}
    data=${data} error=${error} loading=${loading} empty=${data && !data.found.length && html`<p>Nothing lies under this id.${limits} Ids are exact, and records are kept as long as the topics’ retention says.</p>`}
    tools=${html`<button type="button" class="quiet" onClick=${() => choose({ id: null })}>Newest events</button>`}>
    <ol class="trail">${data?.found.map((record, place) => html`<${Record} key=${`${place}/${record.topic}/${record.partition}/${record.offset}`} record=${record} />`)}</ol>
  <//>`;
}

const dataOf = (value) => (value && typeof value === "object" && "specversion" in value ? value.data : value);

function Record({ record }) {
  const data = dataOf(record.value);
  return html`<li class=${record.entity.endsWith(".dlq") ? "refused" : ""}>
    <h3>${STEPS[record.entity] || record.entity}</h3>
    <p>${inWords(record, data)}</p>
    <p class="sub"><${Time} ms=${record.time_ms} /> · <code>${record.topic}</code> partition ${record.partition} offset ${record.offset}${data?.model ? html` · <a href=${modelHref(data.model)}>${data.model}</a>` : ""}</p>
    <details><summary>Whole record</summary>
      ${record.headers.length > 0 && html`<dl class="card">${record.headers.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}
      <${Json} value=${record.value} /></details></li>`;
}

function inWords({ entity, headers }, data) {
  const header = (name) => headers.find(([key]) => key === name)?.[1];
  if (entity.endsWith(".dlq")) return `${header("dl_reason") || "refused"}: ${header("dl_detail") || ""}`;
  if (!data || typeof data !== "object") return "not an event";
  if (entity === "predictions") {
    const shadows = Object.entries(data.shadow || {});
    return `version ${data.version} said ${say(data.output)}${shadows.length ? `; in shadow ${shadows.map(([v, o]) => `v${v} ${say(o)}`).join(", ")}` : ""}`;
  }
  if (entity === "feedback" || entity === "examples") return `label ${say(data.label)}${data.revision ? `, correction ${data.revision}` : ""}`;
  return Object.entries(data.features || {}).slice(0, 6).map(([name, value]) => `${name} ${say(value)}`).join(", ");
}

const say = (value) => (typeof value === "number" ? number(value, 4) : Array.isArray(value) ? value.map(say).join(", ") : String(value));

function Newest() {
  const { query } = usePlace();
  const entity = ENTITIES.includes(query.get("entity")) ? query.get("entity") : "predictions";
  const model = query.get("model");
  const asked = new URLSearchParams({ entity });
  if (model) asked.set("model", model);
  const { data, error, loading, again } = useData(`/api/events/newest?${asked}`, { live: false });
  const tools = html`<label class="choice" for="entity"><span>Topic</span><select id="entity" onChange=${(e) => choose({ entity: e.target.value })}>${ENTITIES.map((name) => html`<option value=${name} selected=${name === entity}>${name}</option>`)}</select></label>
    <button type="button" class="quiet" onClick=${again}>Renew</button>`;
  return html`<${Panel} id="newest" wide title="Newest events" data=${data} error=${error} loading=${loading} tools=${tools} empty=${data && !data.length && html`<p>The topic ${entity} is empty.</p>`}>
    ${data && html`<div class="scroll" tabindex="0" role="region" aria-label="Newest events"><table data-rows data-cards>
      <thead><tr><th scope="col">Id</th><th scope="col">Model</th><th scope="col">What</th><th scope="col">When</th><th scope="col" class="n">Partition / offset</th></tr></thead>
      <tbody>${data.map((record) => html`<tr><th scope="row"><button type="button" class="link" onClick=${() => choose({ id: record.key }, { push: true })}>${record.key.slice(0, 80) || "(no key)"}</button></th>
        <td data-label="Model">${String(dataOf(record.value)?.model ?? "–").slice(0, 100)}</td><td data-label="What">${inWords(record, dataOf(record.value)).slice(0, 200)}</td><td data-label="When"><${Time} ms=${record.time_ms} /></td><td data-label="At" class="n">${record.partition} / ${record.offset}</td></tr>`)}</tbody>
    </table></div>`}
  <//>`;
}

// Who asked the console for what, and what came of it.
import { html } from "./ui.js";
import { useData } from "./api.js";
import { Panel, Time } from "./parts.js";
import { modelHref } from "./url.js";

export function Audit() {
  const { data, error, loading } = useData("/api/audit", { everyMs: 5000 });
  return html`<div class="head"><h1>Audit</h1><p class="lead">Every action that was asked of this console, refused ones too.</p></div>
    <${Panel} id="audit" wide title="Actions" data=${data} error=${error} loading=${loading} empty=${data && !data.length && html`<p>Nobody has asked for anything yet.</p>`}>
      <div class="scroll" tabindex="0" role="region" aria-label="Actions"><table data-rows data-cards>
        <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">Action</th><th scope="col">Model</th><th scope="col">Outcome</th><th scope="col">Why</th></tr></thead>
        <tbody>${(data || []).map((deed) => html`<tr><th scope="row"><${Time} ms=${deed.asked_ms} /></th><td data-label="Who">${deed.who}<span class="sub">${deed.role}, ${deed.address}</span></td><td data-label="Action">${deed.action}${deed.version ? ` v${deed.version}` : ""}</td>
          <td data-label="Model"><a href=${modelHref(deed.model)}>${deed.model}</a></td><td data-label="Outcome"><span class="tag ${deed.outcome}">${deed.outcome}</span><span class="sub">${deed.detail}</span></td><td data-label="Why">${deed.reason || "–"}</td></tr>`)}</tbody>
      </table></div>
    <//>`;
}

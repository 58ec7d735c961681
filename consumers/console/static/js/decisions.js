// What evaluate wanted done and what it held back: why something was done, or why nothing was.
import { html, useState } from "./ui.js";
import { useData } from "./api.js";
import { Panel, Time } from "./parts.js";
import { choose } from "./url.js";

const WORDS = { held: "held back", commanded: "commanded", begun: "begun", applied: "done", refused: "refused" };
const SHOWN = 8;

export function Decisions({ path }) {
  const { data, error, loading } = useData(`${path}/decisions`, { everyMs: 4000 });
  const [all, show] = useState(false);
  const rows = data || [];
  const shown = all ? rows : rows.slice(0, SHOWN);
  const empty = data && !rows.length && html`<p>Nothing was asked for yet. What harm, or the model’s policy, asks for is here, and why it was not done.</p>`;
  return html`<${Panel} id="decisions" wide title="Decisions" note="What was commanded, and what was held back: by event time." data=${data} error=${error} loading=${loading} empty=${empty}>
    <ol class="history">${shown.map((one) => html`<${Line} one=${one} />`)}</ol>
    ${rows.length > SHOWN && html`<button type="button" class="quiet" aria-expanded=${all ? "true" : "false"} onClick=${() => show(!all)}>${all ? "Show fewer" : `Show all ${rows.length}`}</button>`}
  <//>`;
}

function Line({ one }) {
  const version = one.version !== null && one.outcome !== "held" ? ` v${one.version}` : "";
  return html`<li><b>${one.kind}${version}</b> <span class="tag ${one.outcome}">${WORDS[one.outcome]}</span>${one.reason && ` ${one.reason}`}
    ${one.run_id !== null && html` <button type="button" class="link" onClick=${() => choose({ run: one.run_id })}>run ${one.run_id}</button> <span class="tag ${one.run_verdict}">${one.run_verdict}</span>`}
    <span class="sub">${one.cause ? `asked for by ${CAUSES[one.cause] || one.cause}: ` : ""}${one.asked} · <${Time} ms=${one.t} /></span></li>`;
}

const CAUSES = { harm: "harm", drift: "drift", clock: "the clock", labels: "new labels" };

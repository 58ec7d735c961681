// The newest window by segment: who is served worse than the rest.
import { html } from "./ui.js";
import { count, number, percent, plain, windowName } from "./format.js";
import { useData } from "./api.js";
import { Panel } from "./parts.js";

export function Segments({ path, window, metric, spec }) {
  const { data, error, loading } = useData(`${path}/segments?${new URLSearchParams({ window })}`, { everyMs: 4000 });
  const rows = (data || []).filter((m) => m.metrics[metric]).sort((a, b) => a.segment.localeCompare(b.segment, "en", { numeric: true }));
  const empty = data && !rows.length && html`<p>${spec?.segments?.length ? "No segment was measured yet." : html`The model's spec names no segments. <code>segments = ["plan"]</code> would judge each value of a feature apart.`}</p>`;
  return html`<${Panel} id="segments" title="Segments" note=${windowName(window)} data=${data} error=${error} loading=${loading} empty=${empty}>
    <div class="scroll" tabindex="0" role="region" aria-label="Segments"><table>
      <thead><tr><th scope="col">Segment</th><th scope="col" class="n">${plain(metric)}</th><th scope="col" class="n">95 %</th><th scope="col" class="n">Labelled</th></tr></thead>
      <tbody>${rows.map((m) => html`<tr><th scope="row">${m.segment}</th><td class="n"><b>${number(m.metrics[metric].value)}</b></td>
        <td class="n">${m.metrics[metric].low === undefined ? "–" : `${number(m.metrics[metric].low)}–${number(m.metrics[metric].high)}`}</td>
        <td class="n">${count(m.labelled || 0)} <span class="sub">${percent(m.coverage)}</span></td></tr>`)}</tbody>
    </table></div>
  <//>`;
}

// uPlot, as the console uses it: lines with bands, markers, a text for who cannot see it.
import { html, useEffect, useRef, useState } from "./ui.js";
import { time } from "./format.js";
import { uPlotIsThere } from "./uplot.js";

/** A colour of the style sheet as the canvas needs it, in the theme that is on. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const MARKERS = { version: ["marker-version", "▼"], command: ["marker-command", "◆"], alert: ["marker-alert", "▲"], held: ["marker-held", "◇"] };

/** A tick of the time axis: the clock, with the day where it changes and the year where that does. */
function moment(at, before, zone) {
  const [day, clock] = time(at * 1000, zone, { seconds: false }).split(" ");
  const last = before === undefined ? "" : time(before * 1000, zone, { seconds: false }).split(" ")[0];
  if (day === last) return clock;
  const short = day.slice(0, 4) === last.slice(0, 4) ? day.slice(5) : day;
  return clock === "00:00" ? short : `${clock}\n${short}`;
}

/** Vertical lines where something happened, with a sign on top for each kind. */
function markersPlugin(get) {
  return {
    hooks: {
      draw: (plot) => {
        const { ctx, bbox } = plot;
        const ratio = devicePixelRatio;
        ctx.save();
        ctx.font = `${11 * ratio}px system-ui`;
        ctx.textAlign = "center";
        for (const { t, kind } of get()) {
          const x = plot.valToPos(t / 1000, "x", true);
          if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
          const [name, sign] = MARKERS[kind];
          ctx.strokeStyle = ctx.fillStyle = colour(name);
          ctx.lineWidth = ratio;
          ctx.setLineDash(kind === "version" ? [] : [3 * ratio, 3 * ratio]);
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
          ctx.fillText(sign, x, bbox.top - 3 * ratio);
        }
        ctx.restore();
      },
    },
  };
}

/**
 * A chart that is made once and then only fed.
 * `lines`: [{label, colour, width, dash, band, points}] beside `data`, columns with x in seconds first.
 */
export function Chart({ data, lines, bands, markers, height, label, zone, theme, range, sync, onZoom, onHover, axis }) {
  const host = useRef(null);
  const plot = useRef(null);
  const latest = useRef({});
  latest.current = { markers: markers || [], onZoom, onHover, zone };
  const shape = JSON.stringify([lines.map((line) => [line.label, line.colour, line.dash]), bands, theme, zone, height, axis]);
  const [ready, be] = useState(Boolean(window.uPlot));
  const [problem, fail] = useState("");
  useEffect(() => {
    let here = true;
    if (!ready) uPlotIsThere().then(() => here && be(true), (error) => here && fail(error.message));
    return () => { here = false; };
  }, []);
  useEffect(() => {
    if (!ready) return undefined;
    const grid = { stroke: colour("grid"), width: 1 };
    const text = { stroke: colour("muted"), grid, ticks: grid, font: "12px system-ui" };
    const made = new window.uPlot(
      {
        width: host.current.clientWidth || 300,
        height,
        padding: [markers ? 16 : 6, 12, axis === false ? 8 : 0, 0],
        legend: { show: false },
        cursor: {
          sync: sync ? { key: sync } : undefined,
          drag: { x: Boolean(onZoom), y: false, setScale: false },
          points: { size: 6 },
        },
        scales: { x: { time: true }, y: { range: range || undefined } },
        axes: [
          { ...text, space: 80, show: axis !== false, values: (u, splits) => splits.map((at, i) => moment(at, splits[i - 1], latest.current.zone)) },
          { ...text, size: 56 },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: line.colour ? colour(line.colour) : "transparent",
            width: line.width ?? 2,
            dash: line.dash,
            fill: line.fill ? colour(line.fill) : undefined,
            points: { show: false },
            spanGaps: false,
          })),
        ],
        bands: (bands || []).map((band) => ({ series: band.series, fill: colour(band.colour) })),
        tzDate: (seconds) => (zone === "local" ? new Date(seconds * 1000) : window.uPlot.tzDate(new Date(seconds * 1000), "UTC")),
        plugins: markers ? [markersPlugin(() => latest.current.markers)] : [],
        hooks: {
          setSelect: [
            (u) => {
              if (u.select.width < 8) return;
              const from = u.posToVal(u.select.left, "x") * 1000;
              const to = u.posToVal(u.select.left + u.select.width, "x") * 1000;
              u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              latest.current.onZoom?.(Math.floor(from), Math.ceil(to));
            },
          ],
          setCursor: [(u) => latest.current.onHover?.(u.cursor.idx ?? null)],
        },
      },
      data,
      host.current,
    );
    plot.current = made;
    const fit = new ResizeObserver(() => made.setSize({ width: host.current.clientWidth, height }));
    fit.observe(host.current);
    return () => {
      fit.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, ready]);
  useEffect(() => {
    plot.current?.setData(data);
  }, [data]);
  return html`<div class="chart" ref=${host} role="img" aria-label=${label}>${problem}</div>`;
}

export const span = (series, zone) =>
  series.t.length ? `${time(series.t[0], zone)} to ${time(series.t.at(-1), zone)}` : "no time";

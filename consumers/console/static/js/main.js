// The frame around every page: where to go, how live it is, who is asking, keys.
import { html, render, useCallback, useEffect, useState } from "./ui.js";
import { call } from "./api.js";
import { Fleet } from "./fleet.js";
import { follow, useLive } from "./live.js";
import { Choice, Dialog, Loading, Problem, Time } from "./parts.js";
import { choose, go, usePlace } from "./url.js";
import { listen } from "./keys.js";
import { uPlotIsThere } from "./uplot.js";
import { duration } from "./format.js";

const PAGES = [["/", "Fleet"], ["/alerts", "Alerts"], ["/pipeline", "Pipeline"], ["/events", "Events"], ["/audit", "Audit"]];
const EVERY = [["1", "1 s"], ["2", "2 s"], ["5", "5 s"], ["30", "30 s"]];
const THEMES = ["", "light", "dark"];

/** Pages whose code is fetched when one first goes there; the fleet's comes with the frame. */
const LATER = {
  model: () => import("./model.js").then((code) => code.Model),
  "/alerts": () => import("./alerts.js").then((code) => code.Alerts),
  "/pipeline": () => import("./pipeline.js").then((code) => code.Pipeline),
  "/events": () => import("./events.js").then((code) => code.Events),
  "/audit": () => import("./audit.js").then((code) => code.Audit),
};
const fetched = {};

// What the address wants is on its way while the console is asked who is asking.
if (location.pathname.startsWith("/models/")) {
  LATER.model().catch(() => {});
  uPlotIsThere().catch(() => {});
}

function App() {
  const { path, query } = usePlace();
  const [session, know] = useState(null);
  const [dialog, show] = useState(null);
  const paused = query.get("paused") === "1";
  const every = Number(query.get("refresh")) || 2;
  const model = /^\/models\/(.+)$/.exec(path)?.[1];
  const name = model ? decodeURIComponent(model) : null;
  const whoAmI = useCallback(() => call("/api/session").then(know, () => know({})), []);
  useEffect(() => { whoAmI(); }, []);
  useEffect(() => {
    // Without a role there is nothing to hear: the stream would only be refused.
    if (session && session.role) follow({ model: name, every, paused });
    else if (session) show("signin");
  }, [name, every, paused, session?.role, session?.name]);
  useEffect(() => {
    const ask = () => show("signin");
    addEventListener("driftline:signin", ask);
    return () => removeEventListener("driftline:signin", ask);
  }, []);
  useEffect(() => listen({
    help: () => show("help"),
    pause: () => choose({ paused: new URLSearchParams(location.search).get("paused") === "1" ? null : "1" }),
    theme: nextTheme,
    go,
  }), []);
  useEffect(() => {
    if (!name) document.title = `${PAGES.find(([href]) => href === path)?.[1] || "Console"} · Driftline`;
  }, [path]);
  return html`
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); e.stopPropagation(); document.getElementById("main").focus(); }}>Skip to content</a>
    <header class="top">
      <a class="brand" href="/"><img src="/static/icon.svg" alt="" width="24" height="24" /> Driftline</a>
      <nav aria-label="Pages">${PAGES.map(([href, text]) => html`<a href=${href} aria-current=${href === path || (href === "/" && model) ? "page" : undefined}>${text}</a>`)}</nav>
      <${Liveness} paused=${paused} />
      <div class="settings">
        <${Choice} id="every" label="Every" value=${String(every)} options=${EVERY} onChange=${(v) => choose({ refresh: v === "2" ? null : v })} />
        <${Choice} id="zone" label="Times" value=${query.get("zone") || "utc"} options=${[["utc", "UTC"], ["local", "local"]]} onChange=${(v) => choose({ zone: v === "utc" ? null : v })} />
        <button type="button" class="quiet" onClick=${nextTheme} aria-label="Change theme">◐</button>
        <button type="button" class="quiet" onClick=${() => show("help")} aria-label="Keys and help">?</button>
        <button type="button" class="quiet" onClick=${() => show("signin")}>${session?.signed_in ? session.name : "Sign in"}</button>
      </div>
    </header>
    <main id="main" tabindex="-1">
      ${session?.role && page(path, name, session)}
      ${session && !session.role && html`<div class="mood empty"><p><strong>Sign in to see anything.</strong></p><button type="button" class="primary" onClick=${() => show("signin")}>Sign in</button></div>`}
    </main>
    ${dialog === "help" && html`<${Help} onClose=${() => show(null)} />`}
    ${dialog === "signin" && html`<${SignIn} session=${session} onClose=${() => { show(null); whoAmI(); }} />`}
  `;
}

function page(path, name, session) {
  if (name !== null) return html`<${Later} key=${name} of="model" name=${name} session=${session} />`;
  if (LATER[path]) return html`<${Later} key=${path} of=${path} session=${session} />`;
  return html`<${Fleet} />`;
}

function Later({ of, ...props }) {
  const [, came] = useState(false);
  const [failed, fail] = useState(false);
  useEffect(() => {
    if (!fetched[of]) LATER[of]().then((page) => { fetched[of] = page; came(true); }, () => fail(true));
  }, []);
  if (fetched[of]) return html`<${fetched[of]} ...${props} />`;
  if (!failed) return html`<${Loading} />`;
  // A browser may remember that a module could not be fetched: only a new page asks again.
  return html`<${Problem} error=${{ message: "its code could not be fetched; is the console still running?" }} />
    <p><button type="button" class="primary" onClick=${() => location.reload()}>Load the page again</button></p>`;
}

const LIVE = {
  connecting: ["waiting", "connecting"], live: ["good", "live"], paused: ["held", "paused"], lost: ["bad", "console away"],
};

/** Whether what is shown is of now, and a button to hold it still. */
function Liveness({ paused }) {
  const { mode, reader, now, heard } = useLive();
  const away = mode === "live" && reader?.state === "away";
  const [kind, word] = away ? ["bad", "Kafka away"] : LIVE[mode];
  const told = away ? `${reader.problem} (for ${duration(now - reader.since_ms)}). What you see is the past.` : mode === "lost" ? "the console does not answer; it is tried again" : "";
  return html`<div class="liveness" role="status">
    <span class="dot ${kind}" aria-hidden="true"></span><span>${word}</span>
    ${paused && heard > 0 && html`<span class="muted">as of <${Time} ms=${now} /></span>`}
    ${told && html`<span class="told">${told}</span>`}
    <button type="button" class="quiet" onClick=${() => choose({ paused: paused ? null : "1" })}>${paused ? "Resume" : "Pause"}</button>
  </div>`;
}

function nextTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("driftline.theme", root.dataset.theme);
  } catch { /* it holds until the page is left */ }
  dispatchEvent(new PopStateEvent("popstate")); // charts are drawn in the new colours
}

const KEYS = [["?", "this list"], ["/", "search"], ["j k", "next, previous row"], ["Enter", "open the row"], ["p", "pause or resume"], ["t", "light or dark"], ["g f", "fleet"], ["g a", "alerts"], ["g p", "pipeline"], ["g e", "events"], ["Esc", "close"]];

function Help({ onClose }) {
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <dl class="card keys">${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <h3>How to read it</h3>
    <p><b>Harmed</b>: evidence that the live loss exceeds what was validated; it may command a retrain or a rollback. <b>Data broken</b>: values are missing or never seen. <b>Inputs changed</b>: drift, which explains but never acts. <b>Stale</b>: nothing was measured for a while. <b>No labels</b>: predictions come, labels do not.</p>
    <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>Close</button></div>
  <//>`;
}

function SignIn({ session, onClose }) {
  const [token, type] = useState("");
  const [problem, fail] = useState("");
  const enter = async (event) => {
    event.preventDefault();
    try {
      await call("/api/session", { method: "POST", body: { token } });
      onClose();
    } catch (error) {
      fail(error.message);
    }
  };
  const leave = async () => {
    await call("/api/session", { method: "DELETE" }).catch(() => {});
    onClose();
  };
  return html`<${Dialog} title=${session?.signed_in ? "Signed in" : "Sign in"} onClose=${onClose}>
    ${session?.signed_in && html`<p>As <b>${session.name}</b>, who may ${session.role === "operate" ? "operate: promote, roll back, pin" : "read"}.</p>`}
    <p class="muted">Tokens are made where the console runs:</p>
    <pre>driftline console token new ${"YOUR-NAME"} --role operate</pre>
    <form onSubmit=${enter}>
      <label class="field">Token<input type="password" name="token" autocomplete="current-password" value=${token} onInput=${(e) => type(e.target.value)} required /></label>
      ${problem && html`<p class="mood failed" role="alert">${problem}</p>`}
      <div class="buttons">
        ${session?.signed_in && html`<button type="button" class="quiet" onClick=${leave}>Sign out</button>`}
        <button type="button" class="quiet" onClick=${onClose}>Cancel</button><button type="submit" class="primary">Sign in</button></div>
    </form>
  <//>`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);

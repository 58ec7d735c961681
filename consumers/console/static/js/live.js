// The one stream of a page: rows as they change; closed while paused or hidden, resumed where it was.
import { useEffect, useState } from "./ui.js";

const state = {
  rows: new Map(), // model -> fleet row
  tick: 0, // grows with every message that changed something
  now: null, // the console's clock, ms
  heard: 0, // ours, of the last message
  reader: null, // how the console reads Kafka
  mode: "connecting", // connecting, live, paused, lost
  loaded: false,
};
const listeners = new Set();
const wanted = { model: null, every: 2, paused: false };
let source = null;
let last = "";
let queued = false;

function tell() {
  if (queued) return;
  queued = true;
  queueMicrotask(() => {
    queued = false;
    listeners.forEach((listener) => listener());
  });
}

export function useLive() {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((n) => n + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return state;
}

/** Now by the console's clock, for ages. */
export const now = () => (state.now === null ? Date.now() : state.now + (Date.now() - state.heard));

/** What this page wants to hear of. */
export function follow({ model = wanted.model, every = wanted.every, paused = wanted.paused }) {
  const other = model !== wanted.model;
  if (!other && every === wanted.every && paused === wanted.paused && source) return;
  Object.assign(wanted, { model, every, paused });
  if (other) {
    last = "";
    state.loaded = false;
  }
  open();
}

function open() {
  source?.close();
  source = null;
  if (wanted.paused || document.hidden) {
    state.mode = wanted.paused ? "paused" : state.mode;
    tell();
    return;
  }
  state.mode = "connecting";
  const query = new URLSearchParams({ every: wanted.every, last });
  if (wanted.model) query.set("model", wanted.model);
  source = new EventSource(`/api/stream?${query}`);
  source.onmessage = take;
  source.onerror = () => {
    state.mode = "lost";
    // A refused stream is closed for good by the browser; one that broke is opened again by it.
    if (source?.readyState === EventSource.CLOSED) setTimeout(() => state.mode === "lost" && open(), 3000);
    tell();
  };
  tell();
}

function take(message) {
  last = message.lastEventId;
  const update = JSON.parse(message.data);
  if (update.whole) state.rows = new Map();
  for (const row of update.rows) state.rows.set(row.model, row);
  if (update.rows.length || update.whole) {
    state.rows = new Map(state.rows); // a new identity, for whoever compares
    state.tick += 1;
  }
  Object.assign(state, {
    now: update.now_ms, heard: Date.now(), reader: update.reader, mode: "live", loaded: true,
  });
  tell();
}

/** Pages that hear of no rows (pipeline, audit) are renewed by time. */
setInterval(() => {
  if (state.mode !== "live" || document.hidden) return;
  state.tick += 1;
  tell();
}, 5000);

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) open();
  else {
    source?.close();
    source = null;
  }
});

// Talking to the console: one fetch with sentences for errors, one hook for data that is renewed.
import { useEffect, useRef, useState } from "./ui.js";
import { useLive } from "./live.js";

export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(path, { method = "GET", body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "the console does not answer; is `driftline console` still running?");
  }
  const data = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/api/session") dispatchEvent(new Event("driftline:signin"));
  if (!answer.ok && data.applied === undefined) {
    throw new Failure(answer.status, data.error || `the console answered ${answer.status}`);
  }
  return data;
}

/** Fetches one path again and again, never twice at a time and never more often than asked. */
class Renewal {
  constructor(path, everyMs, set) {
    Object.assign(this, { path, everyMs, set, abort: new AbortController(), at: 0, busy: false, timer: 0 });
  }

  async run() {
    this.timer = 0;
    this.busy = true;
    this.at = Date.now();
    try {
      const data = await call(this.path, { signal: this.abort.signal });
      this.set({ path: this.path, data, error: null });
    } catch (error) {
      if (error.name === "AbortError") return;
      // What was there stays: old figures with a note beat none.
      this.set((old) => ({ path: this.path, data: old.path === this.path ? old.data : null, error }));
    } finally {
      this.busy = false;
    }
  }

  due() {
    if (this.busy || this.timer) return;
    this.timer = setTimeout(() => this.run(), Math.max(0, this.at + this.everyMs - Date.now()));
  }

  stop() {
    clearTimeout(this.timer);
    this.abort.abort();
  }
}

/**
 * What lies under a path, renewed while the page is live.
 * Returns {data, error, loading, again}.
 */
export function useData(path, { live = true, everyMs = 2000 } = {}) {
  const [state, set] = useState({ path: null, data: null, error: null });
  const renewal = useRef(null);
  const { tick } = useLive();
  useEffect(() => {
    if (!path) return undefined;
    const mine = new Renewal(path, everyMs, set);
    renewal.current = mine;
    mine.run();
    return () => mine.stop();
  }, [path]);
  useEffect(() => {
    if (live) renewal.current?.due();
  }, [tick]);
  const mine = state.path === path;
  return {
    data: mine ? state.data : null,
    error: mine ? state.error : null,
    loading: !mine && Boolean(path),
    again: () => renewal.current?.run(),
  };
}

// Where we are: the path says which page, the query what is chosen on it. Back and reload work.
import { useEffect, useState } from "./ui.js";

const listeners = new Set();
const tell = () => listeners.forEach((listener) => listener());
addEventListener("popstate", tell);

export function place() {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

export function usePlace() {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((n) => n + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return place();
}

/** To another page; an ordinary click on a link does the same. */
export function go(href) {
  history.pushState(null, "", href);
  tell();
  scrollTo(0, 0);
}

/** Choose something on this page; null takes it out. */
export function choose(changes, { push = false } = {}) {
  const { path, query } = place();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history[push ? "pushState" : "replaceState"](null, "", text ? `${path}?${text}` : path);
  tell();
}

export const modelHref = (name) => `/models/${encodeURIComponent(name)}`;

/** Links of ours change the page without loading it again. */
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || "plain" in link.dataset || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});

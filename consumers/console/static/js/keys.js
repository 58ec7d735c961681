// Keys: one letter each, never while somebody types, never instead of the browser's own.

const GO = { f: "/", a: "/alerts", p: "/pipeline", e: "/events" };

const typing = (target) => target.closest?.("input, select, textarea, [contenteditable]");

/** Rows that j and k walk over: what is marked so on the page, and can be seen. */
const rows = () => [...document.querySelectorAll("[data-rows] tbody tr, ul[data-rows] > li")].filter((row) => row.offsetParent);

function walk(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.contains(document.activeElement));
  const next = all[Math.min(all.length - 1, Math.max(0, at === -1 ? (step > 0 ? 0 : all.length - 1) : at + step))];
  const target = next.querySelector("a, button") || next;
  target.focus();
  target.scrollIntoView({ block: "nearest" });
}

export function listen({ help, pause, theme, go }) {
  let going = 0;
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
    const { key } = event;
    if (Date.now() - going < 1500 && GO[key]) {
      going = 0;
      go(GO[key]);
    } else if (key === "g") going = Date.now();
    else if (key === "?") help();
    else if (key === "p") pause();
    else if (key === "t") theme();
    else if (key === "j" || key === "k") walk(key === "j" ? 1 : -1);
    else if (key === "/") document.getElementById("search")?.focus();
    else return;
    event.preventDefault();
  };
  addEventListener("keydown", press);
  return () => removeEventListener("keydown", press);
}

// The library that draws charts, fetched when it is wanted.
let coming = null;

/** Fetch uPlot, once, when the first chart wants to be drawn; its address stands in the page, since
 * the page's policy lets no script make one. */
export function uPlotIsThere() {
  coming ??= new Promise((done, failed) => {
    const script = document.getElementById("charts").content.firstElementChild.cloneNode();
    script.onload = done;
    script.onerror = () => {
      script.remove();
      coming = null; // the next chart asks again
      failed(new Error("the code that draws charts could not be fetched"));
    };
    document.head.append(script);
  });
  return coming;
}

// Stands in the page, under the hash that its policy names: brings the page's module once the page has been painted, and
// then does what somebody wanted of it before. Asked for at once, modules took a fifth of the time to the first paint.

{
  const UNSEEN_MS = 1000; // a window behind others is not painted, and is not hidden either
  const HELD = ["click", "submit", "input", "change"];
  const { module } = document.currentScript.dataset;
  const early = [];

  const hold = (event) => {
    const { type, target, submitter } = event;
    if (type === "click" && !target.closest("button[type=button]")) return; // links, and what becomes a submit
    if (type === "submit") event.preventDefault();
    early.push({ type, target, submitter });
  };

  const again = ({ type, target, submitter }) => {
    if (type === "click") target.closest("button").click();
    else if (type === "submit") target.requestSubmit(submitter);
    else target.dispatchEvent(new Event(type, { bubbles: true }));
  };

  const painted = new Promise((resolve) => {
    if (document.hidden || !window.PerformanceObserver?.supportedEntryTypes?.includes("paint")) return resolve();
    new PerformanceObserver(resolve).observe({ type: "paint", buffered: true });
    setTimeout(resolve, UNSEEN_MS);
  });

  for (const type of HELD) addEventListener(type, hold, true);
  const here = () => {
    for (const type of HELD) removeEventListener(type, hold, true);
    early.forEach(again); // without its module, too: a form is then sent as without scripts
  };
  painted.then(() => import(module)).finally(here);
}

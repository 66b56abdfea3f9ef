// Stands in the page, under the hash that its policy names: brings the page's module once the page has been painted, and
// then does what somebody wanted of it before. Asked for at once, modules took a fifth of the time to the first paint.

{
  const UNSEEN_MS = 1000; // a window behind others is not painted, and is not hidden either
  const { module } = document.currentScript.dataset;
  const early = [];

  const changed = ({ type, target }) => () => target.dispatchEvent(new Event(type, { bubbles: true }));

  /** Take the files while the event lasts, and let no browser open them in the place of the page. */
  const dropped = (event) => {
    const target = event.target.closest?.(".drop")?.querySelector("input");
    if (!target) return null;
    event.preventDefault();
    if (event.type !== "drop" || !event.dataTransfer.files.length) return null;
    target.files = event.dataTransfer.files;
    return changed({ type: "change", target });
  };

  // What each event is to the page without its module, and what does it again; nothing where the browser does it.
  const HELD = {
    input: changed,
    change: changed,
    click: ({ target }) => {
      const button = target.closest("button[type=button]"); // not links, nor what becomes a submit
      return button && (() => button.click());
    },
    submit: (event) => {
      event.preventDefault();
      return () => event.target.requestSubmit(event.submitter);
    },
    keydown: (event) => {
      const { target, key, shiftKey, isComposing } = event;
      if (key !== "Enter" || shiftKey || isComposing || !target.matches("[data-enter=sends]")) return null;
      event.preventDefault();
      return () => target.form.requestSubmit();
    },
    dragenter: dropped,
    dragover: dropped,
    drop: dropped,
  };

  const hold = (event) => {
    const again = HELD[event.type](event);
    if (again) early.push(again);
  };

  const painted = new Promise((resolve) => {
    if (document.hidden || !window.PerformanceObserver?.supportedEntryTypes?.includes("paint")) return resolve();
    new PerformanceObserver(resolve).observe({ type: "paint", buffered: true });
    setTimeout(resolve, UNSEEN_MS);
  });

  for (const type in HELD) addEventListener(type, hold, true);
  const here = () => {
    for (const type in HELD) removeEventListener(type, hold, true);
    for (const again of early) again(); // without its module, too: a form is then sent as without scripts
  };
  painted.then(() => import(module)).finally(here);
}

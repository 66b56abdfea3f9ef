// What the server does now, for the map. One connection for all tabs of a browser: the tab that has the lock has it,
// and tells the others; a tab that nobody sees gives it up.

import { Chart } from "./chart.js";
import { byId, count, make, size } from "./stream.js";

const NAME = "activity";
const AGAIN_MS = 3000;

const CHARTS = [
  ["streams", "Open streams", count, ({ streams }) => streams],
  ["clients", "Clients", count, ({ clients }) => clients],
  ["bytes", "Bytes a second", size, ({ bytes_s }) => bytes_s],
  ["events", "Events a second", count, ({ events_s }) => events_s],
  ["behind", "Readers behind", count, ({ behind }) => behind],
];

export function watchActivity() {
  const charts = CHARTS.map(([id, title, write, value]) => ({ id, write, value, chart: new Chart(byId(`${id}-chart`), title, write) }));
  const channel = window.BroadcastChannel && new BroadcastChannel(NAME);
  const show = ({ state, activity }) => {
    if (state) badge(state);
    if (activity) draw(charts, activity);
  };
  if (channel) channel.onmessage = ({ data }) => show(data);
  const tell = (told) => {
    show(told);
    channel?.postMessage(told);
  };
  let visit = null;
  const look = () => {
    visit?.abort();
    visit = document.hidden ? null : new AbortController();
    if (visit) lead(tell, visit.signal);
  };
  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", () => visit?.abort());
  addEventListener("pageshow", ({ persisted }) => persisted && look());
  look();
}

/** Have the connection while no other tab has it, until `signal`. */
async function lead(tell, signal) {
  if (!navigator.locks) return follow(tell, signal);
  await navigator.locks.request(NAME, { signal }, () => follow(tell, signal)).catch(() => {});
}

async function follow(tell, signal) {
  let source = null;
  let timer = 0;
  const open = () => {
    source = new EventSource("/api/activity");
    source.onopen = () => tell({ state: "connected" });
    source.onerror = () => {
      tell({ state: "error" });
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN_MS);
    };
    source.addEventListener("activity", ({ data }) => tell({ state: "connected", activity: JSON.parse(data) }));
  };
  open();
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  clearTimeout(timer);
  source.close();
}

function badge(state) {
  if (byId("now-state").dataset.state === state) return;
  byId("now-state").dataset.state = state;
  byId("now-state").textContent = state;
}

function draw(charts, activity) {
  for (const { id, write, value, chart } of charts) {
    chart.push(value(activity));
    byId(id).textContent = write(value(activity));
  }
  const kinds = Object.entries(activity.kinds);
  byId("now-kinds").replaceChildren(...kinds.map(([kind, open]) => bar(kind, open, activity.streams)));
}

/** One kind of stream: its name, how many there are, and their part of all. */
function bar(kind, open, all) {
  const item = make("li");
  item.append(make("span", kind), make("progress", "", { max: all, value: open, ariaLabel: `${kind}: ${open} of ${all}` }), make("b", count(open)));
  return item;
}

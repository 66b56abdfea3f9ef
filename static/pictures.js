// What a card shows of its stream: text, ticks, a list of events, tokens, or bytes with their rate.
//
// Each picture has add(item, bytes), seam(cursor) where a connection was lost, end(), and counts `received`. Nothing
// grows without a bound.

import { Chart } from "./chart.js";
import { count, eachFrame, make, size, Tail } from "./stream.js";

const KINDS = { text: showText, ticks: showTicks, events: showEvents, tokens: showTokens, bytes: showBytes };
const SHOWN_TICKS = 120;
const SHOWN_EVENTS = 30;
const SHOWN_TOKENS = 2000;
const RATE_MS = 250;

/** The picture in `element`, empty. */
export function pictureOf(element) {
  element.replaceChildren();
  const picture = { received: 0, end() {}, expect() {} };
  const shown = KINDS[element.dataset.view](element, picture);
  const add = (item, bytes) => {
    picture.received += bytes;
    shown.add(item, bytes);
  };
  return Object.assign(picture, shown, { add });
}

const seamText = (cursor) => `— resumed after ${cursor} —`;

function showText(element) {
  const tail = new Tail(element.appendChild(make("pre")), 4000, element);
  const decoder = new TextDecoder();
  let last = "\n";
  const add = (text) => {
    tail.add(text);
    last = text.at(-1) ?? last;
  };
  return {
    add: (item) => add(typeof item === "string" ? item : decoder.decode(item, { stream: true })),
    seam: (cursor) => add(`${last === "\n" ? "" : "\n"}${seamText(cursor)}\n`),
  };
}

function showTicks(element) {
  const list = make("ol", "", { className: "ticks" });
  const last = make("pre");
  element.append(list, last);
  const tick = (item) => {
    list.append(item);
    if (list.children.length > SHOWN_TICKS) list.firstElementChild.remove();
  };
  return {
    add({ id, data }) {
      if (!data) return;
      tick(make("li", id ?? ""));
      last.textContent = data;
    },
    seam: (cursor) => tick(make("li", "", { className: "seam", title: seamText(cursor) })),
  };
}

function showEvents(element) {
  const list = element.appendChild(make("ol", "", { className: "rows" }));
  const row = (...parts) => {
    const item = make("li");
    item.append(...parts);
    list.prepend(item);
    if (list.children.length > SHOWN_EVENTS) list.lastElementChild.remove();
  };
  return {
    add: ({ type, data }) => data && type !== "control" && row(make("b", type), " ", make("code", data)),
    seam: (cursor) => row(make("i", seamText(cursor))),
  };
}

function showTokens(element) {
  const total = make("small", "0 tokens");
  const text = make("p", "", { className: "tokens" });
  element.append(text, total);
  let tokens = 0;
  const put = (item) => {
    text.append(item);
    if (text.childNodes.length > SHOWN_TOKENS) text.firstChild.remove();
    element.scrollTop = element.scrollHeight;
  };
  return {
    add({ data }) {
      if (!data?.startsWith("{")) return;
      const { type, delta } = JSON.parse(data);
      if (type !== "text-delta") return;
      put(make("span", delta));
      total.textContent = `${count(++tokens)} tokens`;
    },
    seam: (cursor) => put(make("i", ` ${seamText(cursor)} `)),
  };
}

function showBytes(element, picture) {
  const figure = make("p", "", { className: "figure" });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const bar = make("progress", "", { max: 1, value: 0, ariaLabel: "Received" });
  const seams = make("small");
  element.append(figure, svg, bar, seams);
  const chart = new Chart(svg, "Bytes a second", size);
  let [length, before, at] = [0, 0, performance.now()];
  const draw = eachFrame(() => {
    figure.textContent = length ? `${size(picture.received)} of ${size(length)}` : size(picture.received);
    if (length) bar.value = picture.received / length;
  });
  const timer = setInterval(() => {
    const now = performance.now();
    chart.push(((picture.received - before) / (now - at)) * 1000);
    [before, at] = [picture.received, now];
  }, RATE_MS);
  return {
    expect(bytes) {
      length = bytes;
      bar.hidden = !length;
    },
    add: draw,
    seam: (cursor) => (seams.textContent = seamText(cursor)),
    end() {
      clearInterval(timer);
      draw();
    },
  };
}

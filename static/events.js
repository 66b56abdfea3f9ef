// The EventSource consumer: connecting, connected, disconnected or error; and the list of what came.

import { byId, count, explain, make, randomId, say } from "./stream.js";

const TYPES = ["connected", "notification", "complete", "stream-reset", "stream-error"];
const SHOWN = 500;
const RETRY_MS = 1000;
const RETRY_MAX_MS = 30_000;

const form = byId("listen");
const topic = byId("topic");
const follow = byId("follow");

let source = null; // null: nothing is open and nothing will be tried
let last = ""; // the cursor: the id of the newest event
let pulled = false;
let received = 0;
let failures = 0;
let retry = 0;

function connect(after = "") {
  disconnect();
  if (!form.reportValidity()) return show("disconnected");
  const query = new URLSearchParams({ topic: topic.value, ...(follow.checked && { follow: "1" }) });
  history.replaceState(null, "", `?${query}`);
  if (after) query.set("after", after);
  source = new EventSource(`/api/events?${query}`);
  source.addEventListener("open", opened);
  source.addEventListener("error", failed);
  for (const type of TYPES) source.addEventListener(type, receive);
  show("connecting");
}

function disconnect() {
  clearTimeout(retry);
  source?.close();
  source = null;
  pulled = false;
}

function begin() {
  last = "";
  received = 0;
  failures = 0;
  byId("events").replaceChildren();
  byId("resumed").textContent = "–";
  figures();
  connect();
}

function opened() {
  failures = 0;
  show("connected");
}

async function failed() {
  const dead = source;
  if (dead.readyState === EventSource.CONNECTING) return show("error", "The connection was lost; the browser reconnects.");
  // Any answer but 200, also a proxy's 502, ends an EventSource for good, and does not say why. What time may heal is
  // tried again from the cursor.
  const status = await fetch(dead.url, { method: "HEAD" }).then((answer) => answer.status, () => 0);
  if (source !== dead) return;
  if (status >= 400 && status < 500 && status !== 429) return end("error", `The server refused with ${status}.`);
  const delay_ms = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** failures++) * (0.5 + Math.random());
  show("error", `The server refused; trying again in ${(delay_ms / 1000).toFixed(1)} s.`);
  retry = setTimeout(resume, delay_ms);
}

function end(state, detail = "") {
  disconnect();
  show(state, detail);
}

function resume() {
  byId("resumed").textContent = last || "the beginning";
  connect(last);
}

function receive(event) {
  last = event.lastEventId || last;
  received += 1;
  list(event);
  figures();
  if (event.type === "complete") end("disconnected", "Complete.");
}

function list({ type, lastEventId, data }) {
  const item = make("li");
  item.classList.toggle("odd", type.startsWith("stream-"));
  item.append(make("b", type), make("small", lastEventId), make("code", data));
  byId("events").prepend(item);
  if (byId("events").children.length > SHOWN) byId("events").lastElementChild.remove();
}

function figures() {
  byId("count").textContent = count(received);
  byId("last").textContent = last || "–";
  byId("empty").hidden = received > 0;
}

function show(state, detail = "") {
  byId("status").textContent = state;
  byId("status").dataset.state = state;
  byId("detail").textContent = detail;
  byId("connect").textContent = source ? "Disconnect" : "Connect";
  byId("plug").textContent = pulled ? "Plug in again" : "Pull the plug";
  byId("plug").disabled = !source && !pulled;
}

byId("plug").addEventListener("click", () => {
  if (pulled) return resume();
  disconnect();
  pulled = true;
  show("disconnected", "The plug is pulled.");
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (source) end("disconnected");
  else begin();
});

for (const control of [topic, follow]) control.addEventListener("change", begin);

// A key for each message, kept until it is published: a second click after a lost answer publishes nothing twice.
let attempt = {};

byId("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const target = `/api/notifications?${new URLSearchParams({ topic: topic.value })}`;
  const body = JSON.stringify({ message: byId("message").value });
  if (attempt.body !== body || attempt.target !== target) attempt = { body, target, key: randomId() };
  try {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": attempt.key };
    const response = await fetch(target, { method: "POST", headers, body });
    if (!response.ok) throw new Error(await explain(response));
    attempt = {};
    event.target.reset();
    say(byId("published"), `Published with id ${(await response.json()).id}`);
  } catch (error) {
    say(byId("published"), error.message, true);
  }
});

const asked = new URLSearchParams(location.search);
topic.value = asked.get("topic") ?? topic.value;
follow.checked = asked.get("follow") === "1";
begin();

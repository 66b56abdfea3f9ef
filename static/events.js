// The EventSource consumer: connecting, connected, disconnected or error; and the list of what came.

import { connect as connectEvents } from "./eventstream.js";
import { byId, count, explain, lost, make, randomId, say } from "./stream.js";

const SHOWN = 500;

const form = byId("listen");
const topic = byId("topic");
const follow = byId("follow");

let stream = null; // null: nothing is open and nothing will be tried
let last = ""; // the cursor: the id of the newest event
let pulled = false;
let received = 0;

// Enter in the topic, and a button that was pressed before this module came, ask for a connection and never for its end.
let early = true;
setTimeout(() => (early = false));

function connect(after = "") {
  disconnect();
  if (!form.reportValidity()) return show("disconnected");
  const query = new URLSearchParams({ topic: topic.value, ...(follow.checked && { follow: "1" }) });
  history.replaceState(null, "", `?${query}`);
  const hooks = { onEvent: receive, onStatus: told };
  stream = connectEvents({ topics: [topic.value], follow: follow.checked, after, ...hooks });
  show("connecting");
}

function disconnect() {
  stream?.close();
  stream = null;
  pulled = false;
}

function begin() {
  last = "";
  received = 0;
  byId("events").replaceChildren();
  byId("resumed").textContent = "–";
  figures();
  connect();
}

function told(state, detail, ended) {
  if (ended) disconnect();
  show(state, detail);
}

function end(state) {
  disconnect();
  show(state);
}

function resume() {
  byId("resumed").textContent = last || "the beginning";
  connect(last);
}

function receive(event) {
  last = event.id || last;
  received += 1;
  list(event);
  figures();
}

function list({ type, id, data }) {
  const item = make("li");
  item.classList.toggle("odd", type.startsWith("stream-"));
  item.append(make("b", type), make("small", id), make("code", JSON.stringify(data)));
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
  byId("connect").textContent = stream ? "Disconnect" : "Connect";
  byId("plug").textContent = pulled ? "Plug in again" : "Pull the plug";
  byId("plug").disabled = !stream && !pulled;
}

byId("plug").addEventListener("click", () => {
  if (pulled) return resume();
  disconnect();
  pulled = true;
  show("disconnected", "The plug is pulled.");
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!stream) begin();
  else if (!early && document.activeElement !== topic) end("disconnected");
});

// A topic that was entered while nothing is open waits for the button, whose click comes behind this event.
topic.addEventListener("change", () => stream && begin());
follow.addEventListener("change", begin);

// A key for each message, kept until it is published: a second click after a lost answer publishes nothing twice.
let attempt = {};

byId("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const target = `/api/notifications?${new URLSearchParams({ topic: topic.value })}`;
  const body = JSON.stringify({ message: byId("message").value });
  if (attempt.body !== body || attempt.target !== target) attempt = { body, target, key: randomId() };
  try {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": attempt.key };
    const response = await fetch(target, { method: "POST", headers, body }).catch(lost);
    if (!response.ok) throw new Error(await explain(response));
    attempt = {};
    event.target.reset();
    say(byId("published"), `Published with id ${(await response.json()).id}`);
  } catch (error) {
    say(byId("published"), error.message, true);
  }
});

begin();

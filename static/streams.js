// Durable streams: list them, follow one, append to it, close it, fork it, delete it.

import { FULL, holdPlace } from "./places.js";
import { byId, count, disable, elsewhere, explain, lost, make, say, size } from "./stream.js";

const SHOWN = 500;

let path = "";
let type = "";
let source = null;
let wanted = null; // ends what waits for a connection, or has one
let offset = "-1"; // the cursor: after it the next reader goes on
let pulled = false;
let opening = Promise.resolve(); // the stream of the address: what is done before it is there waits for it
let shown = 0; // events; of what is no JSON bytes, which is all that one can count there

// An apostrophe, too: the address stands between two of them in the line for a shell.
const address = (of) => `/v1/stream/${of.split("/").map(encodeURIComponent).join("/").replaceAll("'", "%27")}`;

// The list

async function list(after = "") {
  const query = new URLSearchParams({ ...(byId("prefix").value && { prefix: byId("prefix").value }), ...(after && { after }) });
  const response = await ask(`/api/streams?${query}`);
  const { streams, after: next } = await response.json();
  const items = streams.map(row);
  const focused = document.activeElement?.id === "more";
  if (after) byId("list").append(...items);
  else byId("list").replaceChildren(...items);
  byId("empty").textContent = byId("prefix").value ? "No path begins with this." : "No stream yet.";
  byId("empty").hidden = byId("list").children.length > 0;
  more(next);
  if (focused) items[0]?.querySelector("a").focus();
}

function row(stream) {
  const item = make("li");
  const link = make("a", stream.path, { href: `/streams?${new URLSearchParams({ path: stream.path })}` });
  link.dataset.path = stream.path;
  if (stream.path === path) link.ariaCurrent = "true";
  link.append(make("small", `${count(stream.events)}${stream.closed ? " · closed" : ""}`));
  item.append(link);
  return item;
}

function more(after) {
  byId("more")?.remove();
  if (!after) return;
  const link = make("a", "More", { id: "more", className: "button quiet", href: `/streams?${new URLSearchParams({ after })}` });
  link.dataset.after = after;
  byId("list").after(link);
}

// One stream

async function open(chosen) {
  const response = await ask(address(chosen), { method: "HEAD" });
  disconnect();
  [path, type, offset, shown] = [chosen, response.headers.get("Content-Type"), "-1", 0];
  history.replaceState(null, "", `?${new URLSearchParams({ path })}`);
  byId("stream-title").textContent = path;
  byId("type").textContent = type;
  byId("curl").textContent = `curl -N '${location.origin}${address(path)}?offset=-1&live=sse'`;
  byId("raw").href = address(path);
  byId("events").replaceChildren();
  byId("stream").hidden = false;
  byId("none").hidden = true;
  for (const link of byId("list").querySelectorAll("a")) link.ariaCurrent = link.dataset.path === path ? "true" : null;
  say(byId("state"), "");
  closed(false);
  figures();
  connect();
}

async function connect() {
  const { signal } = (wanted = new AbortController());
  show("connecting");
  if (!(await holdPlace(signal, () => show("connecting", FULL)))) return;
  source = new EventSource(`${address(path)}?${new URLSearchParams({ offset, live: "sse" })}`);
  source.onopen = () => show("connected");
  source.onerror = () => show("error", source.readyState === EventSource.CLOSED ? "The server refused." : "The browser reconnects.");
  source.addEventListener("data", ({ data }) => received(data));
  source.addEventListener("control", ({ data }) => control(JSON.parse(data)));
}

function disconnect() {
  wanted?.abort();
  source?.close();
  source = null;
  pulled = false;
}

const isJson = () => type.startsWith("application/json");

function received(data) {
  if (isJson()) for (const each of JSON.parse(data)) add(JSON.stringify(each), 1);
  else if (type.startsWith("text/")) add(data, new TextEncoder().encode(data).length);
  else add(...hex(atob(data.replaceAll("\n", ""))));
}

function add(text, much) {
  shown += much;
  const line = make("li");
  line.append(make("code", text));
  byId("events").prepend(line);
  if (byId("events").children.length > SHOWN) byId("events").lastElementChild.remove();
}

const hex = (bytes) => [Array.from(bytes, (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join(" "), bytes.length];

function control({ streamNextOffset, streamClosed }) {
  offset = streamNextOffset;
  figures();
  if (!streamClosed) return;
  disconnect();
  closed(true);
  show("disconnected", "Closed: nothing will be added.");
}

function closed(is) {
  for (const button of [byId("close"), byId("plug"), byId("append").querySelector("button")]) disable(button, is, byId("stream-title"));
}

function figures() {
  byId("unit").textContent = isJson() ? "Events" : "Received";
  byId("count").textContent = isJson() ? count(shown) : size(shown);
  byId("offset").textContent = offset;
}

function show(state, detail = "") {
  byId("status").textContent = state;
  byId("status").dataset.state = state;
  byId("detail").textContent = detail;
  byId("plug").textContent = pulled ? "Plug in again" : "Pull the plug";
}

// What is asked for

async function ask(where, options = {}) {
  const response = await fetch(where, { cache: "no-store", ...options }).catch(lost);
  if (!response.ok) throw new Error(await explain(response));
  return response;
}

/** Do `work`, and say in `element` what came of it. */
const doing = (element, work) => async (event) => {
  event.preventDefault();
  try {
    await opening;
    say(byId(element), (await work(event)) ?? "");
  } catch (error) {
    say(byId(element), error.message, true);
  }
};

const put = (where, headers) => ask(address(where), { method: "PUT", headers });

byId("find").addEventListener("submit", doing("made", () => list()));

byId("make").addEventListener("submit", doing("made", async ({ target }) => {
  const made = byId("path").value;
  await put(made, { "Content-Type": byId("kind").value });
  target.reset();
  await Promise.all([list(), open(made)]);
}));

byId("append").addEventListener("submit", doing("state", async ({ target }) => {
  await ask(address(path), { method: "POST", headers: { "Content-Type": type }, body: message() });
  target.reset();
}));

/** What was typed; for a stream of JSON as it is when it is JSON, and as a text otherwise. */
function message() {
  const text = byId("message").value;
  if (!type.startsWith("application/json")) return type.startsWith("text/") ? `${text}\n` : text;
  try {
    return JSON.stringify([JSON.parse(text)]);
  } catch {
    return JSON.stringify([text]);
  }
}

byId("fork").addEventListener("submit", doing("state", async ({ target }) => {
  const fork = byId("fork-path").value;
  await put(fork, { "Stream-Forked-From": address(path), "Stream-Fork-Offset": offset, "Content-Type": type });
  target.reset();
  await open(fork);
  await list();
}));

byId("close").addEventListener("click", doing("state", async () => {
  await ask(address(path), { method: "POST", headers: { "Stream-Closed": "true" } });
  await list();
}));

byId("delete").addEventListener("click", doing("made", async () => {
  await ask(address(path), { method: "DELETE" });
  disconnect();
  const gone = path;
  path = "";
  byId("stream").hidden = true;
  byId("none").hidden = false;
  byId("none").textContent = "Choose a stream, or make one.";
  history.replaceState(null, "", "/streams");
  byId("path").focus();
  await list();
  return `${gone} is deleted.`;
}));

byId("plug").addEventListener("click", () => {
  if (pulled) {
    pulled = false;
    return connect();
  }
  disconnect();
  pulled = true;
  show("disconnected", "The plug is pulled.");
});

document.addEventListener("click", (event) => {
  const { dataset } = event.target.closest("a") ?? { dataset: {} };
  if (elsewhere(event)) return;
  if (dataset.path) {
    doing("made", () => open(dataset.path).then(() => byId("stream-title").focus()))(event);
  } else if (dataset.after) doing("made", () => list(dataset.after))(event);
});

const asked = new URLSearchParams(location.search).get("path");
if (asked) opening = open(asked).catch((error) => say(byId("made"), error.message, true));

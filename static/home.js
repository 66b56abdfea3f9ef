// The map: each card's stream can be started, watched and stopped.

import { byId, count, randomId, readStream, readText, say, size, Tail } from "./stream.js";

// A browser opens six connections to one HTTP/1.1 server. The upload takes two, and one must stay free for the next click.
const MAX_RUNNING = 4;
const running = new Map();
const { origin } = byId("cards").dataset;

for (const card of byId("cards").children) {
  const part = (selector) => card.querySelector(selector);
  const view = {
    card: card.dataset,
    button: part("[data-action=start]"),
    wire: part(".wire"),
    state: part(".state"),
    title: part("h2").lastChild.textContent,
  };
  const code = part("code");
  // Behind a proxy the server is known by another name than its own.
  for (const text of code.childNodes) text.nodeValue &&= text.nodeValue.replaceAll(origin, location.origin);
  view.button.addEventListener("click", () => (running.has(view) ? running.get(view).abort() : start(view)));
  part("[data-action=copy]").addEventListener("click", (event) => copy(code, event.currentTarget));
}

async function start(view) {
  const [oldest] = running.keys();
  if (running.size >= MAX_RUNNING) running.get(oldest).abort();
  const abort = new AbortController();
  running.set(view, abort);
  label(view, "Stop");
  view.wire.hidden = false;
  say(view.state, "Live");
  try {
    const received = await run(view, abort.signal);
    say(view.state, `Ended cleanly, ${size(received)}`);
  } catch (error) {
    say(view.state, abort.signal.aborted ? "Stopped" : error.message, !abort.signal.aborted);
  } finally {
    running.delete(view);
    label(view, "Start");
  }
}

function label({ button, title }, verb) {
  button.textContent = verb;
  button.setAttribute("aria-label", `${verb} ${title}`);
  button.setAttribute("aria-pressed", verb === "Stop");
}

function run(view, signal) {
  const { path, method, type, body, range, upload, bytes } = view.card;
  if (upload > 0) return sendFile(view, signal);
  const headers = { ...(type && { "Content-Type": type }), ...(range && { Range: range }) };
  const options = { method, headers, signal, body: body || undefined };
  if (bytes !== undefined) return readCounted(view, path, options);
  const tail = new Tail(view.wire);
  return readText(path, options, (text) => tail.add(text));
}

/** Show the head of an answer that is no text, and how much of it has come. */
function readCounted({ wire }, path, options) {
  let received = 0;
  return readStream(path, options, (piece, response) => {
    received += piece.length;
    const head = ["content-type", "content-range", "content-length"].map((name) => `${name}: ${response.headers.get(name)}`);
    wire.textContent = `${response.status} ${response.statusText}\n${head.join("\n")}\n\n${count(received)} bytes received`;
  });
}

/** Send a made-up file and show the progress that the server reports meanwhile. */
async function sendFile({ card, wire }, signal) {
  const id = randomId();
  const tail = new Tail(wire);
  const watching = readText(`/api/upload-progress/${id}`, { signal }, (text) => tail.add(text));
  const options = { method: "POST", headers: { "Content-Type": card.type }, body: new Uint8Array(Number(card.upload)), signal };
  const [received] = await Promise.all([watching, readText(`${card.path}&id=${id}`, options, () => {})]);
  return received;
}

async function copy(code, button) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(code.textContent);
  } else {
    // Plain http:// to another machine has no clipboard object.
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

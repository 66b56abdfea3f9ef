// Transform: type a text or drop a file, and read the answer while it is made.
//
// Each edit is a request of its own: a body that grows while it is sent needs HTTP/2 in browsers.

import { byId, disable, eachFrame, make, readStream, say, size, Tail } from "./stream.js";

const PAUSE_MS = 150; // after the last key
const MOST = 8;
const KEPT_BYTES = 64 * 2 ** 20; // a longer answer cannot be saved, only watched
const HEX_BYTES = 512;

const names = [...byId("add").options].map(({ value }) => value).filter(Boolean);
const asked = new URLSearchParams(location.search).get("to")?.split(",").filter((name) => names.includes(name)) ?? [];
const chain = asked.length ? asked.slice(0, MOST) : ["upper"];
let file = null;
let timer = 0;
let running = null;

const address = () => `/api/transform?to=${chain.join(",")}`;

/** Start anew with what is there now, and give up what was under way. */
async function run() {
  clearTimeout(timer);
  running?.abort();
  forget();
  const body = file ?? new Blob([byId("text").value]);
  if (!body.size || !chain.length) return show(body.size ? "Choose a transform." : "");
  const abort = new AbortController();
  running = abort;
  byId("stop").disabled = false;
  byId("sent").textContent = size(body.size);
  say(byId("state"), "Live");
  const answer = new Answer();
  try {
    const received = await readStream(address(), { method: "POST", body, signal: abort.signal }, (...piece) => answer.add(...piece));
    if (!received) byId("wire").textContent = "";
    answer.offer();
    say(byId("state"), `Ended cleanly, ${size(received)}`);
  } catch (error) {
    if (running !== abort) return; // a newer one has taken over
    say(byId("state"), abort.signal.aborted ? "Stopped" : error.message, !abort.signal.aborted);
  }
  if (running === abort) disable(byId("stop"), true, byId("text"));
}

/** What has come back: text as it is, an archive in hex, and all of it to be saved. */
class Answer {
  #tail = null;
  #decoder = new TextDecoder();
  #pieces = [];
  #received = 0;
  #type = "";
  #draw = eachFrame(() => (byId("received").textContent = size(this.#received)));

  add(bytes, response) {
    this.#type = response.headers.get("Content-Type");
    if (!this.#received) this.#begin();
    this.#received += bytes.length;
    if (this.#received <= KEPT_BYTES) this.#pieces.push(bytes);
    else this.#pieces = [];
    if (this.#tail) this.#tail.add(this.#decoder.decode(bytes, { stream: true }));
    else if (this.#received - bytes.length < HEX_BYTES) byId("wire").textContent = hex(this.#pieces);
    this.#draw();
  }

  #begin() {
    byId("type").textContent = this.#type;
    if (!/gzip|zstd/.test(this.#type)) this.#tail = new Tail(byId("wire"), 20_000);
  }

  offer() {
    if (!this.#pieces.length) return;
    const save = byId("save");
    save.href = URL.createObjectURL(new Blob(this.#pieces, { type: this.#type }));
    save.download = `${file?.name ?? "answer"}.${ending(this.#type)}`;
    save.hidden = false;
  }
}

function ending(type) {
  const [, found] = type.match(/(gzip|zstd|ndjson|csv|plain)/) ?? [];
  return { gzip: "gz", zstd: "zst", ndjson: "ndjson", csv: "csv", plain: "txt" }[found] ?? "out";
}

function hex(pieces) {
  const bytes = new Uint8Array(HEX_BYTES);
  let at = 0;
  for (const piece of pieces) {
    const part = piece.subarray(0, HEX_BYTES - at);
    bytes.set(part, at);
    at += part.length;
  }
  return Array.from(bytes.subarray(0, at), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function forget() {
  const save = byId("save");
  if (save.href) URL.revokeObjectURL(save.href);
  save.removeAttribute("href");
  save.hidden = true;
}

function show(text) {
  running = null;
  disable(byId("stop"), true, byId("text"));
  byId("wire").textContent = "";
  for (const name of ["sent", "received", "type"]) byId(name).textContent = "–";
  say(byId("state"), text);
}

function draw() {
  byId("chain").replaceChildren(
    ...chain.map((name, place) => {
      const item = make("li");
      const button = make("button", `${name} ×`, { type: "button", className: "quiet", ariaLabel: `Remove ${name}` });
      button.addEventListener("click", () => {
        change(() => chain.splice(place, 1));
        byId("add").focus();
      });
      item.append(button);
      return item;
    }),
  );
  byId("add").value = "";
  byId("add").disabled = chain.length >= MOST;
  byId("url").textContent = address();
}

function change(edit) {
  edit();
  draw();
  run();
}

function choose(chosen) {
  file = chosen ?? null;
  run();
}

byId("add").addEventListener("change", ({ target }) => target.value && change(() => chain.push(target.value)));
byId("stop").addEventListener("click", () => running?.abort());
byId("file").addEventListener("change", ({ target }) => choose(target.files[0]));
byId("transform").addEventListener("submit", (event) => event.preventDefault());

byId("text").addEventListener("input", () => {
  file = null;
  byId("file").value = "";
  clearTimeout(timer);
  timer = setTimeout(run, PAUSE_MS);
});

const drop = byId("drop");

for (const type of ["dragenter", "dragover"]) {
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}

drop.addEventListener("dragleave", () => drop.classList.remove("over"));

drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  byId("file").files = event.dataTransfer.files;
  choose(event.dataTransfer.files[0]);
});

draw();
if (byId("text").value) run(); // what the browser has kept over a reload

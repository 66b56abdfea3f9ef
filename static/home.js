// The map: each card's stream can be started, watched, cut off and stopped; and what the server does, live.

import { FULL, PLACES, takePlace } from "./places.js";
import { byId, explain, lost, say, size } from "./stream.js";

const PLUGGED_OUT_MS = 1500;
const JSON_TYPE = { "Content-Type": "application/json" };
const { origin } = byId("cards").dataset;
const running = new Map();

// What a card needs once it runs.
const parts = Promise.all([import("./pictures.js"), import("./resume.js"), import("./uploads.js")]);
parts.catch(() => {}); // said by the card that is started

class Card {
  #beginning = false;
  #element;
  #part;
  #picture;
  #stop = null; // ends the stream; its signal is that of the whole
  #plug = null; // ends the connection
  #state;

  constructor(element) {
    this.#element = element;
    this.#part = (selector) => element.querySelector(selector);
    this.#state = this.#part(".state");
    this.#part("[data-action=start]").addEventListener("click", () => (this.#stop ? this.stop() : this.start()));
    this.#part("[data-action=plug]")?.addEventListener("click", () => this.#plug?.abort());
    this.#part("[data-action=publish]")?.addEventListener("click", () => this.#publish());
    const code = this.#part("code");
    // Behind a proxy the server is known by another name than its own.
    for (const text of code.childNodes) text.nodeValue &&= text.nodeValue.replaceAll(origin, location.origin);
    this.#part("[data-action=copy]").addEventListener("click", (event) => copy(code, event.currentTarget));
  }

  stop() {
    this.#stop.abort();
    this.#plug?.abort();
  }

  async start() {
    if (this.#beginning) return;
    this.#beginning = true;
    const found = await parts.catch(() => null);
    const leave = found && (await placeOfCard());
    this.#beginning = false;
    if (!found) return say(this.#state, "A part of this page could not be fetched: load it again.", true);
    if (!leave) return say(this.#state, FULL, true);
    this.#stop = new AbortController();
    running.set(this, this.#stop);
    this.#label("Stop");
    const [{ pictureOf }, { Resumed }, uploads] = found;
    this.#picture = pictureOf(this.#part(".picture"));
    say(this.#state, "Live");
    try {
      await this.#run(this.#sender(uploads) ?? new Resumed(this.#element.dataset, this.#picture, (text) => say(this.#state, text)));
      say(this.#state, `Ended cleanly, ${size(this.#picture.received)}`);
    } catch (error) {
      say(this.#state, this.#stop.signal.aborted ? "Stopped" : error.message, !this.#stop.signal.aborted);
    } finally {
      this.#picture.end();
      this.#stop = null;
      running.delete(this);
      this.#label("Start");
      leave();
    }
  }

  /** Read to the end, over as many connections as the plug makes of it. */
  async #run(stream) {
    const { create } = this.#element.dataset;
    if (create) await fetch(create, { method: "PUT", headers: JSON_TYPE }).catch(lost);
    while (!(await this.#connected(stream))) {
      say(this.#state, `Unplugged after ${stream.shown}`);
      await new Promise((resolve) => setTimeout(resolve, PLUGGED_OUT_MS));
      this.#stop.signal.throwIfAborted();
      this.#picture.seam(stream.shown);
      say(this.#state, `Live, resumed after ${stream.shown}`);
    }
  }

  #sender({ sendFile, sendResumable }) {
    const { path, total, resume } = this.#element.dataset;
    if (Number(total) && !resume) return { connect: (signal) => sendFile(path, Number(total), this.#picture, signal) };
    return resume === "upload" ? sendResumable(path, Number(total), this.#picture) : null;
  }

  /** Have one connection; return whether it came to the end, and not to that of its plug. */
  async #connected(stream) {
    this.#plug = new AbortController();
    this.#pluggable(true);
    try {
      await stream.connect(this.#plug.signal);
      return true;
    } catch (error) {
      if (!this.#plug.signal.aborted || this.#stop.signal.aborted) throw error;
      return false;
    } finally {
      this.#plug = null;
      this.#pluggable(false);
    }
  }

  #pluggable(can) {
    const button = this.#part("[data-action=plug]");
    button?.setAttribute("aria-disabled", !can); // not disabled, which would lose its focus
  }

  #label(verb) {
    const button = this.#part("[data-action=start]");
    button.textContent = verb;
    button.setAttribute("aria-label", `${verb} ${this.#part("h2").textContent}`);
    button.classList.toggle("quiet", verb === "Stop");
  }

  async #publish() {
    const { publish, create } = this.#element.dataset;
    const body = JSON.stringify({ message: "Hello from the map", at: new Date().toISOString() });
    const asked = create ? fetch(create, { method: "PUT", headers: JSON_TYPE }) : Promise.resolve();
    const answer = await asked.then(() => fetch(publish, { method: "POST", headers: JSON_TYPE, body })).catch(() => null);
    if (!answer?.ok) say(this.#state, answer ? await explain(answer) : "The server cannot be reached.", true);
    else if (!this.#stop || this.#state.classList.contains("failed")) say(this.#state, "Published");
  }
}

/** Take one of the browser's places, if need be from the oldest card of this page; return what gives it back. */
async function placeOfCard() {
  if (running.size >= PLACES.length) running.keys().next().value.stop();
  for (let tries = 0; tries < 3; tries += 1) {
    const leave = await takePlace();
    if (leave) return leave;
    await new Promise((resolve) => setTimeout(resolve, 100)); // the one that was stopped above
  }
  return null;
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

for (const element of byId("cards").children) new Card(element);
import("./activity.js").then(({ watchActivity }) => watchActivity());

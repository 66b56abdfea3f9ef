// One stream over as many connections as it takes: each way of the server to go on where a connection was lost.
//
// Rules:
// - Only what is whole is handed on and moves the cursor: a line, a frame, bytes. The rest of a lost connection is
//   forgotten, and comes again.
// - Nothing comes twice, and nothing is left out: the cursor is that of the last thing handed on.

import { count, explain, lost } from "./stream.js";

const SLOW_MS = 100;
const AGAIN_MS = 1000; // the retry of EventSource, too
const TRIES = 8;
const PASSING = [429, 502, 503, 504]; // a server that restarts, or what stands before it

class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.passes = PASSING.includes(status);
  }
}

/**
 * The stream of a card. `connect(signal)` reads until its end, from the cursor on; abort, and connect again. What is lost
 * meanwhile, and what a server that restarts hands over, it goes on with by itself; `told(sentence)` says so.
 *
 * `picture.add(item, bytes)` gets each line, each event ({id, type, data}) or piece of bytes.
 */
export class Resumed {
  #card;
  #picture;
  #way;
  #again = "";
  #validator = "";
  #cursor = "";
  #bytes = 0;
  #begun = false;
  #ended = false;
  #told;

  constructor(card, picture, told) {
    [this.#card, this.#picture, this.#told] = [card, picture, told];
    this.#way = WAYS[card.resume];
  }

  /** The cursor, as a person reads it. */
  get shown() {
    return this.#way.bytes ? `byte ${count(this.#bytes)}` : this.#cursor || "the beginning";
  }

  async connect(signal) {
    for (let tries = 0, lostAt = null; ; tries += 1) {
      const before = this.#bytes;
      try {
        if (await this.#connected(signal, lostAt)) return;
      } catch (error) {
        if (this.#bytes !== before) tries = 0;
        const passes = error.passes || error.cause instanceof TypeError; // what fetch and its body fail with
        if (!passes || !this.#begun || tries === TRIES) throw error;
        this.#told(`${error.message} Going on after ${this.shown}.`);
      }
      lostAt = this.shown;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS * Math.min(4, 1 + tries)));
      signal.throwIfAborted();
    }
  }

  /** Have one connection; return whether the stream has come to its end. */
  async #connected(signal, lostAt) {
    const decoder = this.#way.decoder?.((item, cursor, bytes) => this.#give(item, cursor, bytes));
    if (this.#begun && this.#way.durable) {
      await this.#readDurable(signal);
      return true;
    }
    const skip = this.#begun && this.#way.skip ? this.#bytes : 0;
    const response = await this.#ask(signal);
    if (response.status === 204) return true;
    if (lostAt !== null) this.#resumed(lostAt);
    await this.#read(response, skip, decoder, signal);
    return !this.#way.last || this.#ended;
  }

  #resumed(shown) {
    this.#picture.seam(shown);
    this.#told(`Live, resumed after ${shown}`);
  }

  async #ask(signal) {
    const { path, method, type, body, repeat } = this.#card;
    const again = this.#begun && (this.#again || path);
    const first = { method, body: body ? body.repeat(Number(repeat)) : undefined, headers: type ? { "Content-Type": type } : {} };
    const options = again && this.#again ? { headers: {} } : first;
    const [address, headers] = again ? this.#way.resume(again, this) : [path, {}];
    const response = await fetch(address, { cache: "no-store", ...options, headers: { ...options.headers, ...headers }, signal }).catch(lost);
    if (!response.ok) throw new Refused(await explain(response), response.status);
    this.#remember(response);
    return response;
  }

  #remember({ headers, status }) {
    if (this.#begun && this.#way.range && status !== 206) throw new Error("The file has changed meanwhile.");
    if (this.#begun) return;
    this.#begun = true;
    this.#validator = headers.get("ETag") ?? "";
    if (this.#card.again) this.#again = this.#card.again.replace("{run}", headers.get("X-Run-Id"));
    if (this.#way.durable) this.#again = headers.get("Location");
    this.#picture.expect?.(Number(headers.get("Content-Length")) || 0);
  }

  get cursor() {
    return this.#cursor;
  }

  get bytes() {
    return this.#bytes;
  }

  get validator() {
    return this.#validator;
  }

  async #read(response, skip, decoder, signal) {
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read().catch(lost);
      if (done) return;
      const fresh = value.subarray(Math.min(skip, value.length));
      skip -= value.length - fresh.length;
      await this.#take(fresh, decoder, signal);
    }
  }

  /** Hand on what came; of a card that is to be watched, a slice at a time: its connection fills, and the server waits. */
  async #take(fresh, decoder, signal) {
    const slice = Number(this.#card.slow) || fresh.length;
    for (let start = 0; start < fresh.length; start += slice) {
      const bytes = fresh.subarray(start, start + slice);
      if (decoder) decoder(bytes);
      else this.#give(bytes, "", bytes.length);
      if (!this.#card.slow) continue;
      await new Promise((resolve) => setTimeout(resolve, SLOW_MS));
      signal.throwIfAborted();
    }
  }

  /** Read what a run left in the log, from its beginning, without what has been handed on. */
  async #readDurable(signal) {
    let skip = this.#bytes;
    for (let offset = "-1", closed = false; !closed; ) {
      const options = { cache: "no-store", signal };
      const response = await fetch(`${this.#again}?live=long-poll&offset=${offset}`, options).catch(lost);
      if (!response.ok) throw new Refused(await explain(response), response.status);
      offset = response.headers.get("Stream-Next-Offset");
      closed = response.headers.get("Stream-Closed") === "true";
      const length = Number(response.headers.get("Content-Length"));
      await this.#read(response, skip, null, signal);
      skip = Math.max(0, skip - length);
    }
  }

  #give(item, cursor, bytes) {
    if (cursor) this.#cursor = cursor;
    this.#ended ||= this.#way.last?.(item) ?? false;
    this.#bytes += bytes;
    this.#picture.add(item, bytes);
  }
}

const withAfter = (path, { cursor }) => [cursor ? `${path}${path.includes("?") ? "&" : "?"}after=${cursor}` : path, {}];

const WAYS = {
  line: { resume: withAfter, decoder: lines((line) => line.match(/\d+/)?.[0]) },
  key: { resume: withAfter, decoder: lines((line) => line && JSON.parse(line).id) },
  item: { resume: withAfter, decoder: lines((line) => line && JSON.parse(line).item) },
  event: {
    last: isLast,
    resume: (path, { cursor }) => [path, cursor ? { "Last-Event-ID": cursor } : {}],
    decoder: frames,
  },
  range: {
    bytes: true,
    range: true,
    resume: (path, { bytes, validator }) => [path, { Range: `bytes=${bytes}-`, "If-Range": validator }],
  },
  skip: { bytes: true, skip: true, resume: (path) => [path, {}] },
  durable: { bytes: true, durable: true },
};

/** Whether an event says that there is nothing more. A stream that ends without one may have been handed over. */
function isLast({ type, data }) {
  if (type === "complete" || data === "[DONE]") return true;
  return type === "control" && JSON.parse(data).streamClosed === true;
}

function lines(cursorOf) {
  return separated("\n", (line, give, bytes) => give(`${line}\n`, String(cursorOf(line) ?? ""), bytes));
}

function frames(give) {
  return separated("\n\n", (frame, each, bytes) => {
    const fields = new Map();
    for (const line of frame.split("\n")) {
      const [, name, value] = line.match(/^([a-z]+): ?(.*)$/) ?? [];
      if (name) fields.set(name, name === "data" && fields.has(name) ? `${fields.get(name)}\n${value}` : value);
    }
    each({ id: fields.get("id"), type: fields.get("event") ?? "message", data: fields.get("data") }, fields.get("id") ?? "", bytes);
  })(give);
}

/** Cut text at each `end`, and hand on what is whole with its size in bytes. */
function separated(end, each) {
  return (give) => {
    const decoder = new TextDecoder();
    const encoder = new TextEncoder();
    let rest = "";
    return (bytes) => {
      const whole = (rest + decoder.decode(bytes, { stream: true })).split(end);
      rest = whole.pop();
      for (const text of whole) each(text, give, encoder.encode(text).length + end.length);
    };
  };
}

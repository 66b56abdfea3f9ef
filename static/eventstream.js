// Events of the server for a page, whatever happens to its connection, and one connection for all tabs.
//
//   const stream = connect({ topics: ["kitchen"], onEvent: ({ type, data }) => …, onStatus: (state) => … });
//
// Rules:
// - Every event is handed on once and in order. The cursor is the truth: each tab remembers its own.
// - Of the tabs that follow the same topics one leads (Web Locks): it has the connection and passes on what comes
//   (BroadcastChannel). The others see by its cursor whether it is the next event for them; one who has a gap fetches
//   what lies between. When the leading tab goes, the next one continues from its own cursor.
// - Without Web Locks (plain http://, an old browser) each tab has a connection of its own.

import { FULL, holdPlace } from "./places.js";
import { readText } from "./stream.js";

const OWN_TYPES = ["connected", "complete", "stream-reset", "stream-error"];
const RETRY_MS = 1000;
const RETRY_MAX_MS = 30_000;

/**
 * Follow `topics` from the cursor `after` (empty: from their beginning) until `close()`; without `follow` up to what is
 * stored now. `types` are the types of event to listen for, besides the stream's own.
 *
 * onEvent({ type, id, topic, data }): `id` is the cursor after it, `data` the parsed JSON.
 * onStatus(state, detail, ended): connecting (it waits for a connection that other tabs have), connected, error (it is
 * tried again unless `ended`) or disconnected.
 */
export function connect({ topics = ["default"], types = ["notification"], follow = true, after = "", ...hooks }) {
  return new Stream([...topics].sort(), [...types].sort(), follow, after, hooks);
}

/** A cursor as a map of topic → offset; that of one topic is a plain offset. Offsets sort as text. */
const parse = (cursor) =>
  new Map(/[:=]/.test(cursor) ? cursor.split(",").map((part) => part.split(/[:=]/)) : [["", cursor]]);

const write = (offsets) =>
  offsets.has("") ? offsets.get("") : Array.from(offsets, (part) => part.join(":")).sort().join(",");

/** The topic of the event with this id: its part has an equals sign; "" where there is one topic only. */
const topicOf = (id) => id.match(/(?:^|,)([^,:=]+)=/)?.[1] ?? "";

const backoff_ms = (failures) => Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** failures) * (0.5 + Math.random());

class Stream {
  #query;
  #topics;
  #types;
  #hooks;
  #offsets;
  #closed = new AbortController();
  #channel = null;
  #connection = null;
  #status = ["connecting", "", false];
  #catching = null;
  #heard = [];

  constructor(topics, types, follow, after, hooks) {
    this.#query = { topic: topics.join(","), ...(follow && { follow: "1" }) };
    [this.#topics, this.#types, this.#hooks] = [topics, types, hooks];
    this.#offsets = after || topics.length === 1 ? parse(after) : new Map(topics.map((topic) => [topic, ""]));
    if (follow && navigator.locks && window.BroadcastChannel) this.#share(`events ${topics} ${types}`);
    else this.#lead();
  }

  /** The cursor from which `connect` continues after what was handed on. */
  get cursor() {
    return write(this.#offsets);
  }

  close() {
    this.#closed.abort();
    this.#connection?.close();
    this.#channel?.close();
  }

  // Who leads

  async #share(name) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    let led = false;
    const lead = () => ((led = true), this.#lead());
    try {
      await navigator.locks.request(name, { ifAvailable: true }, (lock) => lock && lead());
      if (led || this.#closed.signal.aborted) return;
      this.#post({ hello: true });
      this.#catchUp();
      await navigator.locks.request(name, { signal: this.#closed.signal }, lead);
    } catch {
      if (!this.#closed.signal.aborted && !led) this.#lead(); // locks are forbidden here (a sandbox)
    }
  }

  /** Have the connection; resolves when it is closed, and with it the lock given back. */
  async #lead() {
    while (this.#catching) await this.#catching;
    if (!(await holdPlace(this.#closed.signal, () => this.said("connecting", FULL)))) return;
    this.#connection = new Connection(this.#query, [...OWN_TYPES, ...this.#types], this);
    this.#connection.open();
    await new Promise((resolve) => this.#closed.signal.addEventListener("abort", resolve));
  }

  #post(message) {
    if (!this.#closed.signal.aborted) this.#channel?.postMessage(message);
  }

  // What the connection says, in the tab that leads

  arrived({ type, lastEventId: id, data: text }) {
    const before = this.#offsets;
    if (id) this.#offsets = parse(id);
    const [topic, data] = [topicOf(id), JSON.parse(text)];
    if (type === "stream-reset") this.#post({ look: true }); // what became of another tab's cursor is its own matter
    else if (!OWN_TYPES.includes(type)) this.#post({ before: before.get(topic) ?? "", topic, type, id, data });
    this.#give({ type, id, topic, data });
    if (type === "complete") this.#end("Complete.");
  }

  said(state, detail = "", ended = false) {
    this.#say(state, detail, ended);
    this.#post({ status: this.#status });
  }

  #end(detail) {
    this.close();
    this.#say("disconnected", detail, true);
  }

  // What the tab that leads passes on, in the others

  #hear(message) {
    if (this.#connection) {
      if (message.hello) this.#post({ status: this.#status });
    } else if (message.status) this.#say(...message.status);
    else if (message.look) this.#catchUp();
    else if (message.type) this.#weigh(message);
  }

  #weigh(message) {
    if (this.#catching) return this.#heard.push(message);
    const { before, ...event } = message;
    const mine = this.#offsets.get(event.topic) ?? "";
    if (mine === before) this.#take(event);
    else if (mine < parse(event.id).get(event.topic)) this.#catchUp(); // else it came already
  }

  /** Fetch what is stored after the cursor, until that has succeeded; then look at what was passed on meanwhile. */
  async #catchUp() {
    if (this.#catching || this.#closed.signal.aborted) return;
    this.#catching = this.#fetch();
    await this.#catching;
    this.#catching = null;
    for (const message of this.#heard.splice(0)) if (!this.#connection) this.#weigh(message);
  }

  async #fetch() {
    for (let failures = 0; !this.#closed.signal.aborted; failures++) {
      try {
        return await this.#fetchOnce();
      } catch {
        await new Promise((resolve) => setTimeout(resolve, backoff_ms(failures)));
      }
    }
  }

  async #fetchOnce() {
    const query = new URLSearchParams({ topic: this.#query.topic, ...(this.cursor && { after: this.cursor }) });
    const headers = { Accept: "application/x-ndjson" };
    let rest = "";
    let complete = false;
    await readText(`/api/events?${query}`, { headers, signal: this.#closed.signal }, (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines.filter(Boolean)) complete = this.#fetched(JSON.parse(line)) || complete;
    });
    if (!complete) throw new Error("The stream ended before it was complete.");
  }

  /** Take a line; return whether it was the last. */
  #fetched({ type, id, topic = "", data }) {
    if (type === "stream-drain") return false; // the server restarts: what is missing is asked for again
    if (type === "stream-reset") this.#offsets = parse(id);
    if (!OWN_TYPES.includes(type)) this.#take({ type, id, topic, data });
    else if (type !== "complete") this.#give({ type, id, topic, data });
    return type === "complete";
  }

  // For the page

  #take(event) {
    this.#offsets.set(event.topic, parse(event.id).get(event.topic));
    this.#give(event);
  }

  #give(event) {
    const { type, data } = event;
    if (this.#closed.signal.aborted || ![...OWN_TYPES, ...this.#types].includes(type)) return;
    const topic = event.topic || (type === "stream-reset" && data.topic) || this.#topics[0];
    this.#hooks.onEvent?.({ ...event, topic });
  }

  #say(...status) {
    this.#status = status;
    if (!this.#closed.signal.aborted || status[2]) this.#hooks.onStatus?.(...status);
  }
}

/** An EventSource that is made again when the browser has given up: after any answer but 200. */
class Connection {
  #query;
  #types;
  #stream;
  #source = null;
  #failures = 0;
  #retry = 0;

  constructor(query, types, stream) {
    [this.#query, this.#types, this.#stream] = [query, types, stream];
  }

  #url() {
    const after = this.#stream.cursor;
    return `/api/events?${new URLSearchParams({ ...this.#query, ...(after && { after }) })}`;
  }

  open() {
    const source = new EventSource(this.#url());
    source.onopen = () => this.#opened();
    source.onerror = () => this.#failed(source);
    for (const type of this.#types) source.addEventListener(type, (event) => this.#stream.arrived(event));
    this.#source = source;
  }

  close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #opened() {
    this.#failures = 0;
    this.#stream.said("connected");
  }

  async #failed(source) {
    if (source.readyState === EventSource.CONNECTING) {
      return this.#stream.said("error", "The connection was lost; the browser reconnects.");
    }
    // An EventSource does not say why it died; a refusal that time does not heal is not tried again.
    const status = await fetch(this.#url(), { method: "HEAD" }).then((answer) => answer.status, () => 0);
    if (this.#source !== source) return;
    if (status === 204) return this.#stream.said("disconnected", "The stream has ended.", true);
    if (status >= 400 && status < 500 && status !== 429) {
      return this.#stream.said("error", `The server refused with ${status}.`, true);
    }
    const delay_ms = backoff_ms(this.#failures++);
    this.#stream.said("error", `The server refused; trying again in ${(delay_ms / 1000).toFixed(1)} s.`);
    this.#retry = setTimeout(() => this.open(), delay_ms);
  }
}

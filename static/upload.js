// Upload: tus in the browser (vendor/tus-js-client), one row for each upload, here or in another tab.
//
// Rules:
// - What has been stored is the server's own count, told by its progress stream; the browser's is only what it has sent.
// - Where an upload can be continued is kept by tus-js-client in localStorage: for this page after a reload, and for
//   every other tab, which shows it and does not touch it while its own tab is there (Web Locks, where there are any).
// - A row's sentence changes ten times a second: a screen reader is told the turns of an upload only, in the one live
//   region of the page.
// - A browser has six connections to a server (HTTP/1.1), for all its tabs: of all of them two uploads are sent at a
//   time, the others wait for their turn, and two follow their stream.

import "./vendor/tus-js-client/tus.min.js"; // puts window.tus there
import { holdPlace, takePlace } from "./places.js";
import { byId, make, say, sentence, size } from "./stream.js";

const { tus } = window;
const ENDPOINT = "/api/uploads";
const RETRY_MS = [0, 500, 1000, 2000, 4000, 8000, 15_000, 30_000];
const WATCHED = [0, 1];
const SENT = [3, 2];
const DAY_MS = 86_400_000;

const storage = tus.defaultOptions.urlStorage;
const rows = new Map(); // by the upload's URL
const watched = new Set();

/** One upload as it is shown. `file` is there only in the tab that sends it. */
class Row {
  url = "";
  #upload;
  #progress = null;
  #element = byId("row").content.firstElementChild.cloneNode(true);
  #release = () => {};
  #leave = () => {};
  #turn = new AbortController();
  #told = null; // what had been stored when its stream began: said again, and no news
  #paused = false;

  constructor(name, total) {
    this.total = total;
    this.name = name;
    this.#part(".name").textContent = name;
    this.#part(".pause").addEventListener("click", () => (this.#paused ? this.#start() : this.#pause()));
    this.#part(".cancel").addEventListener("click", () => this.#cancel());
    this.#bar("sent", 0);
    this.#bar("stored", 0);
    byId("uploads").append(this.#element);
    byId("running").hidden = false;
  }

  /** Show an upload that this tab does not send: its own tab may, or nobody does. */
  static known({ uploadUrl, size: total, metadata, creationTime }) {
    if (rows.has(path(uploadUrl)) || Date.now() - Date.parse(creationTime) > DAY_MS) return;
    const row = new Row(metadata.filename, total);
    row.#part(".pause").hidden = true;
    row.#found(path(uploadUrl));
    row.say("Begun in another tab, or before this page was loaded: choose the same file to go on.");
  }

  /** Whether it is sent elsewhere, if at all. */
  get shown() {
    return !this.#upload;
  }

  get watched() {
    return watched.has(this);
  }

  /** Send `file`, from where it stopped if it had been begun: `previous` is what was kept of that. */
  send(file, previous) {
    this.#part(".pause").hidden = false;
    this.#upload = new tus.Upload(file, {
      endpoint: ENDPOINT,
      retryDelays: RETRY_MS,
      metadata: { filename: file.name, filetype: file.type },
      removeFingerprintOnSuccess: true,
      onUploadUrlAvailable: () => this.#found(new URL(this.#upload.url, location).pathname),
      onProgress: (sent) => this.#bar("sent", sent),
      onSuccess: ({ lastResponse }) => this.#stored(lastResponse.getHeader("Content-Location")),
      onError: (error) => this.#failed(error),
    });
    if (previous) this.#upload.resumeFromPreviousUpload(previous);
    if (this.url) hold(this.url).then((release) => (this.#release = release ?? this.#release));
    this.#start();
  }

  say(text, failed = false) {
    say(this.#part(".state"), text, failed);
  }

  /** Say what has become of it, also to those who do not see the row. */
  #tell(text, failed = false) {
    this.say(text, failed);
    say(byId("state"), `${this.name}: ${text}`, failed);
  }

  async #start() {
    this.#paused = false;
    this.#part(".pause").textContent = "Pause";
    const { signal } = (this.#turn = new AbortController());
    if (!(await holdPlace(signal, () => this.#tell("Waits for its turn: others are being sent."), SENT))) return;
    this.#tell("Uploading");
    this.#upload.start();
  }

  async #pause() {
    this.#paused = true;
    this.#part(".pause").textContent = "Resume";
    await this.#upload.abort();
    this.#turn.abort();
    this.#tell("Paused: what has been stored stays.");
  }

  async #cancel() {
    if (this.#upload) await this.#upload.abort();
    if (this.url) await fetch(this.url, { method: "DELETE", headers: { "Tus-Resumable": "1.0.0" } }).catch(() => {});
    await forget(this.url);
    this.remove();
    say(byId("state"), `Cancelled ${this.name}.`);
  }

  /** The upload has its URL: from now on it can be continued, and watched. */
  #found(url) {
    if (this.url === url) return;
    this.url = url;
    rows.set(url, this);
    this.#watch();
    if (this.#upload) hold(url).then((release) => (this.#release = release ?? this.#release));
  }

  async #watch() {
    if (this.watched) return;
    watched.add(this);
    const leave = await takePlace(WATCHED);
    if (!leave || !this.#element.isConnected) {
      leave?.();
      watched.delete(this);
      return;
    }
    this.#leave = leave;
    this.#progress = new EventSource(`/api/upload-progress/${this.url.split("/").pop()}`);
    this.#progress.addEventListener("progress", ({ data }) => this.#moved(JSON.parse(data)));
    this.#progress.addEventListener("complete", ({ data }) => {
      const { url, received } = JSON.parse(data);
      this.#bar("stored", received);
      this.#stored(url);
    });
    this.#progress.addEventListener("failed", ({ data }) => {
      this.#tell(JSON.parse(data).error, true);
      this.#unwatch();
      forget(this.url);
    });
  }

  #unwatch() {
    this.#progress?.close();
    this.#leave();
    watched.delete(this);
  }

  #moved({ received, rate, left_s }) {
    this.#bar("stored", received);
    this.#told ??= received;
    if (!rate || this.#paused || received === this.#told) return;
    this.say(`${size(rate)}/s${left_s === null ? "" : `, ${Math.ceil(left_s)} s left`}`);
  }

  #bar(name, value) {
    this.#part(`.${name}`).max = this.total || 1;
    this.#part(`.${name}`).value = this.total ? value : 1;
    this.#part(`.${name}-text`).textContent = `${size(value)} of ${size(this.total)}`;
  }

  /** The upload is a file, at `url` where that is known. */
  #stored(url) {
    if (!this.#element.isConnected || !url) return;
    const item = make("li");
    item.append(make("a", decodeURIComponent(url.split("/").pop()), { href: url }), make("small", size(this.total)));
    byId("files").prepend(item);
    byId("results").hidden = false;
    say(byId("state"), `Stored ${this.name}.`);
    forget(this.url);
    this.remove();
  }

  #failed(error) {
    this.#turn.abort();
    const response = error.originalResponse;
    const why = response
      ? sentence(response.getHeader("Content-Type"), response.getBody(), response.getStatus())
      : "The connection was lost.";
    this.#paused = true;
    this.#part(".pause").textContent = "Resume";
    this.#tell(`${why} What has been stored stays.`, true);
  }

  remove() {
    this.#unwatch();
    this.#turn.abort();
    this.#release();
    rows.delete(this.url);
    const focused = this.#element.contains(document.activeElement);
    this.#element.remove();
    if (focused) byId("file").focus();
    byId("running").hidden = !byId("uploads").children.length;
    for (const row of rows.values()) row.#watch();
  }

  #part(selector) {
    return this.#element.querySelector(selector);
  }
}

/** Take the lock of the upload at `url`; resolves with what gives it back, null when another tab has it. */
function hold(url) {
  return new Promise((resolve) => {
    if (!navigator.locks) return resolve(() => {});
    navigator.locks.request(`upload ${url}`, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(null);
      return new Promise((release) => resolve(release));
    });
  });
}

/** Forget where the upload at `url` can be continued. */
async function forget(url) {
  for (const known of await storage.findAllUploads()) {
    if (path(known.uploadUrl) === url) await storage.removeUpload(known.urlStorageKey);
  }
}

const path = (url) => new URL(url, location).pathname;

/** Begin, or go on with, the upload of each file. */
async function add(files) {
  for (const file of files) {
    const [previous] = await new tus.Upload(file, { endpoint: ENDPOINT }).findPreviousUploads();
    const url = previous && path(previous.uploadUrl);
    const release = url && (await hold(url));
    if (release === null) {
      say(byId("state"), `${file.name} is being uploaded in another tab.`);
      continue;
    }
    release?.();
    (rows.get(url) ?? new Row(file.name, file.size)).send(file, previous);
  }
}

/** Show what has been begun, here or in another tab, and no longer what has ended there. */
async function showKnown() {
  const all = await storage.findAllUploads();
  for (const known of all) if (known.metadata?.filename) Row.known(known);
  for (const row of rows.values()) {
    if (row.shown && !row.watched && !all.some(({ uploadUrl }) => path(uploadUrl) === row.url)) row.remove();
  }
}

const input = byId("file");
const drop = byId("drop");
input.multiple = true;

byId("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  add([...input.files]);
});

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
  if (event.dataTransfer.files.length) input.files = event.dataTransfer.files;
});

// Another tab has begun an upload, or ended one.
window.addEventListener("storage", () => showKnown());

showKnown();

// What the pages share: reading a stream, saying what went wrong, and showing what arrives.
//
// Nothing here, or in any page's script, makes markup out of text: `textContent` only.

export const byId = (id) => document.getElementById(id);

/** Make an element of `name` with a text and properties. */
export function make(name, text = "", properties = {}) {
  const element = Object.assign(document.createElement(name), properties);
  element.textContent = text;
  return element;
}

/**
 * Fetch `path` and hand each piece to `onPiece(bytes, response)` as it arrives.
 *
 * Resolves at the clean end with the number of bytes. Rejects with one sentence as its message when the server
 * refuses or the connection is cut, and with an AbortError when `options.signal` stops it.
 */
export async function readStream(path, options, onPiece) {
  const response = await fetch(path, { cache: "no-store", ...options }).catch(cut("The server cannot be reached."));
  if (!response.ok) throw new Error(await explain(response));
  const reader = response.body.getReader();
  let received = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(cut("The connection was cut before the end."));
    if (done) return received;
    received += value.length;
    onPiece(value, response);
  }
}

/** The same with text: `onText(text)`, right at every boundary of pieces. */
export function readText(path, options, onText) {
  const decoder = new TextDecoder();
  return readStream(path, options, (bytes) => onText(decoder.decode(bytes, { stream: true })));
}

const cut = (sentence) => (error) => {
  throw error.name === "AbortError" ? error : new Error(sentence, { cause: error });
};

/** For a fetch or a read that fails: one sentence, but an abort as it is. */
export const lost = cut("The connection was lost.");

/** One sentence for a response that is not ok: the problem's own detail (RFC 9457), a short text, or the status. */
export async function explain(response) {
  return sentence(response.headers.get("Content-Type"), await response.text(), response.status);
}

export function sentence(type, text, status) {
  const short = type?.startsWith("text/plain") && text.length < 500 && text.trim();
  return (type?.includes("json") ? told(text) : short) || `The server answered ${status}.`;
}

/** What a problem says; nothing where it is none: what stands before a server may call a page of its own JSON. */
function told(text) {
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.title;
  } catch {
    return "";
  }
}

/** Return a function that runs `draw` once in the next frame, however often it is called. */
export function eachFrame(draw) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      draw();
    });
  };
}

/**
 * The last `limit` characters of a stream, from the beginning of a line, in `element`: constant memory here too.
 *
 * `scrolled`: what scrolls, if that is another element around it.
 */
export class Tail {
  #element;
  #scrolled;
  #limit;
  #text = "";
  #draw = eachFrame(() => this.#show());

  constructor(element, limit = 8000, scrolled = element) {
    this.#element = element;
    this.#scrolled = scrolled;
    this.#limit = limit;
    element.textContent = "";
  }

  add(text) {
    this.#text += text;
    if (this.#text.length > this.#limit) {
      const rest = this.#text.slice(-this.#limit);
      this.#text = rest.slice(rest.indexOf("\n") + 1);
    }
    this.#draw();
  }

  #show() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scrolled;
    const atEnd = scrollHeight - scrollTop - clientHeight < 8;
    this.#element.textContent = this.#text;
    if (atEnd) this.#scrolled.scrollTop = this.#scrolled.scrollHeight; // else somebody is reading further up
  }
}

/** A name that nobody else has. Not crypto.randomUUID, which plain http:// lacks. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** 1234567 → "1,234,567". Not by Intl: the first use of it in a page takes 25 ms, and that before the first paint. */
export const count = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");

/** 1536 → "1.5 KiB" */
export function size(bytes) {
  const power = bytes < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power && value < 100 ? value.toFixed(1) : count(value)} ${["bytes", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** Disable a button or not; what is disabled loses its focus, and `next` has it then. */
export function disable(button, is, next) {
  if (is && document.activeElement === button) next.focus();
  button.disabled = is;
}

/** Whether the browser is to open what was clicked elsewhere. */
export const elsewhere = (event) => event.ctrlKey || event.metaKey || event.shiftKey;

/** Put a sentence into a status element; `failed` shows it as a failure. */
export function say(element, text, failed = false) {
  element.textContent = text;
  element.classList.toggle("failed", failed);
}

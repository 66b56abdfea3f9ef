// An answer as the UI message stream tells it (docs/http.md, /api/chat): read to its end, over as many connections as
// it takes. Each event has an id; a connection that is lost is continued after the last one, nothing twice.

import { explain } from "./stream.js";

const TRIES = 8;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Ask `request` (a fetch of a POST) or, without one, look for the answer that `chat` has; call `onPart(part)` for each.
 *
 * Resolves with the last part ("finish" or "abort"), null when there is no answer. Rejects with one sentence.
 */
export async function readAnswer(chat, request, onPart) {
  let cursor = "";
  let last = null;
  const seen = (id, part) => {
    cursor = id;
    if (part.type === "error") throw Object.assign(new Error(part.errorText), { told: true });
    if (["finish", "abort"].includes(part.type)) last = part;
    onPart(part);
  };
  for (let tries = 0; ; tries += 1) {
    try {
      const response = await (request && !cursor && !tries ? request() : resume(chat, cursor));
      if (response.status === 204) return last;
      if (!response.ok) throw Object.assign(new Error(await explain(response)), { told: true });
      const before = cursor;
      await read(response, seen);
      if (last) return last;
      if (cursor !== before) tries = 0;
    } catch (error) {
      if (error.told || tries === TRIES) throw error.told ? error : new Error("The connection was lost.", { cause: error });
    }
    await wait(Math.random() * Math.min(5000, 250 * 2 ** tries));
  }
}

function resume(chat, cursor) {
  const headers = cursor ? { "Last-Event-ID": cursor } : {};
  return fetch(`/api/chat/${encodeURIComponent(chat)}/stream`, { cache: "no-store", headers });
}

async function read(response, seen) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (text + value).split("\n\n");
    text = frames.pop();
    for (const frame of frames) event(frame, seen);
  }
}

function event(frame, seen) {
  const field = (name) => frame.split("\n").find((line) => line.startsWith(name))?.slice(name.length);
  const data = field("data: ");
  if (data && data !== "[DONE]") seen(field("id: ") ?? "", JSON.parse(data));
}

// Chat: type, watch the tokens arrive, stop.

import { byId, make, readText, say } from "./stream.js";

const prompt = byId("prompt");
const messages = [];
let abort = null;

async function send(text) {
  messages.push({ role: "user", content: text });
  turn("user", text);
  const answer = turn("assistant", "");
  abort = new AbortController();
  busy(true, answer);
  try {
    await readText("/api/chat?protocol=text", request(), (piece) => append(answer, piece));
    say(byId("state"), "");
  } catch (error) {
    const note = abort.signal.aborted ? "Stopped." : error.message;
    answer.append(make("p", note, { className: abort.signal.aborted ? "note" : "note failed" }));
  } finally {
    busy(false, answer);
    remember(answer.firstChild.textContent, text);
  }
}

const request = () => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ messages }),
  signal: abort.signal,
});

/** Keep what was answered, also when it was stopped; a question without any answer goes back to be sent again. */
function remember(answer, question) {
  if (answer) return messages.push({ role: "assistant", content: answer });
  messages.pop();
  prompt.value ||= question;
}

function turn(role, text) {
  const element = make("article", "", { className: "turn" });
  element.dataset.role = role;
  element.setAttribute("aria-label", role === "user" ? "You" : "Answer");
  element.append(make("p", text));
  keepingEnd(() => byId("conversation").append(element));
  return element;
}

function append(answer, piece) {
  keepingEnd(() => answer.firstChild.append(piece));
}

/** Change the page, and stay at its end unless somebody has scrolled up to read. */
function keepingEnd(change) {
  const page = document.documentElement;
  const atEnd = page.scrollHeight - page.clientHeight - page.scrollTop < 48;
  change();
  if (atEnd) page.scrollTop = page.scrollHeight;
}

function busy(now, answer) {
  // A screen reader waits for the end of a busy turn, and reads it once instead of every token.
  answer.setAttribute("aria-busy", now);
  byId("send").disabled = now;
  byId("stop").disabled = !now;
  say(byId("state"), now ? "Answering" : "");
}

byId("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text || byId("send").disabled) return;
  prompt.value = "";
  send(text);
});

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("chat").requestSubmit();
});

byId("stop").addEventListener("click", () => {
  abort.abort();
  prompt.focus();
});

// Chat: type, watch the tokens arrive, stop; reload in the middle, or open a second tab, and see it go on.
//
// The conversation is in this browser's storage, which its tabs share; an answer that is being made is the server's, and
// every tab reads it for itself, as soon as it has a connection for that.

import { readAnswer } from "./answer.js";
import { Markdown } from "./markdown.js";
import { FULL, waitPlace } from "./places.js";
import { byId, disable, eachFrame, make, randomId, say } from "./stream.js";

const KEY = "perennial-chat";
const prompt = byId("prompt");
let chat = load();
let reading = 0; // which answer is being read; a newer one takes over
let unasked = null; // gives up a question that waits for a connection

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    if (found?.id && Array.isArray(found.messages)) return found;
  } catch {
    // not ours, or no storage: a new chat
  }
  return { id: randomId(), messages: [] };
}

function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(chat));
  } catch {
    // full, or forbidden: then a reload begins anew
  }
}

const waiting = () => chat.messages.at(-1)?.role === "user";

function send(text) {
  chat.messages.push({ id: randomId(), role: "user", text });
  save();
  turn("user").show(text);
  follow(ask);
}

const ask = () =>
  fetch("/api/chat?protocol=ui", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ id: chat.id, trigger: "submit-message", messages: chat.messages.map(message) }),
  });

const message = ({ id, role, text }) => ({ id, role, parts: [{ type: "text", text }] });

/** Read the answer to the last question, beginning it by `request` if there is one. */
async function follow(request) {
  const mine = (reading += 1);
  const answer = turn("assistant");
  const parts = { id: randomId(), text: "", reasoning: "" };
  const draw = eachFrame(() => answer.show(parts.text, parts.reasoning));
  busy(true, answer);
  const waits = new AbortController();
  let leave = () => {};
  if (request) unasked = waits;
  try {
    leave = await waitPlace(waits.signal, () => say(byId("state"), FULL));
    unasked = null;
    say(byId("state"), "Answering");
    const last = await readAnswer(chat.id, request, (part) => {
      if (mine !== reading) return;
      if (part.type === "start") parts.id = part.messageId; // the same in every tab
      if (part.type === "text-delta") parts.text += part.delta;
      if (part.type === "reasoning-delta") parts.reasoning += part.delta;
      draw();
    });
    if (mine !== reading) return;
    answer.show(parts.text, parts.reasoning);
    if (last?.type !== "finish") answer.note(last ? "Stopped." : "There is no answer to this any more.", !last);
  } catch (error) {
    if (mine !== reading) return;
    answer.show(parts.text, parts.reasoning);
    if (error.name === "AbortError") answer.note("Stopped.");
    else answer.note(error.message, true);
  } finally {
    leave();
  }
  busy(false, answer);
  remember(parts);
}

/** Keep what was answered, also when it was stopped; a question without any answer goes back to be sent again. */
function remember({ id, text }) {
  const now = load();
  if (now.id === chat.id && now.messages.length > chat.messages.length) chat = now; // another tab was faster
  else if (text) chat.messages.push({ id, role: "assistant", text });
  else prompt.value ||= chat.messages.pop()?.text ?? "";
  save();
}

function turn(role) {
  const element = make("article", "", { className: "turn" });
  element.dataset.role = role;
  element.setAttribute("aria-label", role === "user" ? "You" : "Answer");
  element.setAttribute("aria-busy", "false");
  const said = make("div", "", { className: "said" });
  element.append(said);
  keepingEnd(() => byId("conversation").append(element));
  const markdown = role === "assistant" ? new Markdown(said) : null;
  const show = (text, thought) =>
    keepingEnd(() => {
      if (!markdown) return said.replaceChildren(make("p", text));
      if (thought) thoughts(element).textContent = thought;
      markdown.show(text);
    });
  const note = (text, failed) => keepingEnd(() => element.append(make("p", text, { className: failed ? "note failed" : "note" })));
  return { element, show, note };
}

function thoughts(element) {
  let found = element.querySelector("details > p");
  if (!found) {
    const details = make("details", "", { className: "thoughts" });
    details.append(make("summary", "Thoughts"), (found = make("p")));
    element.prepend(details);
  }
  return found;
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
  answer.element.setAttribute("aria-busy", now);
  disable(byId("send"), now, prompt);
  byId("stop").disabled = !now;
  byId("fresh").disabled = now;
  say(byId("state"), now ? "Answering" : "");
}

/** Show the conversation as it is kept, and follow an answer that may still be being made. */
function open() {
  byId("conversation").replaceChildren();
  for (const { role, text } of chat.messages) turn(role).show(text);
  if (waiting()) follow(null);
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
  byId("stop").disabled = true;
  unasked?.abort();
  fetch(`/api/chat/${encodeURIComponent(chat.id)}/stop`, { method: "POST" }).catch(() => (byId("stop").disabled = false));
  prompt.focus();
});

byId("fresh").addEventListener("click", () => {
  chat = { id: randomId(), messages: [] };
  save();
  open();
  prompt.focus();
});

// What another tab has asked, or begun anew, is shown here too; an answer that both read is kept by whoever is first.
addEventListener("storage", (event) => {
  if (event.key !== KEY || byId("send").disabled) return;
  const now = load();
  if (JSON.stringify(now) === JSON.stringify(chat)) return;
  chat = now;
  open();
});

open();

// The AI SDK's own chat clients: node client.mjs <package> <url, or - for a body on stdin> <scenario> <id>.
// "@ai-sdk/ui-utils" is what useChat of ai 4 runs, "ai-4" has its reader; from ai 5 on it is AbstractChat with its
// transports.
//
//   send      one turn                       text      one turn with the text protocol
//   dropped   the connection is lost after some tokens; the page is opened again and resumes
//   again     the same, and the page resumes as it is, with half an answer
//   resume    a page that is opened            stop      the user stops after some tokens
//   durable   one turn by @durable-streams/aisdk-transport, and a second page that resumes it
//
// Prints as JSON what a page would have: {status, text, reasoning, id, error, finish, metadata, tools, sent}.
import { readFileSync } from "node:fs";

const [name, url, scenario = "send", id = "c"] = process.argv.slice(2);
const sdk = await import(name);
let sent = null;

// A body in pieces of 7 bytes, with a reader's own time between them, as a network would cut it.
const replay = () => {
  const body = readFileSync(0);
  let at = 0;
  return new Response(
    new ReadableStream({
      pull(controller) {
        if (at >= body.length) return controller.close();
        controller.enqueue(new Uint8Array(body.subarray(at, (at += 7))));
      },
    }),
  );
};

// The network fails behind the first 7, whatever else had come with it.
const losing = async (input, init) => {
  const response = await fetch(input, init);
  const reader = response.body.getReader();
  let seen = "";
  const body = new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) return controller.close();
      seen += new TextDecoder().decode(value);
      const end = seen.search(/\b7 /);
      if (end < 0) return controller.enqueue(value);
      controller.enqueue(value.subarray(0, value.length - (seen.length - end - 2)));
      await reader.cancel();
      controller.error(new Error("the network failed"));
    },
  });
  return new Response(body, { status: response.status, headers: response.headers });
};

const fetching = (input, init) => {
  if (init?.body) sent = JSON.parse(init.body);
  if (url === "-") return Promise.resolve(replay());
  return init?.body && ["dropped", "again"].includes(scenario) ? losing(input, init) : fetch(input, init);
};

const v4 = async () => {
  const fresh = () => ({ status: "ready", text: "", reasoning: "", id: "", error: null, finish: null, metadata: null });
  const user = { id: "1", role: "user", content: "Hi", parts: [{ type: "text", text: "Hi" }] };
  const call = async (seen, requestType, streamProtocol = "data") => {
    await sdk
      .callChatApi({
        api: url,
        body: { id, messages: [user] },
        streamProtocol,
        requestType,
        fetch: fetching,
        generateId: () => "made-by-the-client",
        restoreMessagesOnFailure: () => {},
        onUpdate: ({ message }) =>
          Object.assign(seen, { text: message.content, reasoning: message.reasoning ?? "", id: message.id, tools: message.toolInvocations }),
        onFinish: (_, finish) => (seen.finish = finish),
        lastMessage: user,
      })
      .catch((error) => Object.assign(seen, { status: "error", error: error.message }));
    return seen;
  };
  if (scenario === "text") return call(fresh(), "generate", "text");
  if (scenario === "resume") return call(fresh(), "resume");
  const first = await call(fresh(), "generate");
  return scenario === "dropped" ? { ...(await call(fresh(), "resume")), before: first.text } : first;
};

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = message);
  snapshot = (value) => structuredClone(value);
}

const v5 = async () => {
  let finish = null;
  const options = { api: url, fetch: fetching };
  const transport = scenario === "text" ? new sdk.TextStreamChatTransport({ ...options, headers: { "X-Stream-Protocol": "text" } })
    : scenario === "durable" ? (await import("@durable-streams/aisdk-transport")).createDurableChatTransport({ api: url, fetchClient: fetching })
    : new sdk.DefaultChatTransport(options);
  class Chat extends sdk.AbstractChat {}
  const open = () => new Chat({ id, transport, state: new State(), onFinish, generateId: () => "made-by-the-client" });
  const onFinish = (event) => (finish = event.message.id);
  const textOf = (chat) => (chat.messages.at(-1)?.parts ?? []).filter((part) => part.type === "text").map((part) => part.text).join("");
  let chat = open();
  let before = null;
  if (scenario === "stop") {
    const turn = chat.sendMessage({ text: "Hi" });
    while (!textOf(chat).includes("7 ")) await new Promise((resolve) => setTimeout(resolve, 5));
    await fetch(`${url}/${id}/stop`, { method: "POST" });
    await turn;
  } else if (scenario !== "resume") {
    await chat.sendMessage({ text: "Hi" });
  }
  if (["dropped", "durable"].includes(scenario)) {
    before = textOf(chat);
    chat = open();
  }
  if (["dropped", "durable", "again", "resume"].includes(scenario)) await chat.resumeStream();
  const message = chat.messages.at(-1) ?? { parts: [] };
  const of = (type) => message.parts.filter((part) => part.type === type).map((part) => part.text).join("");
  const tools = message.parts.filter((part) => part.type.startsWith("tool-"));
  const { metadata } = message;
  return { status: chat.status, text: of("text"), reasoning: of("reasoning"), id: message.id, error: chat.error?.message ?? null, finish, metadata, tools, before, count: chat.messages.length };
};

// The reader that ai 4 itself exports, for pages without useChat.
const reader = async () => {
  const seen = { status: "ready", text: "", reasoning: "", id: "", error: null, finish: null };
  const messages = [{ id: "1", role: "user", content: "Hi", parts: [{ type: "text", text: "Hi" }] }];
  const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id, messages }) };
  const response = await fetching(url, init);
  if (!response.ok) return { ...seen, status: "error", error: await response.text() };
  await sdk.processDataStream({
    stream: response.body,
    onTextPart: (text) => (seen.text += text),
    onReasoningPart: (text) => (seen.reasoning += text),
    onStartStepPart: (part) => (seen.id = part.messageId),
    onErrorPart: (error) => Object.assign(seen, { status: "error", error }),
    onFinishMessagePart: (finish) => (seen.finish = finish),
  });
  return seen;
};

const seen = await (sdk.AbstractChat ? v5() : sdk.callChatApi ? v4() : reader());
console.log(JSON.stringify({ ...seen, sent }));
process.exit(0);

// One turn of the AI SDK's own chat client: node client.mjs <package> <url, or - for a response body on stdin>.
// "@ai-sdk/ui-utils" is what useChat of ai 4 runs; from ai 5 on it is AbstractChat with its DefaultChatTransport.
// Prints as JSON what a page would have: {status, text, reasoning, id, error, finish, metadata, sent}.
import { readFileSync } from "node:fs";

const [name, url] = process.argv.slice(2);
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

const fetching = (input, init) => {
  sent = JSON.parse(init.body);
  return url === "-" ? Promise.resolve(replay()) : fetch(input, init);
};

const v4 = async () => {
  const seen = { status: "ready", text: "", reasoning: "", id: "", error: null, finish: null, metadata: null };
  const user = { id: "1", role: "user", content: "Hi", parts: [{ type: "text", text: "Hi" }] };
  const update = ({ message }) =>
    Object.assign(seen, { text: message.content, reasoning: message.reasoning ?? "", id: message.id });
  await sdk
    .callChatApi({
      api: url,
      body: { id: "c", messages: [user] },
      streamProtocol: "data",
      fetch: fetching,
      generateId: () => "made-by-the-client",
      restoreMessagesOnFailure: () => {},
      onUpdate: update,
      onFinish: (_, finish) => (seen.finish = finish),
      lastMessage: user,
    })
    .catch((error) => Object.assign(seen, { status: "error", error: error.message }));
  return seen;
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
  const transport = new sdk.DefaultChatTransport({ api: url, fetch: fetching });
  class Chat extends sdk.AbstractChat {}
  const onFinish = (event) => (finish = event.message.id);
  const chat = new Chat({ id: "c", transport, state: new State(), onFinish, generateId: () => "made-by-the-client" });
  await chat.sendMessage({ text: "Hi" });
  const message = chat.messages.at(-1);
  const of = (type) => message.parts.filter((part) => part.type === type).map((part) => part.text).join("");
  const { id, metadata } = message;
  return { status: chat.status, text: of("text"), reasoning: of("reasoning"), id, error: chat.error?.message ?? null, finish, metadata };
};

const seen = await (sdk.AbstractChat ? v5() : v4());
console.log(JSON.stringify({ ...seen, sent }));

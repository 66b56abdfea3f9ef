// npm's openai against our /v1: node openai.mjs <base url>. Prints as JSON what it made of a stream, of a whole answer,
// of the list of models, and of what it raises.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const asked = { model: process.argv[3], messages: [{ role: "user", content: "Hi" }] };
const seen = { text: "", reason: null, usage: null, whole: null, models: [], error: null };

try {
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    seen.text += chunk.choices[0]?.delta?.content ?? "";
    seen.reason = chunk.choices[0]?.finish_reason ?? seen.reason;
    seen.usage = chunk.usage ?? seen.usage;
  }
  seen.whole = await client.chat.completions.create(asked);
} catch (error) {
  seen.error = { name: error.constructor.name, status: error.status ?? null, message: error.message };
}
for await (const model of await client.models.list()) seen.models.push(model.id);
console.log(JSON.stringify(seen));

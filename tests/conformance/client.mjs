// The JavaScript client of Durable Streams as its users use it: node client.mjs <url of a stream to be made>.
// Prints what it saw as one line of JSON.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"

const url = process.argv[2]
const made = await DurableStream.create({ url, contentType: "application/json", ttlSeconds: 60 })
await made.append(JSON.stringify({ n: 1 }))

const producer = new IdempotentProducer(made, "node", { autoClaim: true })
producer.append(JSON.stringify({ n: 2 }))
producer.append(JSON.stringify({ n: 3 }))
await producer.flush()

const first = await stream({ url, offset: "-1", live: false })
const caughtUp = await first.json()

// Two readers at the tail, each by its own way, get what comes and see the end.
async function live(mode) {
  const items = []
  const response = await stream({ url, offset: first.offset, live: mode })
  for await (const item of response.jsonStream()) items.push(item)
  return items
}
const readers = [live("sse"), live("long-poll")]
await made.append(JSON.stringify({ n: 4 }))
await made.close({ body: JSON.stringify({ n: 5 }) })
const [sse, longPoll] = await Promise.all(readers)

const head = await DurableStream.head({ url })
await made.delete()
process.stdout.write(JSON.stringify({ caughtUp, sse, longPoll, closed: head.streamClosed }) + "\n")

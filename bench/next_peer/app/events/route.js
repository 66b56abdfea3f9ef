// GET /events: a stream for each subscriber, as examples have it.

import { readers } from "../readers.js";

export const dynamic = "force-dynamic";

export function GET(request) {
  let reader;
  const stream = new ReadableStream({
    start(controller) {
      reader = controller;
      readers.add(controller);
      controller.enqueue(new TextEncoder().encode(": hello\n\n"));
    },
    cancel() {
      readers.delete(reader);
    },
  });
  request.signal.addEventListener("abort", () => readers.delete(reader));
  return new Response(stream, { headers: { "Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform" } });
}

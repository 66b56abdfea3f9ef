// POST /publish: the body, to every subscriber.

import { readers } from "../readers.js";

export const dynamic = "force-dynamic";

export async function POST(request) {
  const frame = new TextEncoder().encode(`data: ${await request.text()}\n\n`);
  for (const reader of readers) {
    try {
      reader.enqueue(frame);
    } catch {
      readers.delete(reader); // it has gone
    }
  }
  return Response.json({ readers: readers.size });
}

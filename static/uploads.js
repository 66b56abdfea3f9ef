// The map's uploads: one in a single request, with the progress that the server reports; and one by tus 1.0.

import { count, explain, lost, randomId, readText } from "./stream.js";

const PIECE_BYTES = 256 * 1024;
const PIECE_MS = 150; // slow enough to be watched

const TUS = { "Tus-Resumable": "1.0.0" };

/** Send `total` made-up bytes, and show the events of their arrival. */
export async function sendFile(path, total, picture, signal) {
  const id = randomId();
  let rest = "";
  const watching = readText(`/api/upload-progress/${id}`, { signal }, (text) => {
    const frames = (rest + text).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const [, type, data] = frame.match(/event: (.*)\ndata: (.*)/) ?? [];
      picture.add({ type, data }, frame.length + 2);
    }
  });
  const headers = { "Content-Type": "application/octet-stream" };
  const options = { method: "POST", headers, body: new Uint8Array(total), signal };
  await Promise.all([watching, readText(`${path}&id=${id}`, options, () => {})]);
}

/** An upload that `connect(signal)` begins, or goes on with where the server says that it stands. */
export function sendResumable(path, total, picture) {
  let url = "";
  let offset = 0;
  const ask = async (address, method, headers, signal, body) => {
    const response = await fetch(address, { method, headers: { ...TUS, ...headers }, body, signal }).catch(lost);
    if (!response.ok) throw new Error(await explain(response));
    return response.headers;
  };
  const moved = (to) => {
    picture.add(null, to - offset);
    offset = to;
  };
  return {
    get shown() {
      return `byte ${count(offset)}`;
    },
    async connect(signal) {
      const metadata = `filename ${btoa("map.bin")}`;
      if (!url) url = (await ask(path, "POST", { "Upload-Length": total, "Upload-Metadata": metadata }, signal)).get("Location");
      else moved(Number((await ask(url, "HEAD", {}, signal)).get("Upload-Offset")));
      picture.expect(total);
      while (offset < total) {
        const piece = new Uint8Array(Math.min(PIECE_BYTES, total - offset));
        const headers = { "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
        moved(Number((await ask(url, "PATCH", headers, signal, piece)).get("Upload-Offset")));
        await new Promise((resolve) => setTimeout(resolve, PIECE_MS));
        signal.throwIfAborted();
      }
      await ask(url, "DELETE", {}, signal);
    },
  };
}

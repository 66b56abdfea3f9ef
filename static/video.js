// Video: jump through the film, and ask for a range by hand.

import { byId, lost, say } from "./stream.js";

const video = byId("video");
let asked_ms = 0;

video?.addEventListener("seeking", () => (asked_ms = performance.now()));

video?.addEventListener("seeked", () => {
  const took_ms = Math.round(performance.now() - asked_ms);
  say(byId("state"), `At ${video.currentTime.toFixed(1)} s, after ${took_ms} ms`);
});

video?.addEventListener("error", () => say(byId("state"), "The film cannot be played.", true));

for (const button of document.querySelectorAll("[data-jump]")) {
  button.addEventListener("click", () => (video.currentTime = (video.duration || 0) * Number(button.dataset.jump)));
}

// How long it is: asked for here, behind the first paint, and not by the page.
if (video) video.preload = "metadata";

const HEADERS = ["accept-ranges", "content-range", "content-length", "content-type", "etag", "last-modified"];

byId("range")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = byId("answer");
  answer.hidden = false;
  try {
    const headers = new Headers({ Range: byId("bytes").value.replace(/[–−]/g, "-") }); // what was pasted from a text
    const response = await fetch(video.src, { headers, cache: "no-store" }).catch(lost);
    const head = HEADERS.filter((name) => response.headers.has(name)).map((name) => `${name}: ${response.headers.get(name)}`);
    answer.textContent = [`${response.status} ${response.statusText}`, ...head].join("\n");
    await response.body?.cancel(); // the head is the answer; the bytes need not come
  } catch (error) {
    answer.textContent = error instanceof TypeError ? "No header can say this." : error.message;
  }
});

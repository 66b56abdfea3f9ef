// Files: the next page into the same list, and films without leaving it.

import { byId, elsewhere, explain, make, say, size } from "./stream.js";

const list = byId("files");
const more = byId("more");

list.addEventListener("click", (event) => {
  const { video } = event.target.dataset;
  if (!video || elsewhere(event)) return;
  event.preventDefault();
  byId("player").hidden = false;
  byId("player-title").textContent = video;
  byId("video").src = `/api/video/${video}`;
  byId("keep").href = `/api/video/${video}?download=1`;
  byId("video").focus();
});

byId("video").addEventListener("error", () => say(byId("state"), "The film cannot be played.", true));

more?.addEventListener("click", async (event) => {
  if (elsewhere(event)) return;
  event.preventDefault();
  try {
    const response = await fetch(`/api/files?${new URLSearchParams({ after: more.dataset.after })}`);
    if (!response.ok) throw new Error(await explain(response));
    const { files, after } = await response.json();
    const rows = files.map(row);
    list.append(...rows);
    if (!after && document.activeElement === more) rows[0]?.querySelector("a").focus();
    more.hidden = !after;
    more.dataset.after = after ?? "";
    say(byId("state"), "");
  } catch (error) {
    say(byId("state"), error.message, true);
  }
});

/** One file as the server writes it into the page. */
function row(file) {
  const item = make("li");
  const about = make("small", size(file.size));
  if (file.video) {
    const id = file.video.split("/").pop();
    const play = make("a", "Play", { href: `/video?id=${id}` });
    play.dataset.video = id;
    about.append(" · ", play);
  }
  item.append(make("a", file.name, { href: file.url, download: "" }), " ", about);
  return item;
}

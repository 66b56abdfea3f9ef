// Upload: what the browser has sent, and what the server says it has stored.

import { byId, make, randomId, say, sentence, size } from "./stream.js";

const input = byId("file");
const drop = byId("drop");
let request = null;

function upload(file) {
  const id = randomId();
  const progress = watch(id);
  request = new XMLHttpRequest();
  request.upload.addEventListener("progress", (event) => bar("sent", event.loaded, file.size));
  request.addEventListener("load", () => answered(request, file));
  request.addEventListener("error", () => end("The connection was lost; nothing was stored.", true));
  request.addEventListener("abort", () => end("Cancelled; nothing was stored."));
  request.addEventListener("loadend", () => request.status === 201 || progress.close());
  request.open("POST", `/api/upload-progress?${new URLSearchParams({ id, filename: file.name })}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.send(file);
  bar("sent", 0, file.size);
  bar("stored", 0, file.size);
  busy(true);
  say(byId("state"), `Uploading ${file.name}`);
}

/** Follow the server's own count; it may be opened before the upload begins. */
function watch(id) {
  const progress = new EventSource(`/api/upload-progress/${id}`);
  const show = ({ data }) => bar("stored", JSON.parse(data).received, byId("stored").max);
  progress.addEventListener("progress", show);
  progress.addEventListener("complete", (event) => {
    show(event);
    progress.close();
  });
  progress.addEventListener("failed", () => progress.close());
  return progress;
}

function answered({ status, responseText }, file) {
  const type = request.getResponseHeader("Content-Type");
  if (status !== 201) return end(sentence(type, responseText, status), true);
  const { url, filename, received } = JSON.parse(responseText);
  const item = make("li");
  item.append(make("a", filename, { href: url }), make("small", size(received)));
  byId("files").prepend(item);
  byId("results").hidden = false;
  end(`Stored ${file.name}.`);
}

function end(text, failed = false) {
  busy(false);
  say(byId("state"), text, failed);
}

function bar(name, value, total) {
  byId(name).max = total || 1;
  byId(name).value = total ? value : 1;
  byId(`${name}-text`).textContent = `${size(value)} of ${size(total)}`;
}

function busy(now) {
  byId("send").disabled = now;
  byId("cancel").disabled = !now;
}

byId("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  upload(input.files[0]);
});

byId("cancel").addEventListener("click", () => request.abort());

for (const type of ["dragenter", "dragover"]) {
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}

drop.addEventListener("dragleave", () => drop.classList.remove("over"));

drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) input.files = event.dataTransfer.files;
});

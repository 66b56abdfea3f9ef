// Export: build the address, download it, or watch it arrive.

import { byId, count, eachFrame, readStream, say, size, Tail } from "./stream.js";

const form = byId("export");
const boxes = [...form.querySelectorAll("[data-column]")];
const preview = byId("preview");
let abort = null;

/** The address of what is chosen, and its file's extension. */
function chosen() {
  const format = form.elements.format;
  const radio = [...format].find(({ checked }) => checked);
  const query = new URLSearchParams({ table: form.elements.table.value });
  const columns = boxes.filter(({ checked }) => checked).map(({ dataset }) => dataset.column);
  if (columns.length < boxes.length) query.set("columns", columns.join(","));
  if (byId("limit").value) query.set("limit", byId("limit").value);
  return { url: `${radio.value}?${query}`, extension: radio.dataset.extension };
}

function valid() {
  const none = boxes.every(({ checked }) => !checked);
  boxes[0].setCustomValidity(none ? "Choose at least one column." : "");
  return form.reportValidity();
}

function update() {
  const { url, extension } = chosen();
  byId("download").href = url;
  byId("download").download = `${form.elements.table.value}.${extension}`;
  byId("url").textContent = url;
}

async function show() {
  if (!valid()) return;
  const { url, extension } = chosen();
  const started_ms = performance.now();
  const rows = extension === "csv" ? csvRows() : lines();
  const tail = new Tail(byId("wire"));
  const decoder = new TextDecoder();
  let received = 0;
  let found = 0;
  const draw = () => figures(found, received, performance.now() - started_ms);
  const soon = eachFrame(() => abort && draw());
  abort = new AbortController();
  preview.textContent = "Stop";
  say(byId("state"), "Live");
  try {
    await readStream(url, { signal: abort.signal }, (bytes) => {
      received += bytes.length;
      found = rows(bytes);
      tail.add(decoder.decode(bytes, { stream: true }));
      soon();
    });
    say(byId("state"), "Ended cleanly");
  } catch (error) {
    say(byId("state"), abort.signal.aborted ? "Stopped" : error.message, !abort.signal.aborted);
  } finally {
    draw();
    abort = null;
    preview.textContent = "Preview";
  }
}

function figures(rows, received, elapsed_ms) {
  byId("rows").textContent = count(rows);
  byId("rate").textContent = count((rows / elapsed_ms) * 1000);
  byId("received").textContent = size(received);
}

/** Count records, not lines: a quoted field may hold line ends (RFC 4180, section 2, rule 6). */
function csvRows() {
  let quoted = false;
  let rows = -1; // the header is none
  return (bytes) => {
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] === 0x22) quoted = !quoted;
      else if (bytes[i] === 0x0a && !quoted) rows += 1;
    }
    return Math.max(rows, 0);
  };
}

/** Count lines with something on them: an empty one is a heartbeat. */
function lines() {
  let previous = 0x0a;
  let rows = 0;
  return (bytes) => {
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] === 0x0a && previous !== 0x0a) rows += 1;
      previous = bytes[i];
    }
    return rows;
  };
}

for (const fieldset of form.querySelectorAll("fieldset")) fieldset.disabled = false;
form.addEventListener("input", update);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!abort) show();
});
preview.addEventListener("click", () => (abort ? abort.abort() : show()));
byId("download").addEventListener("click", (event) => valid() || event.preventDefault());
update();

// Export: build the address, download it or watch it arrive, and show what the server says of it.

import { byId, count, eachFrame, randomId, readStream, say, size, Tail } from "./stream.js";

const form = byId("export");
const boxes = [...form.querySelectorAll("[data-column]")];
const preview = byId("preview");
const ENDINGS = { csv: "csv", ndjson: "ndjson", json: "json", "json-seq": "json-seq", arrow: "arrows" };
let abort = null;
let watched = null;

const format = () => [...form.elements.format].find(({ checked }) => checked).value;

/** The address of what is chosen; with an id the export's receipt can be watched. */
function chosen(id = "") {
  const query = new URLSearchParams();
  const columns = boxes.filter(({ checked }) => checked).map(({ dataset }) => dataset.column);
  if (columns.length < boxes.length) query.set("columns", columns.join(","));
  for (const condition of byId("conditions").children) query.append(...asked(condition));
  if (byId("order").value) query.set("order", byId("order").value);
  if (byId("limit").value) query.set("limit", byId("limit").value);
  if (byId("excel").checked && format() === "csv") query.set("excel", "1");
  if (byId("exact").checked && format() !== "arrow") query.set("length", "exact");
  if (id) query.set("id", id);
  const table = encodeURIComponent(form.elements.table.value);
  return `/api/export/${table}.${ENDINGS[format()]}${query.size ? `?${query}` : ""}`;
}

/** A condition as the name and value of a parameter. */
function asked(condition) {
  const part = (name) => condition.querySelector(`[data-part="${name}"]`).value;
  const operator = part("operator");
  if (operator.endsWith("null")) return [`${part("column")}.is`, operator];
  return [`${part("column")}.${operator}`, part("value")];
}

function addCondition() {
  const condition = byId("condition").content.firstElementChild.cloneNode(true);
  const part = (name) => condition.querySelector(`[data-part="${name}"]`);
  part("operator").addEventListener("change", ({ target }) => (part("value").hidden = target.value.endsWith("null")));
  part("remove").addEventListener("click", () => {
    condition.remove();
    byId("add").focus();
    update();
  });
  byId("conditions").append(condition);
  part("column").focus();
  update();
}

function valid() {
  const none = boxes.every(({ checked }) => !checked);
  boxes[0].setCustomValidity(none ? "Choose at least one column." : "");
  return form.reportValidity();
}

function update() {
  byId("download").href = chosen();
  byId("download").download = `${form.elements.table.value}.${ENDINGS[format()]}`;
  byId("url").textContent = chosen();
  byId("excel").disabled = format() !== "csv";
  byId("exact").disabled = format() === "arrow";
}

/** Follow the server's own count of the export `id`, which may not have begun. */
function watch(id) {
  watched?.close();
  const events = (watched = new EventSource(`/api/export/${id}`));
  byId("receipt").hidden = true;
  written({ rows: 0, estimate: 0 });
  events.addEventListener("progress", ({ data }) => written(JSON.parse(data)));
  for (const end of ["complete", "failed"]) {
    events.addEventListener(end, ({ data }) => {
      events.close();
      receipt(JSON.parse(data));
    });
  }
}

function written({ rows, estimate }) {
  const bar = byId("written");
  if (estimate) bar.max = Math.max(estimate, rows);
  if (estimate || !rows) bar.value = rows;
  else bar.removeAttribute("value"); // nobody knows how many there will be
  byId("written-text").textContent = estimate ? `${count(rows)} of about ${count(estimate)}` : count(rows);
}

function receipt(told) {
  written({ rows: told.rows, estimate: told.complete ? told.rows : told.estimate });
  if (told.complete) byId("written").value = byId("written").max;
  say(byId("verdict"), told.complete ? "Complete." : `Not complete: ${told.error}`, !told.complete);
  byId("receipt-rows").textContent = count(told.rows);
  byId("receipt-bytes").textContent = size(told.bytes);
  byId("receipt-keys").textContent = told.first === null ? "–" : `${told.first} … ${told.last}`;
  byId("receipt-sha256").textContent = told.sha256 ?? "–";
  byId("receipt-url").href = `/api/export/${told.id}`;
  byId("receipt").hidden = false;
}

async function show() {
  if (!valid()) return;
  const id = randomId();
  const url = chosen(id);
  watch(id);
  const started_ms = performance.now();
  const rows = { csv: csvRows, ndjson: () => lines(0x7b), json: () => lines(0x7b), "json-seq": () => lines(0x1e) }[
    format()
  ]?.();
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
      found = rows?.(bytes) ?? 0;
      tail.add(rows ? decoder.decode(bytes, { stream: true }) : `${bytes.length} bytes\n`);
      soon();
    });
    say(byId("state"), "Ended cleanly");
  } catch (error) {
    say(byId("state"), abort.signal.aborted ? "Stopped" : error.message, !abort.signal.aborted);
    if (!received) watched.close(); // it was refused, and has no receipt
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

/** Count the lines that begin with the byte `first`: objects, and what RS begins in a JSON text sequence. */
function lines(first) {
  let previous = 0x0a;
  let rows = 0;
  return (bytes) => {
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] === first && previous === 0x0a) rows += 1;
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
byId("add").addEventListener("click", addCondition);
byId("download").addEventListener("click", (event) => {
  if (!valid()) return event.preventDefault();
  const id = randomId();
  watch(id);
  byId("download").href = chosen(id); // each download has a receipt of its own
  setTimeout(update); // and what is copied from the link has none
});
update();

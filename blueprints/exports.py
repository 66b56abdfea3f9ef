"""Exports: a table as a file in one of several formats, what can be exported, and the receipts.

Rules:
- An export is one snapshot of the database. What can be refused is refused before it begins.
- Only ``length=exact`` reads twice; everything else leaves as the database gives it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from urllib.parse import quote

from flask import Blueprint, Response, current_app, jsonify, request

from stores.base import START, Log
from stores.errors import KeyReused, StreamClosed, UnknownOffset
from stores.tables import Snapshot, Tables
from streaming import callers, readers
from streaming.conditions import Validators
from streaming.content_codings import Compressed
from streaming.cursors import Parameters, last_event_id
from streaming.errors import BadRequest, Conflict, NotFound, RangeNotSatisfiable
from streaming.export_requests import ID, AskedExport, asked_export
from streaming.formats import BY_ENDING, FORMATS, Format, by_file_name
from streaming.framings import SSE, Framing, Text
from streaming.queries import read_query
from streaming.ranges import Resolution, Span, resolve
from streaming.receipts import EXPORTS, Exported, Receipt, Receipted
from streaming.representations import Measured, measured, part
from streaming.response import respond
from streaming.shares import CountedSnapshot, nothing
from streaming.table_schemas import CSVW_TYPE, METADATA_ENDING, csvw, listing

blueprint = Blueprint("exports", __name__)

# Of a change that nobody knows: no date of a request is that of it.
_NO_DATE = -1
# With its caller's mark.
_SCOPED_ID = "[A-Za-z0-9_-]{1,81}"


@blueprint.get("/api/export")
def export() -> Response:
    if not request.args:
        tables: Tables = current_app.extensions["tables"]
        return jsonify(listing(tables.tables().values(), [each.name for each in FORMATS]))
    return _export("", None)


@blueprint.get("/api/export/<name>")
def export_file(name: str) -> Response:
    if name.endswith(METADATA_ENDING):
        return _schema(name.removesuffix(METADATA_ENDING))
    table, format = by_file_name(name)
    if format is not None:
        return _export(table, format)
    if "." in name:
        raise NotFound(f"There is no such format; there are {', '.join(BY_ENDING)}.")
    return _receipt(callers.scoped(name))


def _export(table: str, format: Format | None) -> Response:
    asked = asked_export(table, format)
    tables: Tables = current_app.extensions["tables"]
    framing = asked.format.make(asked.query, False)  # before the snapshot: it may be refused
    if request.method == "HEAD" and not asked.exact:
        return respond(iter(()), _coded(framing, asked.coding), headers=asked.headers)
    snapshot = _counted(tables)
    try:
        headers = asked.headers | {"Export-Snapshot": snapshot.name}
        if asked.exact:
            return _exact(asked, snapshot, headers)
        return _streamed(asked, snapshot, headers, framing)
    except BaseException:
        snapshot.close()
        raise


def _counted(tables: Tables) -> Snapshot:
    """Return a snapshot that is one of its caller's exports until it is closed. Raises TooManyRequests, StoreError."""
    leave = current_app.extensions["exports"].enter(callers.key())
    try:
        snapshot = tables.snapshot()
    except BaseException:
        leave()
        raise
    return snapshot if leave is nothing else CountedSnapshot(snapshot, leave)


def _streamed(asked: AskedExport, snapshot: Snapshot, headers: Mapping[str, str], framing: Framing) -> Response:
    receipt = _begun(asked, snapshot)
    headers = {**headers, "Export-Receipt": f"/api/export/{receipt.id}"}
    source = Exported(snapshot.rows(asked.query, asked.format.rows), snapshot.close, receipt)
    coded = _coded(Receipted(framing, receipt), asked.coding)
    return respond(source, coded, headers=headers, cut_after_error=True)


def _exact(asked: AskedExport, snapshot: Snapshot, headers: dict[str, str]) -> Response:
    """Answer with the length known: the whole, a range of it, or that it has not changed."""
    measures = measured(current_app.extensions["tables"], snapshot, asked.query, asked.format, request.environ)
    resumable = asked.query.table.ordered
    headers |= {
        "ETag": measures.etag,
        "Accept-Ranges": "bytes" if resumable else "none",
        "Repr-Digest": measures.repr_digest,
    }
    resolution = _resolution(measures, resumable)
    if resolution.status in (304, 412):
        snapshot.close()
        return Response(status=resolution.status, headers=headers)
    ((begin, end),) = resolution.spans
    receipt = None
    if resolution.status == 200 and request.method == "GET":
        receipt = _begun(asked, snapshot)
        receipt.length = measures.length
        headers["Export-Receipt"] = f"/api/export/{receipt.id}"
    blocks = part(snapshot, asked.query, asked.format, measures, begin, end)
    framing: Framing = Text(asked.format.content_type)
    if receipt is not None:
        framing = Receipted(framing, receipt)
    response = respond(Exported(blocks, snapshot.close, receipt), framing, headers=headers)
    response.content_length = end - begin
    if resolution.status == 206:
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{measures.length}"
    return response


def _resolution(measures: Measured, resumable: bool) -> Resolution:
    """What the request gets, in one span; several ranges get the whole. Raises RangeNotSatisfiable."""
    names = ("If-Match", "If-None-Match", *(("Range", "If-Range") if resumable else ()))
    fields = {name.lower(): request.headers[name] for name in names if name in request.headers}
    resolution = resolve(request.method, fields, Validators(measures.etag, _NO_DATE), measures.length, time.time())
    if resolution.status == 416:
        raise RangeNotSatisfiable(
            "The range begins behind the end.", headers={"Content-Range": f"bytes */{measures.length}"}
        )
    return resolution if len(resolution.spans) < 2 else Resolution(200, (Span(0, measures.length),))


def _begun(asked: AskedExport, snapshot: Snapshot) -> Receipt:
    query = asked.query
    about = {
        "table": query.table.name,
        "columns": query.columns,
        "format": asked.format.name,
        "snapshot": snapshot.name,
    }
    whole = query.after is None and not query.filters
    estimate = query.table.estimate if whole else None
    if query.limit is not None and estimate is not None:
        estimate = min(estimate, query.limit)
    receipt = Receipt(current_app.extensions["log"], asked.id, about, estimate)
    try:
        receipt.begin(current_app.extensions["lease"], current_app.extensions["settings"].PROGRESS_KEEP_S)
    except (KeyReused, StreamClosed) as error:
        raise Conflict("This id has been used for another export.", parameter="id") from error
    return receipt


def _coded(framing: Framing, name: str) -> Framing:
    return Compressed(framing, name) if name else framing


def _schema(table: str) -> Response:
    tables: Tables = current_app.extensions["tables"]
    query = read_query(Parameters("columns"), tables, table)
    url = f"{quote(table, safe='')}.csv"
    if request.query_string:
        url += f"?{request.query_string.decode('latin-1')}"
    response = jsonify(csvw(query.table, query.columns, url))
    response.content_type = CSVW_TYPE
    return response


def _receipt(id: str) -> Response:
    """The receipt as it stands, or as events while it changes."""
    query = Parameters("after")
    if not re.fullmatch(_SCOPED_ID, id):
        raise BadRequest(f"id must be {ID[1]}.", parameter="id")
    store: Log = current_app.extensions["log"]
    cursor = last_event_id() or query.text("after", START, "(?s).{0,128}", "an id of this stream")
    try:
        kept = store.read(EXPORTS + id, cursor)
    except UnknownOffset:
        cursor = START
        kept = store.read(EXPORTS + id, cursor)
    if request.accept_mimetypes.best_match(["application/json", "text/event-stream"]) == "text/event-stream":
        if kept.closed and cursor == kept.tail and cursor:
            return Response(status=204)
        return respond(readers.Follow(store, EXPORTS + id, cursor), SSE(cursor))
    whole = kept if cursor == START else store.read(EXPORTS + id, START)
    if not whole.events:
        raise NotFound("There is no export of this id, or its receipt is no longer kept.")
    response = Response(whole.events[-1].data, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept"
    return response

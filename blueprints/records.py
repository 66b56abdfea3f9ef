"""Records: the rows of a table as NDJSON, and a stream that fails in the open."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, current_app, request

from stores.tables import Tables
from streaming.cursors import Parameters
from streaming.events import Event, Source, json_event, pause
from streaming.framings import NDJSON
from streaming.queries import ENDINGS, NAMES, read_query
from streaming.receipts import events
from streaming.response import respond

blueprint = Blueprint("records", __name__)


@blueprint.get("/api/stream-json")
def stream_json() -> Response:
    asked = Parameters(*NAMES, "durable", endings=ENDINGS)
    source = _rows(asked)
    return respond(source, NDJSON(), cut_after_error=True, durable=asked.flag("durable"))


@blueprint.get("/api/stream-safe")
def stream_safe() -> Response:
    if "table" in request.args:
        return _safe_rows()
    query = Parameters("count", "interval", "after", "fail_after", "durable")
    count = query.integer("count", 10, 1, 100_000)
    interval_s = query.number("interval", 0.5, 0, 60)
    after = query.optional_integer("after", 0, count - 1)
    fail_after = query.optional_integer("fail_after", 0, 100_000)
    source = items(count, interval_s, -1 if after is None else after, fail_after)
    return respond(source, NDJSON(), durable=query.flag("durable"))


def _safe_rows() -> Response:
    """The rows of a table in the same way: a failure is the last line, and the end is clean."""
    asked = Parameters(*NAMES, "fail_after", "durable", endings=ENDINGS)
    fail_after = asked.optional_integer("fail_after", 0, 100_000)
    source = _rows(asked)
    if fail_after is not None:
        source = failing(source, fail_after)
    return respond(source, NDJSON(), durable=asked.flag("durable"))


def _rows(asked: Parameters) -> Source:
    tables: Tables = current_app.extensions["tables"]
    return events(tables.rows(read_query(asked, tables), "ndjson"))


def failing(source: Source, fail_after: int) -> Source:
    """Yield the first ``fail_after`` lines of ``source``, and fail where there are more."""
    left = fail_after
    for event in source:
        lines = event.data.split(b"\n") if event is not None else []
        if len(lines) > left:
            if left and event is not None:
                yield Event(b"\n".join(lines[:left]), event.type)
            raise RuntimeError(f"the failure that fail_after={fail_after} asked for")
        left -= len(lines)
        yield event


def items(count: int, interval_s: float, after: int, fail_after: int | None) -> Source:
    """Yield the items after ``after``, ``interval_s`` seconds apart; fail after ``fail_after`` of them."""
    for made, n in enumerate(range(after + 1, count)):
        if made == fail_after:
            raise RuntimeError(f"the failure that fail_after={fail_after} asked for")
        yield json_event({"item": n, "time": datetime.now(UTC)}, id=str(n))
        if n < count - 1:
            yield from pause(interval_s)

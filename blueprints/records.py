"""Records: the rows of a table as NDJSON or CSV, and a stream that fails in the open."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, current_app

from stores.base import BadKey, Query, Tables, UnknownColumn, UnknownTable
from streaming.cursors import Parameters
from streaming.errors import BadRequest, NotFound
from streaming.events import Source, json_event, pause
from streaming.framings import CSV, NDJSON
from streaming.response import respond

blueprint = Blueprint("records", __name__)


@blueprint.get("/api/stream-json")
def stream_json() -> Response:
    asked = Parameters("table", "columns", "after", "limit", "durable")
    tables, query = _query(asked)
    return respond(tables.rows(query, "ndjson"), NDJSON(), cut_after_error=True, durable=asked.flag("durable"))


@blueprint.get("/api/export")
def export() -> Response:
    tables, query = _query(Parameters("table", "columns", "after", "limit"))
    # The table's name went through the list of those allowed, but an operator may allow any name.
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in query.table.name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return respond(tables.rows(query, "csv"), CSV(query.columns), headers=headers)


def _query(asked: Parameters) -> tuple[Tables, Query]:
    tables: Tables = current_app.extensions["tables"]
    table = asked.text("table", "users", r"(?s).{1,128}", "1 to 128 characters")
    columns = asked.text("columns", "", r"(?s).{1,4096}", "names of columns, comma-separated")
    after = asked.text("after", "", r"(?s).{0,1024}", "at most 1,024 characters")
    limit = asked.optional_integer("limit", 0, 10**9)
    names = columns.split(",") if columns else ()
    try:
        return tables, tables.select(table, names, after if asked.has("after") else None, limit)
    except UnknownTable as error:
        raise NotFound(str(error), parameter="table") from error
    except UnknownColumn as error:
        raise BadRequest(str(error), parameter="columns") from error
    except BadKey as error:
        raise BadRequest(str(error), parameter="after") from error


@blueprint.get("/api/stream-safe")
def stream_safe() -> Response:
    query = Parameters("count", "interval", "after", "fail_after", "durable")
    count = query.integer("count", 10, 1, 100_000)
    interval_s = query.number("interval", 0.5, 0, 60)
    after = query.optional_integer("after", 0, count - 1)
    fail_after = query.optional_integer("fail_after", 0, 100_000)
    source = items(count, interval_s, -1 if after is None else after, fail_after)
    return respond(source, NDJSON(), durable=query.flag("durable"))


def items(count: int, interval_s: float, after: int, fail_after: int | None) -> Source:
    """Yield the items after ``after``, ``interval_s`` seconds apart; fail after ``fail_after`` of them."""
    for made, n in enumerate(range(after + 1, count)):
        if made == fail_after:
            raise RuntimeError(f"the failure that fail_after={fail_after} asked for")
        yield json_event({"item": n, "time": datetime.now(UTC)}, id=str(n))
        if n < count - 1:
            yield from pause(interval_s)

"""The formats of an export, as a table: names, endings, content type, and the framing of each.

Rules:
- ``format=`` wins over the file's ending, the ending over ``Accept``; nothing said is CSV.
- The database writes lines of CSV or NDJSON; every other format is made of those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from stores.tables import Query, Rows
from streaming.errors import BadRequest
from streaming.framings import NDJSON, Framing
from streaming.table_framings import CSV, JSONArray, JSONSequence


@dataclass(frozen=True, slots=True)
class Format:
    """``endings``: of files, the first one is given to a download. ``rows``: what the database writes for it.

    ``make``: its framing for a query; with True it goes on behind blocks that were written elsewhere.
    ``exact``: the same rows are the same bytes wherever the blocks are cut, so that any range of them can be made.
    """

    name: str
    endings: tuple[str, ...]
    content_type: str
    rows: Rows
    make: Callable[[Query, bool], Framing]
    exact: bool = True


def _arrow(query: Query, begun: bool) -> Framing:
    if find_spec("pyarrow") is None:
        raise BadRequest("This server has no Arrow: pip install -r requirements-arrow.txt.", parameter="format")
    from streaming.arrow_framing import Arrow  # here: it costs 60 MB, and most servers have none

    table = query.table
    return Arrow(query.columns, [table.types[table.columns.index(name)] for name in query.columns])


_ARROW_TYPE = "application/vnd.apache.arrow.stream"
FORMATS = (
    Format("csv", ("csv",), CSV.content_type, "csv", lambda query, _: CSV(query.columns, query.guarded)),
    Format("ndjson", ("ndjson", "jsonl"), NDJSON.content_type, "ndjson", lambda *_: NDJSON()),
    Format("json", ("json",), JSONArray.content_type, "ndjson", lambda _, begun: JSONArray(begun)),
    Format("json-seq", ("json-seq",), JSONSequence.content_type, "ndjson", lambda *_: JSONSequence()),
    Format("arrow", ("arrows",), _ARROW_TYPE, "csv", _arrow, exact=False),
)
BY_NAME = {each.name: each for each in FORMATS}
BY_ENDING = {ending: each for each in FORMATS for ending in each.endings}
BY_TYPE = {each.content_type.partition(";")[0]: each for each in FORMATS} | {
    "application/jsonl": BY_NAME["ndjson"],
    "application/x-jsonlines": BY_NAME["ndjson"],
}


def by_file_name(name: str) -> tuple[str, Format | None]:
    """Return what stands before the ending, and the format that it names; None: no ending of ours."""
    stem, dot, ending = name.rpartition(".")
    format = BY_ENDING.get(ending.lower()) if dot and stem else None
    return (stem, format) if format else (name, None)

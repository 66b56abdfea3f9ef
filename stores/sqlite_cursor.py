"""The rows of one query out of one SQLite connection, as blocks of lines that SQL has formatted.

Rules:
- A unique key is read in pages: one statement gives some 64 KiB of lines as one value, so Python is entered once for
  some hundred rows. ``group_concat`` takes its rows in the order of the sub-select, whose LIMIT keeps it apart.
- Everything else (views, NULL keys, very long rows, NUL in CSV) is read row by row from one ordered statement, which
  is right whatever the keys are.
- No value of more than ``_MAX_BYTES`` is built of several rows: SQLite refuses, and the page is read row by row.
- What is no UTF-8 becomes U+FFFD; delimiters are ASCII, and stay.
"""

from __future__ import annotations

import re
import sqlite3
from base64 import b64decode
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

from stores.base import BadKey, Query, Rows
from stores.sqlite_lines import LINE_ENDS, base64_text, line
from stores.sqlite_schema import Shape, quoted
from streaming.events import Event

_FIRST_ROWS = 50  # so that the first byte leaves early
_MAX_ROWS = 1000
_BLOCK_BYTES = 64 * 1024
_MAX_BYTES = 1024 * 1024
_ALL = 2**63 - 1

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")

Parameters = tuple[Any, ...]


def after_condition(shape: Shape, after: str, key: str) -> tuple[str, Parameters]:
    """Return the condition on the expression ``key`` and its parameters for the rows after the key ``after``.

    ``after`` is the key as the export shows it: blobs are base64. Raises BadKey.
    """
    try:
        after.encode()
    except UnicodeEncodeError:
        raise BadKey(f"A key of the table {shape.table.name} is text, and this is no Unicode text.") from None
    number = _number(after)
    match shape.key.affinity:
        case "INTEGER":
            if not isinstance(number, int):
                raise BadKey(f"The key {shape.key.name} must be an integer, and {after!r} is not.")
            return f"{key} > ?", (number,)
        case "REAL":
            if number is None:
                raise BadKey(f"The key {shape.key.name} must be a number, and {after!r} is not.")
            return f"{key} > ?", (number,)
        case "TEXT":
            return f"{key} > ?", (after,)
        case "NUMERIC":
            return f"{key} > ?", (after if number is None else number,)
    # Such a column holds each value as it came, so each is compared as what it is; without an index, but once only.
    kinds = f"CASE typeof({key}) WHEN 'text' THEN {key} > ? WHEN 'blob' THEN {key} > ? ELSE {key} > ? END"
    return kinds, (after, _blob(after), number)


def _number(text: str) -> int | float | None:
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def _blob(text: str) -> bytes | None:
    with suppress(ValueError):
        return b64decode(text, validate=True)
    return None


def cursor_text(kind: bytes, key: Any) -> str:
    """Return a key as the export shows it, which is what ``after`` takes; "" when it has no such form."""
    if kind == b"blob":
        return base64_text(key)
    if kind == b"text":
        with suppress(UnicodeDecodeError):
            return str(key, "utf-8")
        return ""
    return "" if key is None else repr(key)


class SQLiteCursor:
    """Reads ``query`` from ``connection``, whose ``text_factory`` is bytes; it is not closed here."""

    def __init__(self, connection: sqlite3.Connection, shape: Shape, query: Query, form: Rows) -> None:
        self._connection = connection
        self._shape = shape
        self._left = _ALL if query.limit is None else query.limit
        self._line = line(form, shape, query.columns)
        self._careful_line = line(form, shape, query.columns, careful=True)
        self._end = LINE_ENDS[form]
        self._stops_at_nul = form == "csv"
        self._column = f"t.{quoted(shape.key.name)}"
        self._collate = f" COLLATE {quoted(shape.key.collation)}" if shape.key.collation else ""
        self._key = self._column + self._collate
        self._where = f"{self._key} IS NOT NULL"
        self._parameters: Parameters = ()
        if query.after is not None:
            self._where, self._parameters = after_condition(shape, query.after, self._key)
        self._begins = query.after is None
        self._longest = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)

    def blocks(self) -> Generator[Event, None, None]:
        """Yield the rows in key order, NULL keys first, as blocks of lines; the id is the last key."""
        if not self._shape.key.unique:
            if self._begins:
                self._where = "TRUE"
            yield from self._one_by_one(self._left)
            return
        if self._begins and self._shape.key.nullable:
            not_null, self._where = self._where, f"{self._column} IS NULL"
            yield from self._one_by_one(self._left)
            self._where, self._parameters = not_null, ()
        yield from self._pages()

    def _pages(self) -> Iterator[Event]:
        asked = _FIRST_ROWS
        while asked := min(asked, self._left):
            left, size = self._left, 0
            page = self._page(asked)
            for event in self._one_by_one(asked) if page is None else page:
                size += len(event.data)
                yield event
            got = left - self._left
            if got < asked:
                return
            asked = min(_MAX_ROWS, max(1, got * _BLOCK_BYTES // max(size, 1)))

    def _page(self, rows: int) -> list[Event] | None:
        """Return the next ``rows`` rows as one event, or None when they must be read one by one."""
        statement = (
            f"SELECT group_concat(line, '{self._end}'), count(*), max(key{self._collate}), "
            f"typeof(max(key{self._collate})) FROM (SELECT {self._line} AS line, {self._column} AS key "
            f"FROM {quoted(self._shape.table.name)} AS t WHERE {self._where} ORDER BY {self._key} LIMIT ?)"
        )
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_BYTES)
        try:
            data, count, key, kind = self._connection.execute(statement, (*self._parameters, rows)).fetchone()
        except sqlite3.DataError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_TOOBIG:
                raise
            return None
        if not count:
            return []
        if self._stops_at_nul and b"\0" in data:
            return None
        self._advance(count, kind, key)
        return [Event(_utf8(data), "", cursor_text(kind, key))]

    def _one_by_one(self, rows: int) -> Iterator[Event]:
        """Yield the next ``rows`` rows, cut between two different keys wherever a block has come to its size."""
        statement = (
            f"SELECT {self._careful_line}, typeof({self._column}), {self._column} "
            f"FROM {quoted(self._shape.table.name)} AS t WHERE {self._where} ORDER BY {self._key} LIMIT ?"
        )
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._longest)
        lines: list[bytes] = []
        size = 0
        last: tuple[bytes, Any] = (b"null", None)
        for text, kind, key in self._connection.execute(statement, (*self._parameters, rows)):
            same = last == (kind, key)
            if (size >= _BLOCK_BYTES and not same) or size >= _MAX_BYTES:
                yield self._joined(lines, last, resumable=not same)
                lines, size = [], 0
            lines.append(text)
            size += len(text)
            last = (kind, key)
        if lines:
            yield self._joined(lines, last, resumable=True)

    def _joined(self, lines: list[bytes], last: tuple[bytes, Any], resumable: bool) -> Event:
        self._advance(len(lines), *last)
        # After a cut between rows of one key no cursor continues: it would lose the rest of them.
        return Event(_utf8(self._end.encode().join(lines)), "", cursor_text(*last) if resumable else "")

    def _advance(self, count: int, kind: bytes, key: Any) -> None:
        self._left -= count
        self._where, self._parameters = f"{self._key} > ?", (key,)
        if kind == b"text":
            # As text also when it is no UTF-8, which str cannot carry: then its bytes are bound.
            self._where = f"{self._key} > CAST(? AS TEXT)"
            with suppress(UnicodeDecodeError):
                self._parameters = (str(key, "utf-8"),)


def _utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace").encode()
    return data

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

import codecs
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

from stores import csv_fields
from stores.sqlite_conditions import Parameters, after_condition, conditions
from stores.sqlite_lines import LINE_ENDS, base64_text, fields, line
from stores.sqlite_schema import Shape, quoted
from stores.tables import Block, Query, Rows

_FIRST_ROWS = 50  # so that the first byte leaves early
_MAX_ROWS = 1000
_BLOCK_BYTES = 64 * 1024
_PIECE_BYTES = 16 * 1024
_MAX_BYTES = 1024 * 1024
_ALL = 2**63 - 1

# A key as SQLite has it: its type's name and its value.
Key = tuple[bytes, Any]


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
        self._line = line(form, shape, query.columns, guarded=query.guarded)
        # Two columns at the least, and no apostrophes before formulas: then Python puts the quotes, and SQL need not.
        self._apart = form == "csv" and len(query.columns) > 1 and not query.guarded
        self._row_end = csv_fields.ROW.decode() if self._apart else LINE_ENDS[form]
        if self._apart:
            self._line = fields(shape, query.columns)
        self._careful_line = line(form, shape, query.columns, careful=True, guarded=query.guarded)
        self._columns = len(query.columns)
        self._end = LINE_ENDS[form]
        self._stops_at_nul = form == "csv"
        self._column = f"t.{quoted(shape.key.name)}"
        self._collate = f" COLLATE {quoted(shape.key.collation)}" if shape.key.collation else ""
        self._key = self._column + self._collate
        self._order, self._ends = (" DESC", ("max", "min")) if query.descending else ("", ("min", "max"))
        self._beyond = "<" if query.descending else ">"
        self._filters, self._filter_values = conditions(shape, query.filters)
        self._where = f"{self._key} IS NOT NULL"
        self._parameters: Parameters = ()
        if query.after is not None:
            self._where, self._parameters = after_condition(shape, query.after, self._key, self._beyond)
        self._begins = query.after is None
        self._begun = False
        self._descending = query.descending
        self._longest = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)

    def blocks(self) -> Generator[Block, None, None]:
        """Yield the rows in the key's order, or against it, as blocks of lines; the id is the last key.

        NULL keys come first, and last against the order.
        """
        try:
            yield from self._blocks()
        finally:
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._longest)

    def _blocks(self) -> Iterator[Block]:
        if not self._shape.key.unique:
            if self._begins:
                self._where = "TRUE"
            elif self._descending:
                self._where = f"({self._where} OR {self._column} IS NULL)"
            yield from self._one_by_one(self._left)
            return
        nulls = self._shape.key.nullable and (self._begins or self._descending)
        if nulls and not self._descending:
            not_null, self._where = self._where, f"{self._column} IS NULL"
            yield from self._one_by_one(self._left)
            self._where, self._parameters = not_null, ()
        yield from self._pages()
        if nulls and self._descending and self._left:
            self._where, self._parameters = f"{self._column} IS NULL", ()
            yield from self._one_by_one(self._left)

    def _pages(self) -> Iterator[Block]:
        asked = _FIRST_ROWS
        while asked := min(asked, self._left):
            left, size = self._left, 0
            page = self._page(asked)
            for block in self._one_by_one(asked) if page is None else page:
                size += len(block.data)
                yield block
            got = left - self._left
            if got < asked:
                return
            asked = min(_MAX_ROWS, max(1, got * _BLOCK_BYTES // max(size, 1)))

    def _from(self) -> str:
        return (
            f"FROM {quoted(self._shape.table.name)} AS t WHERE {self._where}{self._filters} "
            f"ORDER BY {self._key}{self._order} LIMIT ?"
        )

    def _page(self, rows: int) -> list[Block] | None:
        """Return the next ``rows`` rows as one block, or None when they must be read one by one."""
        first, last = (f"{end}(key{self._collate})" for end in self._ends)
        if self._begun:
            first = "NULL"  # nobody asks for a later block's, and to find it is a thirtieth of the work
        statement = (
            f"SELECT group_concat(line, '{self._row_end}'), count(*), typeof({first}), {first}, typeof({last}), {last} "
            f"FROM (SELECT {self._line} AS line, {self._column} AS key {self._from()})"
        )
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_BYTES)
        values = (*self._parameters, *self._filter_values, rows)
        try:
            data, count, first_kind, first_key, kind, key = self._connection.execute(statement, values).fetchone()
        except sqlite3.DataError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_TOOBIG:
                raise
            return None
        if not count:
            return []
        if self._apart:
            data = csv_fields.csv(data, count, self._columns)
        elif self._stops_at_nul and b"\0" in data:
            data = None
        if data is None:
            return None
        self._advance(count, kind, key)
        return [Block(_utf8(data), cursor_text(kind, key), count, cursor_text(first_kind, first_key))]

    def _one_by_one(self, rows: int) -> Iterator[Block]:
        """Yield the next ``rows`` rows, cut between two different keys wherever a block has come to its size."""
        statement = f"SELECT {self._careful_line}, typeof({self._column}), {self._column} {self._from()}"
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._longest)
        lines: list[bytes] = []
        size = 0
        first = last = (b"null", None)
        for text, *key in self._connection.execute(statement, (*self._parameters, *self._filter_values, rows)):
            same = last == tuple(key)
            if (size >= _BLOCK_BYTES and not same) or size >= _MAX_BYTES:
                yield self._joined(lines, first, last, resumable=not same)
                lines, size = [], 0
            lines.append(text)
            size += len(text)
            last = (key[0], key[1])
            first = first if len(lines) > 1 else last
        if lines:
            yield self._joined(lines, first, last, resumable=True)

    def _joined(self, lines: list[bytes], first: Key, last: Key, resumable: bool) -> Block:
        self._advance(len(lines), *last)
        # After a cut between rows of one key no cursor continues: it would lose the rest of them.
        id = cursor_text(*last) if resumable else ""
        return Block(_utf8(self._end.encode().join(lines)), id, len(lines), cursor_text(*first))

    def _advance(self, count: int, kind: bytes, key: Any) -> None:
        self._left -= count
        self._begun = True
        self._where, self._parameters = f"{self._key} {self._beyond} ?", (key,)
        if kind == b"text":
            # As text also when it is no UTF-8, which str cannot carry: then its bytes are bound.
            self._where = f"{self._key} {self._beyond} CAST(? AS TEXT)"
            with suppress(UnicodeDecodeError):
                self._parameters = (str(key, "utf-8"),)


def _utf8(data: bytes) -> bytes:
    return data if data.isascii() or _is_utf8(data) else data.decode(errors="replace").encode()


def _is_utf8(data: bytes) -> bool:
    """Piece by piece: the text of a whole block is so large that the kernel clears its memory anew each time."""
    view, at = memoryview(data), 0
    try:
        while at < len(view):
            _, count = codecs.utf_8_decode(view[at : at + _PIECE_BYTES], "strict", at + _PIECE_BYTES >= len(view))
            at += count
    except UnicodeDecodeError:
        return False
    return True

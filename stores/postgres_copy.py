"""The rows of one COPY … TO STDOUT as blocks of lines, read by libpq's own loop.

Rules:
- One message of the protocol is one row. They are joined as they are: psycopg's iterator costs twice the time.
- PostgreSQL ends a line with LF, in CSV too. Where a block has no other LF than those, all are replaced at once;
  elsewhere (a line end inside a field) each row's own end is taken off.
- The wait for the socket is in the event loop. What has come is handed over when nothing follows for ``_PATIENCE_S``.
- Only COMMAND_OK at the end is an end: a connection that was lost is an error (libpq's PQgetCopyData, PQgetResult).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import gevent
import gevent.socket
import msgspec
from psycopg import OperationalError, errors
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from stores.base import Block, Query, Rows
from stores.postgres_lines import DELIMITERS, hides_key
from stores.postgres_schema import Shape
from streaming.events import TICK_S

_FIRST_ROWS = 50  # so that the first byte leaves early
_BLOCK_BYTES = 64 * 1024
_MAX_BYTES = 1024 * 1024
_PATIENCE_S = 0.02
_LINE_ENDS: dict[Rows, bytes] = {"csv": b"\r\n", "ndjson": b"\n"}
_FIELD = re.compile(rb'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(?:,|\Z)')

Lines = list[memoryview]


class Reading:
    """The rows of ``query``, whose ``statement`` is a COPY; ``pgconn`` is in the transaction that holds its values."""

    def __init__(self, pgconn: PGconn, statement: str, shape: Shape, query: Query, form: Rows) -> None:
        self._pgconn = pgconn
        self._statement = statement
        self._form = form
        self._hidden = DELIMITERS[form] if hides_key(form, shape, query) else b""
        self._key = shape.table.key
        self._at = query.columns.index(self._key) if self._key in query.columns else -1
        self._unique = shape.table.ordered
        self._begun = False

    def blocks(self) -> Iterator[Block | None]:
        """Yield the blocks, None first, before each wait and at every tick. Raises psycopg.Error."""
        yield None
        self._pgconn.nonblocking = 1
        self._pgconn.send_query(self._statement.encode())
        yield from self._began()
        lines: Lines = []
        size, limit, rows = 0, 0, _FIRST_ROWS
        get, append = self._pgconn.get_copy_data, lines.append
        while True:
            length, line = get(1)
            if length > 0:
                if size >= limit and len(lines) >= rows and self._may_cut(lines, line, size):
                    yield self._block(lines, line)
                    lines.clear()
                    size, limit, rows = 0, _BLOCK_BYTES, 0
                append(line)
                size += length
            elif length == 0:
                if self._readable(_PATIENCE_S):
                    continue
                if lines and self._unique:
                    yield self._block(lines, None)
                    lines.clear()
                    size, limit, rows = 0, _BLOCK_BYTES, 0
                yield from self._waited()
            else:
                break
        if lines:
            yield self._block(lines, None)
        self._ended()

    def _began(self) -> Iterator[None]:
        """Send the statement and wait until COPY has begun."""
        while self._pgconn.flush():
            gevent.socket.wait_write(self._pgconn.socket)
        while self._pgconn.is_busy():
            yield from self._waited()
        result = self._pgconn.get_result()
        if result is None or result.status != ExecStatus.COPY_OUT:
            raise errors.error_from_result(result) if result else OperationalError("no answer")

    def _ended(self) -> None:
        while (result := self._pgconn.get_result()) is not None:
            if result.status != ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
        self._pgconn.nonblocking = 0

    def _waited(self) -> Iterator[None]:
        """Yield None and wait for something to read, and again until it is there."""
        yield None
        while not self._readable(TICK_S):
            yield None

    def _readable(self, timeout_s: float) -> bool:
        try:
            gevent.socket.wait_read(self._pgconn.socket, timeout_s, _NOTHING)
        except _Nothing:
            return False
        self._pgconn.consume_input()
        return True

    def _may_cut(self, lines: Lines, following: memoryview, size: int) -> bool:
        """Whether a block may end here: between two keys, or where one key has too many rows for one block."""
        return self._unique or size >= _MAX_BYTES or self._key_of(lines[-1]) != self._key_of(following)

    def _block(self, lines: Lines, following: memoryview | None) -> Block:
        id = self._key_of(lines[-1])
        first = "" if self._begun else self._key_of(lines[0])
        self._begun = True
        if following is not None and not self._unique and id == self._key_of(following):
            id = ""  # no cursor continues between rows of one key: it would lose the rest of them
        return Block(self._joined(lines), id, len(lines), first)

    def _joined(self, lines: Lines) -> bytes:
        end = _LINE_ENDS[self._form]
        if self._hidden:
            rows = [bytes(line).partition(self._hidden)[2][:-1] for line in lines]
            # COPY would quote this one, alone on its line; beside the hidden key it is not alone.
            return end.join([b'"\\."' if row == b"\\." else row for row in rows])
        joined = b"".join(lines)
        if end == b"\n":
            return joined[:-1]
        if joined.count(b"\n") == len(lines):
            return joined[:-1].replace(b"\n", end)
        return end.join([line[:-1] for line in lines])

    def _key_of(self, row: memoryview) -> str:
        """Return the key as the export shows it, "" for NULL."""
        line = bytes(row)[:-1]
        if self._hidden:
            return bytes.fromhex(line.partition(self._hidden)[0].strip(b'"\x01').decode()).decode()
        if self._form == "csv":
            return _field(line, self._at)
        # Only the key is read: elsewhere in the line may stand a number that no float holds.
        value = msgspec.json.decode(msgspec.json.decode(line, type=dict[str, msgspec.Raw])[self._key])
        return "" if value is None else str(value)


def _field(line: bytes, at: int) -> str:
    """Return the field ``at`` of a line of CSV (RFC 4180, section 2, rules 5 to 7)."""
    position = 0
    for _ in range(at):
        match = _FIELD.match(line, position)
        position = match.end() if match else position
    match = _FIELD.match(line, position)
    quoted, plain = match.groups() if match else (None, b"")
    return (quoted.replace(b'""', b'"') if quoted is not None else plain or b"").decode()


class _Nothing(Exception):
    """Nothing came in time."""


_NOTHING = _Nothing()

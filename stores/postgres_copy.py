"""The rows of one COPY … TO STDOUT as blocks of lines, read by libpq's own loop.

Rules:
- One message of the protocol is one row. Each is added to the block at once and freed: a list of them, joined, took
  twice the time, and psycopg's iterator three times.
- PostgreSQL ends a line with LF, in CSV too. Where a block has no other LF than those, all are replaced at once; else
  those outside of quotes are: a field is whole in its block, and a quote inside of it is two.
- The wait for the socket is in the event loop. What has come is handed over when nothing follows for ``_PATIENCE_S``.
- Only COMMAND_OK at the end is an end: a connection that was lost is an error (libpq's PQgetCopyData, PQgetResult).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import gevent
import gevent.socket
import msgspec
from gevent.hub import Waiter
from psycopg import OperationalError, errors
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from stores.base import Block, Query, Rows
from stores.postgres_lines import DELIMITERS, hides_key
from stores.postgres_schema import Shape
from streaming.events import TICK_S

_FIRST_BYTES = 4096  # so that the first byte leaves early
_BLOCK_BYTES = 64 * 1024
_MAX_BYTES = 1024 * 1024
_PATIENCE_S = 0.02
_LINE_ENDS: dict[Rows, bytes] = {"csv": b"\r\n", "ndjson": b"\n"}
_FIELD = re.compile(rb'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(?:[,\n]|\Z)')

_END = object()


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
        self._first = ""

    def blocks(self) -> Iterator[Block | None]:
        """Yield the blocks, None first, before each wait and at every tick. Raises psycopg.Error."""
        yield None
        self._pgconn.nonblocking = 1
        self._pgconn.send_query(self._statement.encode())
        while self._pgconn.flush():
            gevent.socket.wait_write(self._pgconn.socket)
        while self._pgconn.is_busy():
            yield from self._waited()
        result = self._pgconn.get_result()
        if result is None or result.status != ExecStatus.COPY_OUT:
            raise errors.error_from_result(result) if result else OperationalError("no answer")
        yield from self._plain() if self._unique and not self._hidden else self._careful()
        while (result := self._pgconn.get_result()) is not None:
            if result.status != ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
        self._pgconn.nonblocking = 0

    def _plain(self) -> Iterator[Block | None]:
        """Rows whose line has their key, which no other row has: a block may end behind any of them."""
        lines, last, rows, limit = bytearray(), memoryview(b""), 0, _FIRST_BYTES
        get = self._pgconn.get_copy_data
        while True:
            length, line = get(1)
            if length > 0:
                lines += line
                last = line
                rows += 1
                if len(lines) < limit:
                    continue
            elif length == 0 and (not rows or self._readable(_PATIENCE_S)):
                if not rows:
                    yield from self._waited()
                continue
            if rows:
                yield self._block(bytes(lines), rows, last)
                lines.clear()
                rows, limit = 0, _BLOCK_BYTES
            if length < 0:
                return

    def _careful(self) -> Iterator[Block | None]:
        """Rows whose key is beside their line, or that share it: a block ends between two keys where it can."""
        lines: list[bytes] = []
        size, limit, last = 0, _FIRST_BYTES, ""
        while (row := self._next()) is not _END:
            if not isinstance(row, memoryview):
                yield None
                continue
            key, line = self._parted(bytes(row))
            same = bool(lines) and not self._unique and key == last
            if (size >= limit and not same) or size >= _MAX_BYTES:
                yield self._joined(lines, "" if same else last)
                lines, size, limit = [], 0, _BLOCK_BYTES
            if not lines and not self._begun:
                self._first = key
            lines.append(line)
            size += len(line)
            last = key
        if lines:
            yield self._joined(lines, last)

    def _next(self) -> memoryview | object | None:
        """Return the next row, _END, or None after a tick in which none came."""
        while True:
            length, line = self._pgconn.get_copy_data(1)
            if length > 0:
                return line
            if length < 0:
                return _END
            if not self._readable(TICK_S):
                return None

    def _waited(self) -> Iterator[None]:
        """Yield None and wait for something to read, and again until it is there."""
        yield None
        while not self._readable(TICK_S):
            yield None

    def _readable(self, timeout_s: float) -> bool:
        """Wait for something to read, and read it; False after ``timeout_s``."""
        hub = gevent.get_hub()
        waiter = Waiter(hub)
        socket, timer = hub.loop.io(self._pgconn.socket, 1), hub.loop.timer(timeout_s)
        socket.start(waiter.switch, True)
        timer.start(waiter.switch, False)
        try:
            ready: bool = waiter.get()
        finally:
            for watcher in (socket, timer):
                watcher.stop()
                watcher.close()
        if ready:
            self._pgconn.consume_input()
        return ready

    def _block(self, lines: bytes, rows: int, last: memoryview) -> Block:
        first = "" if self._begun else self._key_of(lines)
        self._begun = True
        data = lines[:-1] if self._form == "ndjson" else _with_crlf(lines, rows)
        return Block(data, self._key_of(bytes(last)), rows, first)

    def _joined(self, lines: Sequence[bytes], id: str) -> Block:
        first, self._first, self._begun = self._first, "", True
        return Block(_LINE_ENDS[self._form].join(lines), id, len(lines), first)

    def _parted(self, row: bytes) -> tuple[str, bytes]:
        """Return a row's key and its line, without its end."""
        if not self._hidden:
            return self._key_of(row), row[:-1]
        key, _, line = row[:-1].partition(self._hidden)
        # COPY would quote this one, alone on its line; beside the hidden key it is not alone.
        line = b'"\\."' if line == b"\\." else line
        return bytes.fromhex(key.strip(b'"\x01').decode()).decode(), line

    def _key_of(self, lines: bytes) -> str:
        """Return the key of the first of these lines as the export shows it, "" for NULL."""
        if self._form == "csv":
            return _field(lines, self._at)
        # Only the key is read: elsewhere in the line may stand a number that no float holds.
        fields = msgspec.json.decode(lines.partition(b"\n")[0], type=dict[str, msgspec.Raw])
        value = msgspec.json.decode(fields[self._key])
        return "" if value is None else str(value)


def _with_crlf(lines: bytes, rows: int) -> bytes:
    """Return lines of CSV with CRLF between them, and none behind the last."""
    if lines.count(b"\n") == rows:
        return lines[:-1].replace(b"\n", b"\r\n")
    parts = lines[:-1].split(b'"')
    parts[::2] = [outside.replace(b"\n", b"\r\n") for outside in parts[::2]]
    return b'"'.join(parts)


def _field(lines: bytes, at: int) -> str:
    """Return the field ``at`` of the first of these lines of CSV (RFC 4180, section 2, rules 5 to 7)."""
    position = 0
    for _ in range(at):
        match = _FIELD.match(lines, position)
        position = match.end() if match else position
    match = _FIELD.match(lines, position)
    quoted, plain = match.groups() if match else (None, b"")
    return (quoted.replace(b'""', b'"') if quoted is not None else plain or b"").decode()

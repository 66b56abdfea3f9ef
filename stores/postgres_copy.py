"""The rows of one COPY … TO STDOUT as blocks of lines.

Rules:
- Where a line shows its own key, and the connection is plain, the rows are read past libpq, many at once
  (``copy_messages``); whatever else the server says is handed to libpq. Elsewhere libpq gives out one row at a time.
- PostgreSQL ends a line with LF, in CSV too: only those are replaced, never one inside of a field.
- The wait for the socket is in the event loop. What has come is handed over when nothing follows for ``_PATIENCE_S``,
  or the answer has ended.
- Only COMMAND_OK at the end is an end: a connection that was lost is an error (libpq's PQgetCopyData, PQgetResult).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Generator, Iterator, Sequence

import gevent
import gevent.socket
import msgspec
from gevent.hub import Waiter
from psycopg import OperationalError, errors
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from stores.copy_messages import ROW, Taken, ended, length, take
from stores.postgres_lines import DELIMITERS, hides_key
from stores.postgres_schema import Shape
from stores.tables import Block, Query, Rows
from streaming.events import TICK_S

_FIRST_BYTES = 4096  # so that the first byte leaves early
_BLOCK_BYTES = 64 * 1024
_MAX_BYTES = 1024 * 1024
_READ_BYTES = 72 * 1024  # of which a block is left once the messages' heads are taken out
_PACKET_BYTES = 8 * 1024  # what the server sends at a time
_HANDED_BYTES = 16 * 1024  # less than a socket holds
_PATIENCE_S = 0.02
# To be woken for each packet costs as much CPU as all else that is done with its rows.
# So whoever has read all there is rests: the socket holds what the server makes of rows in twice that time.
_NAP_S = 0.001
_LINE_ENDS: dict[Rows, bytes] = {"csv": b"\r\n", "ndjson": b"\n"}
_FIELD = re.compile(rb'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(?:[,\n]|\Z)')

_END = object()
# Messages that can come before the rows and between them: the copy begins, a notice, a setting, a notification.
_ASIDE = b"HNSA"


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
        self._data = bytearray()  # what came and is not taken yet

    def blocks(self) -> Iterator[Block | None]:
        """Yield the blocks, None first, before each wait and at every tick. Raises psycopg.Error."""
        yield None
        self._pgconn.nonblocking = 1
        self._pgconn.send_query(self._statement.encode())
        while self._pgconn.flush():
            gevent.socket.wait_write(self._pgconn.socket)
        if self._unique and not self._hidden and not self._pgconn.ssl_in_use:
            yield from self._past_libpq()
        else:
            yield from self._begins()
            yield from self._careful()
        while (result := (yield from self._result())) is not None:
            if result.status != ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
        self._pgconn.nonblocking = 0

    def _begins(self) -> Iterator[None]:
        result = yield from self._result()
        if result is None or result.status != ExecStatus.COPY_OUT:
            raise errors.error_from_result(result) if result else OperationalError("no answer")

    def _result(self) -> Generator[None, None, PGresult | None]:
        while self._pgconn.is_busy():
            yield from self._waited()
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    def _past_libpq(self) -> Iterator[Block | None]:
        """Read rows whose line has their key, which no other row has: a block may end behind any of them."""
        end = _LINE_ENDS[self._form]
        while True:
            yield from self._arrived()
            if self._data[0] == ROW:
                self._gather()
                taken = take(self._data, end)
                assert taken is not None  # one has arrived
                del self._data[: taken.end]
                yield self._block(taken)
            elif self._data[0] in _ASIDE:
                size = length(self._data) or 0
                hand_over(self._pgconn, self._data[:size])
                del self._data[:size]
            else:  # the copy's end, or a failure
                hand_over(self._pgconn, self._data)
                break
        yield from self._begins()
        while self._next() is not _END:
            yield None

    def _arrived(self) -> Iterator[None]:
        """Wait until the next message is whole."""
        while (size := length(self._data)) is None or size > len(self._data):
            if not self._read():
                yield from self._waited()

    def _gather(self) -> None:
        """Read on until there is a block, for as long as something follows soon."""
        limit = _BLOCK_BYTES if self._begun else _FIRST_BYTES
        while len(self._data) < limit and not ended(self._data) and (self._read() or self._readable(_PATIENCE_S)):
            if self._begun and len(self._data) < limit and not ended(self._data):
                gevent.sleep(_NAP_S)

    def _read(self) -> bool:
        """Take what has come; return whether anything had."""
        most = _READ_BYTES - len(self._data) if self._begun else 0
        try:
            came = os.read(self._pgconn.socket, max(most, _PACKET_BYTES))
        except BlockingIOError:
            return False
        if not came:
            self._pgconn.consume_input()  # raises, with libpq's own words
            raise OperationalError("the connection was lost")
        self._data += came
        return True

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
            self._pgconn.consume_input()

    def _waited(self) -> Iterator[None]:
        """Yield None and wait for something to read, and again until it is there."""
        yield None
        while not self._readable(TICK_S):
            yield None

    def _readable(self, timeout_s: float) -> bool:
        """Wait for something to read; False after ``timeout_s``."""
        hub = gevent.get_hub()
        waiter = Waiter(hub)
        bytes_came, timer = hub.loop.io(self._pgconn.socket, 1), hub.loop.timer(timeout_s)
        bytes_came.start(waiter.switch, True)
        timer.start(waiter.switch, False)
        try:
            ready: bool = waiter.get()
        finally:
            for watcher in (bytes_came, timer):
                watcher.stop()
                watcher.close()
        return ready

    def _block(self, taken: Taken) -> Block:
        first = "" if self._begun else self._key_of(taken.first)
        self._begun = True
        return Block(taken.lines, self._key_of(taken.last), taken.rows, first)

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


def hand_over(pgconn: PGconn, data: bytes | bytearray) -> None:
    """Let libpq read ``data`` as if it came from the server: for that moment its descriptor is one of ours."""
    descriptor = pgconn.socket
    kept = os.dup(descriptor)
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.setblocking(False)
        try:
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
            for at in range(0, len(data), _HANDED_BYTES):
                ours.sendall(data[at : at + _HANDED_BYTES])
                pgconn.consume_input()
        finally:
            os.dup2(kept, descriptor, inheritable=False)
            os.close(kept)


def _field(lines: bytes, at: int) -> str:
    """Return the field ``at`` of the first of these lines of CSV (RFC 4180, section 2, rules 5 to 7)."""
    position = 0
    for _ in range(at):
        match = _FIELD.match(lines, position)
        position = match.end() if match else position
    match = _FIELD.match(lines, position)
    quoted, plain = match.groups() if match else (None, b"")
    return (quoted.replace(b'""', b'"') if quoted is not None else plain or b"").decode()

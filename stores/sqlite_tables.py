"""Cursors over the tables of a SQLite database, which formats the rows itself.

Rules:
- Each running query has a read-only connection and a native thread of its own; four blocks wait between it and its
  reader. Closing the iterator interrupts the query, and the thread closes the connection.
- One read transaction holds for the whole export. In WAL mode it stops no writer, so it may last as long as a slow
  client. In every other mode a reader blocks every commit: there the query runs ahead at its own speed, blocks that
  find no place go to a temporary file (TMPDIR), and the lock is held for as long as the database needs.
- Names come out of the schema and are quoted, values are bound: nothing of a caller becomes SQL.
- A key is the integer primary key, else the primary key of one column, else a NOT NULL unique column, else the rowid
  (which the rows do not show: only a block's id has it); in views and virtual tables the column ``id``, else the first
  one. A view's key ought to be unique: the export is whole in any case, but ``after`` skips all rows of that key.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO
from urllib.parse import quote

from gevent.monkey import get_original

from stores.base import Query, Rows, StoreBusy, StoreError, Table, UnknownColumn, UnknownTable
from stores.channel import Channel
from stores.sqlite_cursor import SQLiteCursor, after_condition
from stores.sqlite_lines import install
from stores.sqlite_schema import Shape, read_shapes
from streaming.events import Event

_BUSY_S = 5.0
_RETRY_S = 0.02
_IN_MEMORY_BYTES = 1024 * 1024
_native_sleep = get_original("time", "sleep")

_SENTENCES = {
    sqlite3.SQLITE_CANTOPEN: "The database cannot be opened.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged.",
    sqlite3.SQLITE_NOTADB: "The database file is damaged.",
    sqlite3.SQLITE_IOERR: "The database file cannot be read.",
    sqlite3.SQLITE_FULL: "The disk of the database's temporary files is full.",
    sqlite3.SQLITE_INTERRUPT: "The query was interrupted.",
}


class SQLiteTables:
    """The tables and views of the database file ``path`` whose names are in ``allowed``, exactly so written.

    At most ``most`` queries run at once, since each has a thread.
    """

    def __init__(self, path: str | os.PathLike[str], allowed: Sequence[str], most: int = 64) -> None:
        self._most = most
        self._uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        self._allowed = tuple(allowed)
        self._running: set[Channel[Event]] = set()

    def tables(self) -> Mapping[str, Table]:
        """The tables that may be read and exist, by name. Raises StoreError."""
        return {name: shape.table for name, shape in self._shapes(self._allowed).items()}

    def select(
        self, table: str, columns: Sequence[str] = (), after: str | None = None, limit: int | None = None
    ) -> Query:
        """Check every name against the schema and return the query; no columns means all of them.

        Raises UnknownTable, UnknownColumn (also for a column that is named twice), BadKey, StoreError, and StoreBusy
        when as many queries run as may.
        """
        shape = self._shapes([table]).get(table) if table in self._allowed else None
        if shape is None:
            raise UnknownTable(f"There is no table {table!r} that may be read.")
        for name in columns:
            if name not in shape.table.columns:
                raise UnknownColumn(f"The table {table} has no column {name!r}.")
            if list(columns).count(name) > 1:
                raise UnknownColumn(f"The column {name} is named twice.")
        if after is not None:
            after_condition(shape, after, "key")
        if len(self._running) >= self._most:
            raise StoreBusy("As many exports are running as may; try again later.")
        return Query(shape.table, tuple(columns) or shape.table.columns, after, limit)

    def rows(self, query: Query, form: Rows) -> Iterator[Event | None]:
        """Yield the rows in key order as blocks, None before each wait and at every tick.

        Closing the iterator returns at once and ends the query. Raises StoreError, also in mid-stream.
        """
        if query.limit == 0:
            return
        export = _Export(self._uri, query, form)
        channel: Channel[Event] = Channel(export.run, export.interrupt)
        self._running.add(channel)
        try:
            yield from channel.read()
        finally:
            self._running.discard(channel)

    def ping(self) -> None:
        """Return when the database answers. Raises StoreError."""
        self._shapes(())

    def dispose(self) -> None:
        """End the running queries; whoever reads them gets a StoreError."""
        for channel in tuple(self._running):
            channel.close(StoreError("The database is being closed."))

    def _shapes(self, allowed: Sequence[str]) -> dict[str, Shape]:
        with _sentences(), closing(_connected(self._uri)) as connection:
            _snapshot(connection, lambda: None, time.sleep).close()
            return read_shapes(connection, allowed)


class _Export:
    """One query, run in a native thread into a channel."""

    def __init__(self, uri: str, query: Query, form: Rows) -> None:
        self._uri = uri
        self._query = query
        self._form = form
        self._connection: sqlite3.Connection | None = None

    def run(self, channel: Channel[Event]) -> None:
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file, _sentences():
            spool = _Spool(file)
            with closing(_connected(self._uri)) as connection:
                self._connection = connection
                with closing(_snapshot(connection, channel.check, _native_sleep)):
                    self._read(connection, channel, spool)
            spool.drain(channel)

    def interrupt(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                self._connection.interrupt()

    def _read(self, connection: sqlite3.Connection, channel: Channel[Event], spool: _Spool) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        # The blocks are closed before the connection, which else would stay open behind a failure's traceback.
        with closing(self._blocks(connection)) as blocks:
            for block in blocks:
                if mode == "wal":
                    channel.put(block)
                else:
                    spool.write(block, channel)

    def _blocks(self, connection: sqlite3.Connection) -> Generator[Event, None, None]:
        name = self._query.table.name
        shape = read_shapes(connection, [name]).get(name)
        if shape is None or shape.table != self._query.table:
            raise StoreError(f"The table {name} has changed.")
        install(connection)
        connection.text_factory = bytes
        return SQLiteCursor(connection, shape, self._query, self._form).blocks()


class _Spool:
    """Blocks in a temporary file on their way into a channel, in order."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read_at = 0
        self._write_at = 0

    def write(self, block: Event, channel: Channel[Event]) -> None:
        """Hand ``block`` over if that needs no waiting, else keep it. Raises Cancelled."""
        channel.check()
        self._file.seek(self._write_at)
        key = block.id.encode()
        for part in (len(key).to_bytes(4), len(block.data).to_bytes(4), key, block.data):
            self._file.write(part)
        self._write_at = self._file.tell()
        while self._read_at < self._write_at and channel.has_place():
            channel.put(self._next())

    def drain(self, channel: Channel[Event]) -> None:
        """Hand the rest over, as fast as it is taken."""
        while self._read_at < self._write_at:
            channel.put(self._next())

    def _next(self) -> Event:
        self._file.seek(self._read_at)
        key_length, data_length = (int.from_bytes(self._file.read(4)) for _ in range(2))
        key, data = self._file.read(key_length), self._file.read(data_length)
        self._read_at = self._file.tell()
        return Event(data, "", key.decode())


def _connected(uri: str) -> sqlite3.Connection:
    # timeout=0: SQLite's own waiting for a lock would stop the loop, and in a thread it would not hear an interrupt.
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)


def _snapshot(
    connection: sqlite3.Connection, check: Callable[[], None], sleep: Callable[[float], None]
) -> sqlite3.Cursor:
    """Return a cursor that stands in the middle of a statement: until it is closed, one read transaction holds.

    It also makes SQLite remember an interrupt for every later statement; without, one that comes between two of them
    is forgotten. ``check`` is called after the start and between the attempts. Blocks up to ``_BUSY_S``.
    """
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            held = connection.execute("SELECT 1 FROM sqlite_schema UNION ALL SELECT 2 UNION ALL SELECT 3")
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            check()
            sleep(_RETRY_S)
        else:
            check()
            return held


def _primary(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn what the driver and the disk say into a StoreError that shows no SQL and no path."""
    try:
        yield
    except sqlite3.Error as error:
        if _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy("The database is busy; please try again.") from error
        raise StoreError(_SENTENCES.get(_primary(error), "The database could not answer.")) from error
    except OSError as error:
        raise StoreError("The disk of the database's temporary files failed.") from error

"""One moment of a SQLite database, and the queries that read it.

Rules:
- Each running query has a read-only connection and a native thread of its own; four blocks wait between it and its
  reader. Closing the iterator interrupts the query, and the thread closes the connection.
- One read transaction holds for the whole snapshot. In WAL mode it stops no writer, so it may last as long as a slow
  client. In every other mode a reader blocks every commit: there the query runs ahead at its own speed, blocks that
  find no place go to a temporary file (TMPDIR), and the lock is held for as long as the database needs.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import TypeVar

from gevent.monkey import get_original

from stores.channel import Channel
from stores.errors import StoreBusy, StoreError
from stores.sqlite_cursor import SQLiteCursor
from stores.sqlite_lines import install
from stores.sqlite_moment import Moments
from stores.sqlite_schema import read_shapes
from stores.sqlite_spool import Spool
from stores.tables import Block, Query, Rows
from stores.turns import Turns

_BUSY_S = 5.0
_RETRY_S = 0.02
_IN_MEMORY_BYTES = 1024 * 1024
_native_sleep = get_original("time", "sleep")
_native_lock = get_original("_thread", "allocate_lock")

T = TypeVar("T")

_SENTENCES = {
    sqlite3.SQLITE_CANTOPEN: "The database cannot be opened.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged.",
    sqlite3.SQLITE_NOTADB: "The database file is damaged.",
    sqlite3.SQLITE_IOERR: "The database file cannot be read.",
    sqlite3.SQLITE_FULL: "The disk of the database's temporary files is full.",
    sqlite3.SQLITE_INTERRUPT: "The query was interrupted.",
}


class Snapshot:
    """A connection in a read transaction, which a native thread uses for each of its queries, one after the other.

    Whoever is the last to need the connection closes it: the thread of the last query, or ``close``.
    """

    def __init__(self, uri: str, open: set[Snapshot], turns: Turns) -> None:
        self.name = ""
        self._uri = uri
        self._turns = turns
        self._siblings = open
        self._lock = _native_lock()
        self._connection: sqlite3.Connection | None = None
        self._held: sqlite3.Cursor | None = None
        self._channel: Channel[Block] | None = None
        self._busy = False
        self._closing = False

    def begin(self, check: Callable[[], None], sleep: Callable[[float], None], moments: Moments | None = None) -> None:
        """Open the transaction, which the database may delay for ``_BUSY_S``; named with ``moments``.

        Raises sqlite3.Error, OSError.
        """
        self._siblings.add(self)
        try:
            self._connection = connection = connected(self._uri)
            install(connection)
            if moments is None:
                self._held = held(connection, check, sleep)
            else:
                self._held, self.name = _retried(
                    lambda: moments.hold(lambda: held(connection, check, sleep)), check, sleep
                )
        except BaseException:
            self._give_back()
            raise

    def rows(self, query: Query, form: Rows, last: bool = True) -> Iterator[Block | None]:
        """See ``Snapshot`` of stores.tables."""
        if query.limit == 0:
            if last:
                self.close()
            return
        channel: Channel[Block] = Channel(lambda channel: self._run(channel, query, form, last), self._interrupt)
        self._channel = channel
        self._siblings.add(self)
        self._busy = True
        try:
            yield from channel.read()
        finally:
            channel.close()
            if last:
                self._siblings.discard(self)

    def close(self, failure: StoreError | None = None) -> None:
        self._siblings.discard(self)
        if self._channel is not None:
            self._channel.close(failure)
        with self._lock:
            self._closing, busy = True, self._busy
        if not busy:
            self._give_back()

    def _run(self, channel: Channel[Block], query: Query, form: Rows, last: bool) -> None:
        try:
            with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file, sentences():
                spool = Spool(file)
                if self._connection is None:
                    self.begin(channel.check, _native_sleep)
                self._read(channel, spool, query, form)
                if last:
                    self._give_back()
                spool.drain(channel)
        finally:
            with self._lock:
                self._busy, closing = False, self._closing or last
            if closing:
                self._give_back()

    def _read(self, channel: Channel[Block], spool: Spool, query: Query, form: Rows) -> None:
        connection = self._connection
        assert connection is not None
        connection.text_factory = str
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        # The blocks are closed before the connection, which else would stay open behind a failure's traceback.
        with closing(self._blocks(connection, query, form)) as blocks:
            for block in self._turns.each(blocks):
                if mode == "wal":
                    channel.put(block)
                else:
                    spool.write(block, channel)

    def _blocks(self, connection: sqlite3.Connection, query: Query, form: Rows) -> Generator[Block, None, None]:
        name = query.table.name
        shape = read_shapes(connection, [name]).get(name)
        if shape is None or shape.table != query.table:
            raise StoreError(f"The table {name} has changed.")
        connection.text_factory = bytes
        return SQLiteCursor(connection, shape, query, form).blocks()

    def _interrupt(self) -> None:
        if (connection := self._connection) is not None:
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                connection.interrupt()

    def _give_back(self) -> None:
        """Close the transaction and the connection; only while no query runs."""
        self._siblings.discard(self)
        held, connection, self._held, self._connection = self._held, self._connection, None, None
        if held is not None:
            held.close()
        if connection is not None:
            connection.close()


def connected(uri: str) -> sqlite3.Connection:
    # timeout=0: SQLite's own waiting for a lock would stop the loop, and in a thread it would not hear an interrupt.
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)


def held(connection: sqlite3.Connection, check: Callable[[], None], sleep: Callable[[float], None]) -> sqlite3.Cursor:
    """Return a cursor that stands in the middle of a statement: until it is closed, one read transaction holds.

    It also makes SQLite remember an interrupt for every later statement; without, one that comes between two of them
    is forgotten.
    """
    statement = "SELECT 1 FROM sqlite_schema UNION ALL SELECT 2 UNION ALL SELECT 3"
    return _retried(lambda: connection.execute(statement), check, sleep)


def _retried(call: Callable[[], T], check: Callable[[], None], sleep: Callable[[float], None]) -> T:
    """Return what ``call`` returns once nothing is locked, calling ``check`` in between. Blocks up to ``_BUSY_S``."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            done = call()
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            check()
            sleep(_RETRY_S)
        else:
            check()
            return done


def _primary(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what the driver and the disk say into a StoreError that shows no SQL and no path."""
    try:
        yield
    except sqlite3.Error as error:
        if _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy("The database is busy; please try again.") from error
        raise StoreError(_SENTENCES.get(_primary(error), "The database could not answer.")) from error
    except OSError as error:
        raise StoreError("The disk of the database's temporary files failed.") from error

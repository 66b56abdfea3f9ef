"""A log in an SQLite file, shared by the workers of one machine.

Rules:
- ``prepare`` runs once, before any worker serves: two workers that switch to WAL at the same time can fail.
- No call blocks the worker: the busy handler is off (it would stall every greenlet), and a busy database is asked
  again after a cooperative pause. Between BEGIN and COMMIT nothing waits, so greenlets can share one connection.
- ``changes`` numbers every change of any log; after a ring each worker asks which logs changed since it last asked.
- Durability: WAL with synchronous=NORMAL. What was acknowledged survives a crash of the process; the newest commits
  may be lost with the machine's power.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from stores import offsets
from stores.base import Batch, KeyReused, LogClosed, StoreBusy, StoreError
from stores.bells import Bells, SharedBell
from streaming.events import Event

Result = TypeVar("Result")

BUSY_S = 5.0
_RETRY_S = 0.005

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    life TEXT NOT NULL,
    first INTEGER NOT NULL DEFAULT 1,
    tail INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0,
    touched REAL NOT NULL,
    changes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), changes INTEGER NOT NULL);
INSERT OR IGNORE INTO clock VALUES (1, 0);
CREATE INDEX IF NOT EXISTS logs_by_changes ON logs (changes);
CREATE TABLE IF NOT EXISTS events (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    type TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    log INTEGER NOT NULL,
    key TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (log, key)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""


def prepare(path: Path) -> None:
    """Make the file, its journal mode and its tables; what is there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return _make(path)
        except sqlite3.OperationalError as error:
            # The switch to WAL asks no busy handler: it failed in 4 of 25 races of four processes.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_S)


def _make(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            db.execute("PRAGMA journal_mode = wal")
            db.executescript(_SCHEMA)


class SQLiteLog:
    """``stores.base.Log`` in the file ``path``, which ``prepare`` has made."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._lock = threading.RLock()
        self._bells = Bells()
        # Tried again as any transaction: the last connection of a worker that goes removes the WAL under a lock.
        self._seen = self._transaction(self._last_change, "BEGIN")
        self._db.execute("PRAGMA synchronous = normal")
        self._shared = SharedBell(path.with_name(path.name + "-bell"), self._ring_changed)

    def append(self, path: str, events: Sequence[Event], *, key: str = "", keep: int = 0) -> str:
        def work() -> str:
            log, life, first, tail, closed = self._open(path)
            if key and (earlier := self._earlier(log, key, events)):
                return offsets.write(earlier, life)
            if closed:
                raise LogClosed("This log is closed.")
            last = tail + len(events)
            self._db.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?)",
                ((log, tail + n, event.type, event.data) for n, event in enumerate(events, 1)),
            )
            if key:
                self._db.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (log, key, tail + 1, last))
            if keep and last - first + 1 > keep:
                first = last - keep + 1
                self._db.execute("DELETE FROM events WHERE log = ? AND number < ?", (log, first))
                self._db.execute("DELETE FROM keys WHERE log = ? AND first < ?", (log, first))
            self._db.execute(
                "UPDATE logs SET first = ?, tail = ?, touched = ?, changes = ? WHERE id = ?",
                (first, last, time.time(), self._next_change(), log),
            )
            return offsets.write(last, life)

        return self._change(path, work)

    def read(self, path: str, after: str, limit: int = 1000) -> Batch:
        def work() -> Batch:
            row = self._row(path)
            if row is None:
                offsets.read(after, "none", 0)
                return Batch((), 0, "", False, 0)
            log, life, first, tail, closed = row
            number = offsets.read(after, life, tail)
            rows = self._db.execute(
                "SELECT number, type, data FROM events WHERE log = ? AND number > ? ORDER BY number LIMIT ?",
                (log, number, limit),
            ).fetchall()
            events = tuple(Event(data, type, offsets.write(n, life)) for n, type, data in rows)
            tail_offset = offsets.write(tail, life) if tail else ""
            return Batch(events, max(first - 1 - number, 0), tail_offset, bool(closed), tail - first + 1)

        return self._transaction(work, "BEGIN")

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        return self._bells.wait(path, lambda: self._ready(path, after), timeout_s)

    def close(self, path: str) -> None:
        def work() -> None:
            log = self._open(path)[0]
            self._db.execute(
                "UPDATE logs SET closed = 1, touched = ?, changes = ? WHERE id = ?",
                (time.time(), self._next_change(), log),
            )

        self._change(path, work)

    def delete(self, path: str) -> None:
        def work() -> None:
            for table in ("events", "keys"):
                self._db.execute(f"DELETE FROM {table} WHERE log = (SELECT id FROM logs WHERE path = ?)", (path,))
            self._db.execute("DELETE FROM logs WHERE path = ?", (path,))

        self._change(path, work)

    def expire(self, prefix: str, age_s: float) -> int:
        # substr, not LIKE: a path may hold % and _.
        rows = self._transaction(
            lambda: self._db.execute(
                "SELECT path FROM logs WHERE substr(path, 1, ?) = ? AND touched <= ?",
                (len(prefix), prefix, time.time() - age_s),
            ).fetchall(),
            "BEGIN",
        )
        for (path,) in rows:
            self.delete(path)
        return len(rows)

    def ping(self) -> None:
        self._transaction(
            lambda: self._db.execute("SELECT count(*) FROM (SELECT 1 FROM logs LIMIT 1)").fetchone(), "BEGIN"
        )

    def dispose(self) -> None:
        self._shared.close()
        self._bells.ring_all()
        self._db.close()

    def _row(self, path: str) -> tuple[int, str, int, int, int] | None:
        row: tuple[int, str, int, int, int] | None = self._db.execute(
            "SELECT id, life, first, tail, closed FROM logs WHERE path = ?", (path,)
        ).fetchone()
        return row

    def _open(self, path: str) -> tuple[int, str, int, int, int]:
        """Return the log's row, which is made when it is not there."""
        row = self._row(path)
        if row is None:
            life = offsets.new_life()
            made = self._db.execute(
                "INSERT INTO logs (path, life, touched, changes) VALUES (?, ?, ?, 0)", (path, life, time.time())
            )
            row = (int(made.lastrowid or 0), life, 1, 0, 0)
        return row

    def _earlier(self, log: int, key: str, events: Sequence[Event]) -> int:
        """Return the number of the last event that came with ``key``, or 0. Raises KeyReused."""
        found = self._db.execute("SELECT first, last FROM keys WHERE log = ? AND key = ?", (log, key)).fetchone()
        if found is None:
            return 0
        same = self._db.execute(
            "SELECT type, data FROM events WHERE log = ? AND number BETWEEN ? AND ? ORDER BY number", (log, *found)
        ).fetchall()
        if same != [(event.type, event.data) for event in events]:
            raise KeyReused("This idempotency key came before with another body.")
        return int(found[1])

    def _ready(self, path: str, after: str) -> bool:
        row = self._transaction(lambda: self._row(path), "BEGIN")
        return row is not None and (bool(row[4]) or (offsets.write(row[3], row[1]) if row[3] else "") != after)

    def _last_change(self) -> int:
        return int(self._db.execute("SELECT changes FROM clock").fetchone()[0])

    def _next_change(self) -> int:
        return int(self._db.execute("UPDATE clock SET changes = changes + 1 RETURNING changes").fetchone()[0])

    def _ring_changed(self) -> None:
        """After a ring by any worker: wake who waits for a log that changed since."""
        if not len(self._bells):
            return
        try:
            rows = self._transaction(
                lambda: self._db.execute("SELECT path, changes FROM logs WHERE changes > ?", (self._seen,)).fetchall(),
                "BEGIN",
            )
        except StoreError:
            return self._bells.ring_all()
        for path, changes in rows:
            self._seen = max(self._seen, changes)
            self._bells.ring(path)

    def _change(self, path: str, work: Callable[[], Result]) -> Result:
        result = self._transaction(work, "BEGIN IMMEDIATE")
        self._bells.ring(path)
        self._shared.ring()
        return result

    def _transaction(self, work: Callable[[], Result], begin: str) -> Result:
        """Return what ``work`` does in one transaction; all of it or nothing. Raises StoreBusy, StoreError."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                with self._lock, self._begun(begin):
                    return work()
            except sqlite3.OperationalError as error:
                # The low byte of an extended code is its primary code (sqlite.org/rescode.html).
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise StoreError("The log's database failed.") from error
                if time.monotonic() > deadline:
                    raise StoreBusy("The log's database is busy.") from error
            except sqlite3.DatabaseError as error:
                raise StoreError("The log's database failed.") from error
            time.sleep(_RETRY_S)

    @contextlib.contextmanager
    def _begun(self, begin: str) -> Iterator[None]:
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

"""The file of the log in SQLite: its tables, how it is opened, and what its failures are called.

Rules:
- ``prepare`` runs once, before any worker serves: two workers that switch to WAL at the same time can fail.
- Of a stream's events those it holds itself lie in ``events``, from number ``base`` + 1 on; a fork's others are its
  source's. ``pinned``: up to there a fork reads them, whatever retention says.
- ``clock`` numbers the commits, and ``streams.changes`` is the number of the last one that changed the stream: a worker
  asks after a ring which streams changed since it last asked. ``deletions`` has the paths of those that went lately.
- ``staged`` and ``staged_tails`` are those of stores/sqlite_staging.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stores.errors import StoreBusy, StoreError, StoreFull

BUSY_S = 5.0
# Two processes that write all the time got twice as much done, with a fifth of the p99, as with pauses up to 10 ms.
_RETRY_S = 0.0005
_MOST_RETRY_S = 0.001
Result = TypeVar("Result")

_VERSION = 3
_PRE_RELEASE = 1

_SCHEMA = """
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    life TEXT NOT NULL,
    config TEXT NOT NULL,
    asked TEXT NOT NULL,
    source INTEGER,
    base INTEGER NOT NULL,
    forks INTEGER NOT NULL DEFAULT 0,
    pinned INTEGER NOT NULL DEFAULT 0,
    first INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    end INTEGER NOT NULL,
    time_s REAL NOT NULL,
    touched REAL NOT NULL,
    expires REAL,
    keep_s REAL NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    seq TEXT NOT NULL DEFAULT '',
    changes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX streams_by_changes ON streams (changes);
CREATE INDEX streams_by_expires ON streams (expires) WHERE expires IS NOT NULL;
CREATE INDEX streams_by_age ON streams (id) WHERE keep_s > 0;
CREATE TABLE events (
    stream INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time_s REAL NOT NULL,
    start INTEGER NOT NULL,
    type TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (stream, number)
) WITHOUT ROWID;
CREATE TABLE producers (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
) WITHOUT ROWID;
CREATE TABLE keys (
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (stream, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_first ON keys (stream, first);
CREATE TABLE doomed (stream INTEGER PRIMARY KEY);
CREATE TABLE deletions (changes INTEGER NOT NULL, path TEXT NOT NULL, PRIMARY KEY (changes, path)) WITHOUT ROWID;
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), changes INTEGER NOT NULL);
INSERT INTO clock VALUES (1, 0)
"""
# Since version 3.
_STAGING = """
CREATE TABLE staged (
    stream INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time_s REAL NOT NULL,
    start INTEGER NOT NULL,
    type TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX staged_by_stream ON staged (stream, number);
CREATE TABLE staged_tails (
    stream INTEGER PRIMARY KEY,
    tail INTEGER NOT NULL,
    end INTEGER NOT NULL,
    time_s REAL NOT NULL,
    touched REAL NOT NULL,
    expires REAL,
    changes INTEGER NOT NULL,
    producer TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    owner INTEGER NOT NULL
)
"""


def prepare(path: Path) -> None:
    """Make the file, its journal mode and its tables; what is there stays. Raises StoreError."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as db:
            _make(db)

    try:
        # The switch to WAL asks no busy handler: it failed in 4 of 25 races of four processes.
        patiently(work)
    except sqlite3.Error as error:
        raise failure(error) from error


def patiently(work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns, asking a busy database again for ``BUSY_S`` seconds. Waits cooperatively."""
    deadline, pause_s = time.monotonic() + BUSY_S, _RETRY_S
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _MOST_RETRY_S)


def _make(db: sqlite3.Connection) -> None:
    if _version(db) == _VERSION:
        return
    db.execute("PRAGMA journal_mode = wal")
    db.execute("BEGIN IMMEDIATE")
    version = _version(db)
    if version == _PRE_RELEASE:
        for table in ("logs", "clock", "events", "keys"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
    if version in (0, _PRE_RELEASE):
        _execute(db, _SCHEMA)
    if version < _VERSION:
        _execute(db, _STAGING)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")
    if _version(db) != _VERSION:
        raise StoreError("The log's database was made by another version of Perennial.")


def _execute(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def open_file(path: Path, sync: str) -> sqlite3.Connection:
    """Return a connection without a busy handler, which would stall every greenlet of the worker. ``sync``: a level."""
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # The last connection of a worker that goes removes the WAL under a lock, also before this.
        patiently(lambda: db.execute(f"PRAGMA synchronous = {'full' if sync == 'full' else 'normal'}"))
    except BaseException:
        db.close()
        raise
    return db


def is_busy(error: Exception) -> bool:
    # The low byte of an extended code is its primary code (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def failure(error: sqlite3.Error) -> StoreError:
    """Return what the store says of ``error``."""
    if is_busy(error):
        return StoreBusy("The log's database is busy.")
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return StoreFull("The disk of the log's database is full.")
    return StoreError("The log's database failed.")

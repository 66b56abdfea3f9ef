"""Which moment of a SQLite database a read transaction shows, as a short name.

Rules:
- Two transactions with the same name show the same data; names are of this process, another one has others.
- One connection that stays open watches: its ``data_version`` changes with every commit of anybody. It is read before
  and after the transaction begins; when a commit came between, the transaction begins again.
- The files are never opened here: closing one would drop every lock of SQLite on it (sqlite.org/howtocorrupt, 2.2).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

_ATTEMPTS = 5


class Moments:
    """The moments of the database file ``path``, which ``connect`` opens. For one thread."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._watcher: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._life = ""

    def hold(self, hold: Callable[[], sqlite3.Cursor]) -> tuple[sqlite3.Cursor, str]:
        """Return what ``hold`` returns, a cursor that holds a transaction, and the name of the moment it shows."""
        before = self._version()
        for _ in range(_ATTEMPTS):
            held = hold()
            if (after := self._version()) == before:
                return held, after
            before = after
            held.close()
        # Commits come faster than we look: this moment is like no other.
        return hold(), secrets.token_hex(8)

    def dispose(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def _version(self) -> str:
        if self._watcher is None or self._file != self._inode():
            self.dispose()
            self._watcher, self._file = self._connect(), self._inode()
            self._life = secrets.token_hex(4)
        (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
        return f"{self._life}-{version}"

    def _inode(self) -> tuple[int, int]:
        """Which file it is now; another one may have taken its place."""
        try:
            status = os.stat(self._path)
        except OSError:
            return 0, 0
        return status.st_dev, status.st_ino

"""What goes from the log in SQLite: streams, and what retention does not keep.

Rules:
- Events go in slices, so that no transaction holds up the others for long; ``doomed`` names the streams that are gone
  but for some of their events, and survives a crash.
- What a fork has inherited stays as long as the fork.
"""

from __future__ import annotations

import sqlite3

from stores import sqlite_rows
from stores.sqlite_rows import Row

SLICE = 1000
# Who asks after a ring is seldom further behind; if so, it wakes everybody.
TOLD = 1000


class Deletions:
    """The deletions on ``db``, each within a write of the group commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def forget(self, row: Row, change: int) -> None:
        """Delete the stream, and with its last fork a source that was deleted before; of the events a first slice."""
        for table in ("keys", "producers"):
            self._db.execute(f"DELETE FROM {table} WHERE stream = ?", (row.id,))
        self._db.execute("INSERT OR IGNORE INTO deletions VALUES (?, ?)", (change, row.path))
        self._db.execute("DELETE FROM deletions WHERE changes < ?", (change - TOLD,))
        if row.forks:
            self._db.execute("UPDATE streams SET deleted = 1, expires = NULL, keep_s = 0 WHERE id = ?", (row.id,))
            return
        self._db.execute("DELETE FROM streams WHERE id = ?", (row.id,))
        self._db.execute("INSERT INTO doomed VALUES (?)", (row.id,))
        self.purge(row.id)
        if row.source is not None:
            self._leave(row.source, change)

    def purge(self, doomed: int) -> bool:
        """Delete a slice of the events of a stream that is gone; whether any may be left."""
        left = self._delete_events(doomed, 0, 2**62) == SLICE
        if not left:
            self._db.execute("DELETE FROM doomed WHERE stream = ?", (doomed,))
        return left

    def drop(self, row: Row, first: int) -> bool:
        """Delete a slice of the events before number ``first`` that no fork reads; whether any may be left."""
        return self._delete_events(row.id, row.pinned, first) == SLICE

    def _leave(self, source: int, change: int) -> None:
        """A fork of ``source`` has gone; with the last one goes what was kept for it."""
        self._db.execute(
            "UPDATE streams SET forks = forks - 1, pinned = CASE forks WHEN 1 THEN 0 ELSE pinned END WHERE id = ?",
            (source,),
        )
        row = sqlite_rows.of_id(self._db, source)
        if row and row.deleted and not row.forks:
            self.forget(row, change)

    def _delete_events(self, stream: int, after: int, before: int) -> int:
        """Delete a slice of the stream's events with numbers between the two; return how many."""
        return self._db.execute(
            "DELETE FROM events WHERE stream = ?1 AND number IN"
            f" (SELECT number FROM events WHERE stream = ?1 AND number > ?2 AND number < ?3 LIMIT {SLICE})",
            (stream, after, before),
        ).rowcount

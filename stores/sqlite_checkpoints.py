"""The write-ahead log brought into the database beside the commits, not by one of them.

A commit that finds 1000 pages in the WAL copies them into the database and syncs both files, 10 ms in which every
other write waits: with a page or four for each commit that was the slowest of each 230.

Rules:
- A native thread with a connection of its own copies what is there (PASSIVE, which makes nobody wait) after each
  ``COMMITS``. Who next writes to a WAL that was copied whole begins it anew.
- What was written meanwhile is copied by a further pass, and a pause of a few milliseconds ends that. Where writes
  come without one the copy never catches up: there a commit does the rest, at ``PAGES``.
- Nothing patched is touched in the thread. What fails is tried again after the next commits.
"""

from __future__ import annotations

import contextlib
import sqlite3

from gevent.monkey import get_original

COMMITS = 128
PAGES = 4000  # 16 MB, four times SQLite's own bound
_PASSES = 4
_PAUSE_S = 0.01

_SimpleQueue = get_original("queue", "SimpleQueue")
_start_thread = get_original("_thread", "start_new_thread")
_sleep = get_original("time", "sleep")


class Checkpoints:
    """Of the file of ``db``, which nobody else uses, and whose commits are those of ``writer``."""

    def __init__(self, db: sqlite3.Connection, writer: sqlite3.Connection) -> None:
        self._db = db
        self._commits = 0
        self._jobs = _SimpleQueue()
        writer.execute(f"PRAGMA wal_autocheckpoint = {PAGES}")
        _start_thread(self._work, ())

    def committed(self) -> None:
        self._commits += 1
        if self._commits % COMMITS == 0:
            self._jobs.put(True)

    def end(self) -> None:
        """Let the thread end, which closes its connection; one checkpoint may still be under way."""
        self._jobs.put(False)

    def _work(self) -> None:
        with contextlib.closing(self._db):
            while self._jobs.get():
                with contextlib.suppress(sqlite3.Error):
                    self._catch_up()

    def _catch_up(self) -> None:
        for _ in range(_PASSES):
            before = self._commits
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if self._commits == before:
                break
            _sleep(_PAUSE_S)

"""A log in an SQLite file, shared by the workers of one machine.

Rules:
- No call blocks the worker: writes go through the group commit (stores/sqlite_commits.py), and reads have a connection
  of their own, which in WAL mode waits for no writer. Between BEGIN and COMMIT of a read nothing waits.
- Who waits is woken after the commit: in this process by ``Bells``, in the others by ``SharedBell``, after whose ring
  they ask which streams changed.
- Durability: with ``sync="normal"`` what was acknowledged survives a crash of the process, with ``"full"`` (an fsync
  for each group of commits) one of the machine.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stores import lifetimes, offsets, sqlite_file, sqlite_rows
from stores.base import START, Append, Appended, Batch, Config, Create, Producer, State
from stores.bells import Bells
from stores.errors import NoStream, StoreError, StreamGone
from stores.producers import Asked
from stores.shared_bell import SharedBell
from stores.sqlite_batches import Batches
from stores.sqlite_commits import Commits, Write, is_heavy
from stores.sqlite_deletions import TOLD
from stores.sqlite_file import prepare as prepare
from stores.sqlite_rows import Found
from stores.sqlite_streams import Streams
from stores.sqlite_touches import Touches
from streaming.events import Event

# Whose process has staged nothing for so long has settled it, or is dead.
_ABANDONED_S = 60.0

Result = TypeVar("Result")


class SQLiteLog:
    """``stores.base.Log`` in the file ``path``, which ``prepare`` has made. ``clock``: seconds since 1970."""

    def __init__(self, path: Path, sync: str = "normal", clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._touches = Touches()
        self._bells = Bells()
        self._lock = threading.RLock()
        try:
            self._db, writer, aside = (sqlite_file.open_file(path, sync) for _ in range(3))
        except sqlite3.Error as error:
            raise sqlite_file.failure(error) from error
        self._streams = Streams(writer, clock, self._touches)
        self._batches = Batches(writer, self._streams, clock)
        self._commits = Commits(writer, aside, self._streams.begin, self._committed)
        try:
            self._seen = self._look(lambda: sqlite_rows.change(self._db))
        except StoreError:
            self._commits.dispose()
            self._db.close()
            raise
        self._shared = SharedBell(path.with_name(path.name + "-bells"), self._ring_changed)

    def create(self, path: str, config: Config, events: Sequence[Event] = (), *, closed: bool = False) -> State:
        return self._commits.do(lambda: self._streams.create(path, config, events, closed), [path], is_heavy(events))

    def create_each(self, creates: Sequence[Create]) -> None:
        self._commits.do(lambda: self._batches.create(creates), [create.path for create in creates])

    def append(
        self,
        path: str,
        events: Sequence[Event],
        *,
        create: Config | None = None,
        content_type: str = "",
        producer: Producer | None = None,
        seq: str = "",
        key: str = "",
        close: bool = False,
    ) -> Appended:
        asked = Asked(events, content_type, producer, seq, key, close)
        return self._commits.do(lambda: self._streams.append(path, create, asked), [path], is_heavy(events))

    def append_each(self, appends: Sequence[Append]) -> Sequence[StoreError | None]:
        heavy = is_heavy(event for append in appends for event in append.events)
        told = self._commits.do(lambda: self._batches.append(appends), [append.path for append in appends], heavy)
        if self._batches.due:
            self._commits.later(self._batches.settle, heavy=True)
        return told

    def state(self, path: str) -> State:
        def work() -> State:
            if stream := self._find(path):
                return stream.state()
            raise NoStream("There is no stream at this path.")

        return self._look(work)

    def read(self, path: str, after: str, limit: int = 1000, limit_bytes: int = 2**20) -> Batch:
        def work() -> tuple[Batch, Found | None]:
            stream = self._find(path)
            if stream is None:
                offsets.to_number(after, ())
                return Batch((), 0, START, False, 0), None
            number = offsets.to_number(after, stream.chain)
            missed = max(stream.first - 1 - number, 0)
            events = sqlite_rows.fitting(self._db, stream.chain, number + missed, limit, limit_bytes)
            return Batch(events, missed, stream.tail, bool(stream.row.closed), stream.total), stream

        batch, stream = self._look(work)
        if stream and stream.config.ttl_s is not None:
            self._touch(stream)
        return batch

    def since(self, path: str, time_s: float) -> str:
        def work() -> str:
            stream = self._find(path)
            if stream is None:
                return START

            def late(number: int) -> bool:
                return sqlite_rows.place(self._db, stream.chain, number).time_s >= time_s

            number = lifetimes.search(stream.first, stream.row.tail, late)
            # Before the first one that is kept nobody knows when it was: all of it may be what is asked for.
            return offsets.of_number(number - 1, stream.chain) if number > stream.first else START

        return self._look(work)

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        return self._bells.wait(path, lambda: self._ready(path, after), timeout_s)

    def close(self, path: str) -> None:
        self._commits.do(lambda: self._streams.close(path), [path])

    def delete(self, path: str) -> bool:
        deleted = self._commits.do(lambda: self._streams.delete(path), [path], heavy=True)
        self._purge()
        return deleted

    def paths(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[str]:
        def work() -> list[str]:
            now, found = self._clock(), []
            for row in sqlite_rows.paths(self._db, prefix, after) if limit > 0 else ():
                if not row.deleted and not self._touches.expired(row, now):
                    found.append(row.path)
                if len(found) >= limit:
                    break
            return found

        return self._look(work)

    def expire(self, prefix: str = "", untouched_s: float | None = None) -> int:
        now = self._clock()
        self._touches.forget(now)
        self._commits.do(partial(self._batches.settle_abandoned, now - _ABANDONED_S), heavy=True)
        paths = self._look(lambda: sqlite_rows.over(self._db, now))
        count = sum(self._commits.do(partial(self._streams.expire, path, None), [path], heavy=True) for path in paths)
        if untouched_s is not None:
            idle = now - untouched_s
            for path in self._look(lambda: sqlite_rows.untouched(self._db, prefix, idle)):
                count += self._commits.do(partial(self._streams.expire, path, idle), [path], heavy=True)
        for stream in self._look(lambda: sqlite_rows.aging(self._db)):
            while self._commits.do(partial(self._streams.retain, stream), heavy=True):
                pass
        self._purge()
        return count

    def ping(self) -> None:
        self._look(lambda: self._db.execute("SELECT count(*) FROM (SELECT 1 FROM streams LIMIT 1)").fetchone())

    def waiting(self) -> int:
        return self._commits.waiting()

    def dispose(self) -> None:
        self._commits.later(self._batches.settle, heavy=True)
        self._commits.dispose()  # first: what it still commits rings the bells
        self._shared.close()
        self._bells.ring_all()
        self._db.close()

    def _find(self, path: str) -> Found | None:
        """Return the stream as the reader sees it; None when there is none or its time has come. Raises StreamGone."""
        now = self._clock()
        if (row := sqlite_rows.of_path(self._db, path)) is None:
            return None
        expired = not row.deleted and self._touches.expired(row, now)
        if row.deleted or (expired and row.forks):
            raise StreamGone("This stream was deleted.")
        return None if expired else sqlite_rows.found(self._db, row, now)

    def _touch(self, stream: Found) -> None:
        now = self._clock()
        if (expires := self._touches.read(stream.row, stream.config, now)) is not None:
            self._commits.later(lambda: self._streams.touch(stream.row.id, now, expires))

    def _purge(self) -> None:
        """Delete, slice by slice, what is left of streams that are gone; also of those whose process was killed."""
        for stream in self._look(lambda: sqlite_rows.doomed(self._db)):
            while self._commits.do(partial(self._streams.purge, stream), heavy=True):
                pass

    def _ready(self, path: str, after: str) -> bool:
        try:
            stream = self._look(lambda: self._find(path))
        except StreamGone:
            return True
        # A reader whose stream has gone is to find that out.
        return after != START if stream is None else bool(stream.row.closed) or stream.tail != after

    def _committed(self, writes: Sequence[Write[Any]]) -> None:
        """After a commit of this process: wake who waits, here and elsewhere."""
        change = self._streams.change
        if change == self._seen + 1:  # nobody else's change lies between: this one need not be asked for
            self._seen = change
        paths = {path for write in writes for path in write.paths}
        for path in paths:
            self._bells.ring(path)
        if paths:
            self._shared.ring()

    def _ring_changed(self) -> None:
        """After a ring by any worker: wake who waits for a stream that changed since."""
        if not len(self._bells):
            return
        try:
            change, paths = self._look(lambda: sqlite_rows.news(self._db, self._seen, TOLD))
        except StoreError:
            return self._bells.ring_all()
        behind, self._seen = change - self._seen, max(change, self._seen)
        if behind > TOLD:  # the deletions of so long ago are not told
            return self._bells.ring_all()
        for path in paths:
            self._bells.ring(path)

    def _look(self, work: Callable[[], Result]) -> Result:
        """Return what ``work`` reads in one transaction. Raises StoreBusy, StoreError."""

        def transaction() -> Result:
            with self._lock:
                self._db.execute("BEGIN")
                try:
                    return work()
                finally:
                    self._db.execute("ROLLBACK")

        try:
            # Busy is who comes while the last connection of another worker goes: it removes the WAL under a lock.
            return sqlite_file.patiently(transaction)
        except sqlite3.Error as error:
            raise sqlite_file.failure(error) from error

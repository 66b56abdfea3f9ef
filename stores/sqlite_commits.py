"""Group commit: the writes of many greenlets in one transaction, whose COMMIT runs in a native thread.

Rules:
- A write is a function of the connection, under a savepoint of its own: one that fails does not undo the others.
- Statements run in the event loop, some 20 µs each append. In a thread each of them would wait for Python's lock, up
  to 5 ms beside a busy loop. COMMIT runs in a native thread, since it may sync; so do the statements of a
  ``heavy`` write, few and long.
- A write is told of only after its COMMIT. What is killed while it waits may have been written.
- A busy database is asked again after a cooperative pause, ``BUSY_S`` seconds long; then it is StoreBusy.
- Without gevent's patches the callers are threads, and the one that comes first commits for those that came meanwhile.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import gevent
from gevent.monkey import get_original, is_module_patched

from stores import sqlite_file
from stores.errors import StoreError
from stores.sqlite_checkpoints import Checkpoints
from streaming.events import Event

_SimpleQueue = get_original("queue", "SimpleQueue")
_start_thread = get_original("_thread", "start_new_thread")
# More would hold up the loop, and the other processes that wait for the file.
_MOST = 64
# From here on an append takes long enough to stand in the loop's way.
_HEAVY_BYTES = 256 * 1024

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Write(Generic[Result]):
    """One write and what became of it. ``paths``: of the streams that it changes, if any."""

    work: Callable[[], Result]
    paths: Sequence[str] = ()
    heavy: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None
    error: Exception | None = None


class Commits:
    """The writer of ``db``; ``aside``: another connection to its file, for the checkpoints.

    ``begun`` is called in each transaction before its writes and after each that failed; ``committed`` after its end,
    with the writes that succeeded.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        aside: sqlite3.Connection,
        begun: Callable[[], None],
        committed: Callable[[Sequence[Write[Any]]], None],
    ) -> None:
        self._db = db
        self._aside = aside
        self._begun = begun
        self._committed = committed
        self._waiting: deque[Write[Any]] = deque()
        self._lock = threading.Lock()
        self._native = _Native() if is_module_patched("threading") else None
        self._checkpoints = Checkpoints(aside, db) if self._native else None
        self._greenlet: gevent.Greenlet | None = None
        self._disposed = False

    def do(self, work: Callable[[], Result], paths: Sequence[str] = (), heavy: bool = False) -> Result:
        """Return what ``work`` returned, durably. Raises what it raised, StoreBusy, StoreFull, StoreError."""
        write = self.later(work, paths, heavy)
        if self._native:
            write.done.wait()
        if write.error:
            raise write.error
        return write.result  # type: ignore[return-value]  # a write that is done without an error has its result

    def later(self, work: Callable[[], Result], paths: Sequence[str] = (), heavy: bool = False) -> Write[Result]:
        """Let ``work`` be done without waiting for it, where there are greenlets."""
        if self._disposed:
            raise StoreError("The log is closed.")
        write = Write(work, paths, heavy)
        self._waiting.append(write)
        if not self._native:
            with self._lock:
                if not write.done.is_set():
                    self._drain()
        elif not self._greenlet:
            # A greenlet of its own: that of a request may be killed while others wait for it.
            self._greenlet = gevent.spawn(self._drain)
        return write

    def waiting(self) -> int:
        return len(self._waiting)

    def dispose(self) -> None:
        """Finish what waits, and close the connection."""
        self._disposed = True
        if self._greenlet:
            self._greenlet.join()
        if self._native:
            self._native.end()
        if self._checkpoints:
            self._checkpoints.end()
        else:
            self._aside.close()
        self._db.close()

    def _drain(self) -> None:
        try:
            while self._waiting:
                writes = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                try:
                    self._commit(writes)
                finally:
                    for write in writes:
                        write.done.set()
        finally:
            self._greenlet = None

    def _commit(self, writes: Sequence[Write[Any]]) -> None:
        committed = False
        try:
            sqlite_file.patiently(lambda: self._db.execute("BEGIN IMMEDIATE"))
            self._begun()
            heavy = any(write.heavy for write in writes)
            if not heavy:
                self._run(writes)
            self._call(lambda: self._end(writes if heavy else ()))
            committed = True
        except sqlite3.Error as error:
            for write in writes:
                write.error = sqlite_file.failure(error)
        finally:
            if not committed:
                self._roll_back(writes)
        if committed:
            if self._checkpoints:
                self._checkpoints.committed()
            self._committed([write for write in writes if not write.error])

    def _end(self, writes: Sequence[Write[Any]]) -> None:
        self._run(writes)
        self._db.execute("COMMIT")

    def _run(self, writes: Sequence[Write[Any]]) -> None:
        for write in writes:
            self._db.execute("SAVEPOINT each")
            try:
                write.result = write.work()
            except Exception as error:
                # A full disk ends the whole transaction, and with it what the others had written.
                if not self._db.in_transaction:
                    raise
                self._db.execute("ROLLBACK TO each")
                self._begun()
                write.error = sqlite_file.failure(error) if isinstance(error, sqlite3.Error) else error
            self._db.execute("RELEASE each")

    def _roll_back(self, writes: Sequence[Write[Any]]) -> None:
        for write in writes:
            write.error = write.error or StoreError("The log's database failed.")
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the next BEGIN fails and says so

    def _call(self, job: Callable[[], object]) -> None:
        if self._native:
            self._native.call(job)
        else:
            job()


def is_heavy(events: Iterable[Event]) -> bool:
    return sum(len(event.data) for event in events) > _HEAVY_BYTES


class _Native:
    """A native thread that does one job at a time while its caller's greenlet waits."""

    def __init__(self) -> None:
        self._jobs = _SimpleQueue()
        self._bell = gevent.get_hub().loop.async_()
        self._done = threading.Event()
        self._error: Exception | None = None
        _start_thread(self._work, ())

    def call(self, job: Callable[[], object]) -> None:
        """Return when ``job`` has ended; raise what it raised."""
        self._done.clear()
        # Only now and here: a watcher that is started keeps a loop that waits for nothing else from saying so.
        self._bell.start(self._done.set)
        try:
            self._jobs.put(job)
            self._done.wait()
        finally:
            self._bell.stop()
        if self._error:
            raise self._error

    def end(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._error = None
            try:
                job()
            except Exception as error:
                self._error = error
            self._bell.send()

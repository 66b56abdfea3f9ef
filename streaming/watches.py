"""Waiting for several streams at once: whoever waits has a bell, and each stream one watcher for all of them.

Rules:
- A ring says which streams to look at, and carries no data; it may come too often.
- A watcher looks, then rings, then waits: what is appended after a reader's own look is rung for after that look.
- A worker has one watcher for each stream, however many wait for it; it ends within a tick of the last of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stores.base import START, Log
from stores.errors import StoreError, UnknownOffset
from streaming.events import TICK_S
from streaming.readers import BUSY_S

# ``threading`` is gevent's after patching: a thread here is a greenlet then.
_lock = threading.Lock()
_watchers: dict[tuple[Log, str], _Watcher] = {}


class Bell:
    """What one reader waits for. Every stream has rung when it is new."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._rung = deque(paths)
        self._event = threading.Event()

    def ring(self, path: str) -> None:
        self._rung.append(path)
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        # gevent's Event.wait(timeout) hangs when set() meets the time-out of all its waiters: ask first, always.
        return bool(self._rung) or self._event.is_set() or self._event.wait(timeout_s)

    def take(self) -> set[str]:
        """Return the streams that have rung since the last time."""
        self._event.clear()
        rung = set()
        while self._rung:
            rung.add(self._rung.popleft())
        return rung


class _Watcher:
    """Rings the bells of all that wait for one stream, until there are none or the stream is closed."""

    def __init__(self, log: Log, path: str) -> None:
        self.bells: set[Bell] = set()
        self._log = log
        self._path = path
        self._after = START

    def run(self) -> None:
        while self._used() and self._look():
            while self._used() and not self._more():
                pass

    def _used(self) -> bool:
        with _lock:
            if self.bells:
                return True
            self._forget()
            return False

    def _forget(self) -> None:
        if _watchers.get((self._log, self._path)) is self:
            del _watchers[self._log, self._path]

    def _look(self) -> bool:
        """Go to the stream's end and ring; False when nothing will come after it."""
        closed = False
        try:
            batch = self._log.read(self._path, self._after, limit=0)
            self._after, closed = batch.tail, batch.closed
        except UnknownOffset:  # it was deleted; its readers find out
            self._after = START
        except StoreError:
            time.sleep(BUSY_S)
        with _lock:
            if closed:
                self._forget()
            for bell in self.bells:
                bell.ring(self._path)
        return not closed

    def _more(self) -> bool:
        try:
            return self._log.wait(self._path, self._after, TICK_S)
        except StoreError:
            time.sleep(BUSY_S)
            return True


@contextmanager
def watch(log: Log, paths: Sequence[str]) -> Iterator[Bell]:
    """A bell that rings whenever there may be something new in one of ``paths``, which are looked at first."""
    bell = Bell(paths)
    watchers = [_enter(log, path, bell) for path in paths]
    try:
        yield bell
    finally:
        with _lock:
            for watcher in watchers:
                watcher.bells.discard(bell)


def _enter(log: Log, path: str, bell: Bell) -> _Watcher:
    with _lock:
        watcher = _watchers.get((log, path))
        new = watcher is None
        if watcher is None:
            watcher = _watchers[log, path] = _Watcher(log, path)
        watcher.bells.add(bell)
    if new:
        threading.Thread(target=watcher.run, name=f"watch {path}", daemon=True).start()
    return watcher

"""Wake-ups: who waits for a path is told that it may look again.

Rules:
- A wake-up carries no data, may come too often, and may be lost: who waits has a time-out.
- ``threading`` is gevent's after patching; then a waiter is a greenlet, and a thread here is one too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Bells:
    """One bell a path, in this process."""

    def __init__(self) -> None:
        self._bells: dict[str, tuple[threading.Event, list[None]]] = {}
        # For threads that are not gevent's: a waiter must not get the bell that the last one before it takes down.
        self._lock = threading.Lock()

    def wait(self, path: str, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Return True as soon as ``ready()``, looked at first and at each ring; False after ``timeout_s`` seconds."""
        with self._lock:
            bell, waiters = self._bells.setdefault(path, (threading.Event(), []))
            waiters.append(None)
        try:
            if ready():
                return True
            # gevent's Event.wait(timeout) hangs when set() meets the time-out of all its waiters: ask first, always.
            return bell.is_set() or bell.wait(timeout_s)
        finally:
            with self._lock:
                waiters.pop()
                if not waiters and self._bells.get(path, (None,))[0] is bell:
                    self._bells.pop(path, None)

    def ring(self, path: str) -> None:
        if found := self._bells.pop(path, None):
            found[0].set()

    def ring_all(self) -> None:
        for path in tuple(self._bells):
            self.ring(path)

    def __len__(self) -> int:
        return len(self._bells)

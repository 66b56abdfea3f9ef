"""Wake-ups: who waits for a path is told that it may look again.

Rules:
- A wake-up carries no data, may come too often, and may be lost: who waits has a time-out.
- ``threading`` is gevent's after patching; then a waiter is a greenlet, and a thread here is one too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2


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


class SharedBell:
    """One bell for all processes that keep ``path``: ringing writes a byte to it, and inotify(7) tells the others.

    ``rung`` is called in a thread (a greenlet under gevent) after each ring by anybody; rings that come together may
    be one. Where there is no inotify, it is called twenty times a second. ``close`` ends the thread.
    """

    def __init__(self, path: Path, rung: Callable[[], None]) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._rung = rung
        self.ring()  # a byte is there from now on: to write it again needs no space
        self._inotify = _watch(path)
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="shared-bell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the others look by themselves, and what was written stands
            os.pwrite(self._file, b"\0", 0)

    def close(self) -> None:
        os.write(self._stop_w, b"\0")
        self._thread.join()
        for fd in (self._file, self._stop_r, self._stop_w, self._inotify):
            if fd is not None:
                os.close(fd)

    def _listen(self) -> None:
        sources = [self._stop_r] + ([self._inotify] if self._inotify is not None else [])
        while True:
            ready, _, _ = select.select(sources, [], [], None if self._inotify is not None else 0.05)
            if self._stop_r in ready:
                return
            if ready and self._inotify is not None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._inotify, 65536)
            self._rung()


def _watch(path: Path) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) >= 0:
        return fd
    if fd >= 0:
        os.close(fd)
    return None  # no watches left (fs.inotify.max_user_watches), or none here: polling does it too

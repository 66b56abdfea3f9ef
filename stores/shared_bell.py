"""A bell that all processes hear which keep a file: ringing writes a byte, and inotify(7) tells the others.

Rules:
- Each process has a file of its own in one folder, and hears from its name whose ring it was: its own, after each of
  its commits, cost a look into the database that told it nothing.
- Nobody is registered: a file is its process's by a lock, which goes with the process, and is the next one's then.
- A ring may be lost, and may come too often; rings that come together may be one.
- Where there is no inotify, everybody is told twenty times a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event as Flag
from gevent.monkey import is_module_patched

_MOST = 64
# Of whoever finds all of them taken; nobody takes such a ring for his own.
_ANYBODY = "any"
_IN_MODIFY = 0x2
_POLL_S = 0.05
_HEAD = struct.Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of the name
_READ_BYTES = 65536


class SharedBell:
    """``rung`` is called in a thread, under gevent in a greenlet, after each ring of others. ``close`` ends it."""

    def __init__(self, folder: Path, rung: Callable[[], None]) -> None:
        folder.mkdir(exist_ok=True)
        self._name, self._file = _own_file(folder)
        self._rung = rung
        self.ring()  # a byte is there from now on: to write it again needs no space
        self._inotify = _watch(folder)
        self._ear: _Loop | _Thread = _Loop(self) if is_module_patched("threading") else _Thread(self)

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the others look by themselves, and what was written stands
            os.pwrite(self._file, b"\0", 0)

    def close(self) -> None:
        self._ear.close()
        for fd in (self._file, self._inotify):
            if fd is not None:
                os.close(fd)

    @property
    def inotify(self) -> int | None:
        return self._inotify

    def tell(self) -> None:
        self._rung()

    def heard(self) -> bool:
        """Whether others have rung; what inotify tells is taken from it."""
        if self._inotify is None:
            return True
        try:
            return any(name != self._name for name in _names(os.read(self._inotify, _READ_BYTES)))
        except BlockingIOError:
            return False


class _Thread:
    """Listens in a thread."""

    def __init__(self, bell: SharedBell) -> None:
        self._bell = bell
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="shared-bell", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._stop_w, b"\0")
        self._thread.join()
        os.close(self._stop_r)
        os.close(self._stop_w)

    def _listen(self) -> None:
        inotify = self._bell.inotify
        sources = [self._stop_r, *([] if inotify is None else [inotify])]
        while True:
            ready, _, _ = select.select(sources, [], [], _POLL_S if inotify is None else None)
            if self._stop_r in ready:
                return
            if self._bell.heard():
                self._bell.tell()


class _Loop:
    """Listens in gevent's loop, where an own ring costs one read and wakes nobody."""

    def __init__(self, bell: SharedBell) -> None:
        self._bell = bell
        self._heard = Flag()
        self._closing = False
        loop = gevent.get_hub().loop
        self._watcher: Any = loop.timer(_POLL_S, _POLL_S) if bell.inotify is None else loop.io(bell.inotify, 1)
        self._watcher.start(self._hear)
        self._greenlet = gevent.spawn(self._tell)

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        self._closing = True
        self._heard.set()
        self._greenlet.join()

    def _hear(self) -> None:
        if self._bell.heard():
            self._heard.set()

    def _tell(self) -> None:
        while True:
            self._heard.wait()
            self._heard.clear()
            if self._closing:
                return
            self._bell.tell()


def _own_file(folder: Path) -> tuple[str, int]:
    """Return the name and the descriptor of a file in ``folder`` that no other process has."""
    for name in map(str, range(_MOST)):
        file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Of the open file, and not of the process as fcntl's are: two logs of one process are two.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        return name, file
    return "", os.open(folder / _ANYBODY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _names(told: bytes) -> list[str]:
    """Return the names of the files in what inotify tells, "" where it has lost count."""
    names, at = [], 0
    while at < len(told):
        *_, size = _HEAD.unpack_from(told, at)
        at += _HEAD.size + size
        names.append(told[at - size : at].rstrip(b"\0").decode("ascii", "replace"))
    return names


def _watch(folder: Path) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(folder), _IN_MODIFY) >= 0:
        return fd
    if fd >= 0:
        os.close(fd)
    return None  # no watches left (fs.inotify.max_user_watches), or none here: polling does it too

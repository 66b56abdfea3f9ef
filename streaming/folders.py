"""The files below a folder, opened and listed safely.

Rules:
- A path is opened below its root one name at a time, and no link is followed: what is checked is what is sent.
- ``O_NONBLOCK``, because opening a FIFO without it waits for ever; only a regular file is opened or listed.
- A listing goes on after a name, in the order of the names: what comes and goes meanwhile shifts nothing. It is made in
  a thread, since a large folder takes its time.
"""

from __future__ import annotations

import errno
import heapq
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import gevent

from streaming.errors import NotFound

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Deeper nothing is listed: a folder costs a descriptor while the ones below it are walked.
_DEPTH = 32
_RUN = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file: its path below the root, its size in bytes, the time of its last change in ns since 1970."""

    path: str
    size: int
    modified_ns: int


def open_below(root: Path, path: str) -> IO[bytes]:
    """Open the regular file ``path`` (names separated by "/") below ``root``. The caller closes it.

    Raises NotFound for everything else: other kinds, hidden names, links, ``..``, NUL, over-long names.
    """
    *folders, name = path.split("/")
    if any(_hidden(each) for each in (*folders, name)) or "\0" in path:
        raise NotFound("There is no such file.")
    try:
        fd = _open_in(root, folders, name) if folders else os.open(f"{root}/{name}", _FILE)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", 0) in (errno.EMFILE, errno.ENFILE):
            raise
        raise NotFound("There is no such file.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFound("There is no such file.")
    return io.FileIO(fd)


def _open_in(root: Path, folders: list[str], name: str) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for each in folders:
            inner = os.open(each, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def list_below(root: Path, after: str, limit: int) -> list[Entry]:
    """Return at most ``limit`` regular files below ``root``, in the order of their paths' names, after ``after``.

    Waits cooperatively. ``after`` need not exist any more.
    """
    names = after.split("/") if after else []
    entries: list[Entry] = gevent.get_hub().threadpool.apply(_listed, (root, names, limit))
    return entries


def _listed(root: Path, after: list[str], limit: int) -> list[Entry]:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return list(islice(_walk(folder, "", after), limit))
    finally:
        os.close(folder)


def _walk(folder: int, prefix: str, after: list[str]) -> Iterator[Entry]:
    """Yield what comes after the names ``after`` in and below an open folder, which stays open."""
    with os.scandir(folder) as found:
        names = [each.name for each in found if not after or each.name >= after[0]]
    for name in _sorted([name for name in names if not _hidden(name) and _is_text(name)]):
        reached = bool(after) and name == after[0]
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and not reached:
                yield Entry(prefix + name, status.st_size, status.st_mtime_ns)
            elif stat.S_ISDIR(status.st_mode) and prefix.count("/") < _DEPTH:
                yield from _inside(folder, name, prefix, after[1:] if reached else [])
        except OSError:
            continue  # it went while we looked, or may not be read


def _sorted(names: list[str]) -> Iterator[str]:
    """Yield the names in order. Not by one ``sort``, which of 100,000 would hold the interpreter for some 50 ms."""
    return heapq.merge(*(sorted(names[at : at + _RUN]) for at in range(0, len(names), _RUN)))


def _inside(folder: int, name: str, prefix: str, after: list[str]) -> Iterator[Entry]:
    inner = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield from _walk(inner, f"{prefix}{name}/", after)
    finally:
        os.close(inner)


def _hidden(name: str) -> bool:
    return name in ("", "..") or name.startswith(".")


def _is_text(name: str) -> bool:
    """Whether a URL can name it: a file system may hold bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

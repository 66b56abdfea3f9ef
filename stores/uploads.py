"""Uploaded files: appended bytes, and a name when they are whole.

Rules:
- The file's size is the offset; there is no second counter.
- A part lies in the folder of the finished files under a hidden name (which is never served), so that giving it its
  name is one atomic step, and an existing file is never overwritten.
- Before it has its name its bytes are on the disk: fdatasync, in a thread, since it may take long.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent.threadpool import ThreadPool

from stores.base import StoreError, StoreFull


class FileUploads:
    """Uploads into the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = ThreadPool(4)

    def begin(self) -> Part:
        """Return a new, empty part; the caller finishes or discards it."""
        return Part(self._root, self._in_thread)

    def sweep(self, age_s: float) -> int:
        """Delete the parts that a killed process left behind: unwritten for ``age_s`` seconds; return how many."""
        limit = time.time() - age_s
        swept = 0
        for part in self._root.glob(".part-*"):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime < limit:
                    part.unlink()
                    swept += 1
        return swept

    def dispose(self) -> None:
        self._threads.kill()

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        job = self._threads.spawn(_outcome, work, *args)
        try:
            result, error = job.get()
        except BaseException:
            # The thread still uses the descriptor: if it were closed now, another file could get its number.
            job.wait()
            raise
        if error is not None:
            raise error
        return result


def _outcome(work: Callable[..., Any], *args: Any) -> tuple[Any, OSError | None]:
    """Return what ``work`` returns, or its error: gevent would print what is raised in a thread."""
    try:
        return work(*args), None
    except OSError as error:
        return None, error


class Part:
    """An upload that is not whole yet. Its methods wait cooperatively and raise StoreFull, StoreError."""

    def __init__(self, root: Path, in_thread: Callable[..., Any]) -> None:
        self._root = root
        self._in_thread = in_thread
        self._path = root / f".part-{secrets.token_hex(8)}"
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _store_error(error) from error
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Append ``piece`` whole."""
        view = memoryview(piece)
        while view:
            written = self._do(os.write, self._file, view)
            self.size += written
            view = view[written:]

    def finish(self, name: str) -> str:
        """Make the bytes durable and give them ``name``, or the next free "name (2)"; return the name they got."""
        self._do(os.fdatasync if hasattr(os, "fdatasync") else os.fsync, self._file)
        stem, dot, suffix = name.rpartition(".") if "." in name.strip(".") else (name, "", "")
        final, number = name, 1
        while not self._named(final):
            number += 1
            final = f"{stem} ({number}){dot}{suffix}"
        self._do(_sync_folder, self._root)
        self.discard()
        return final

    def discard(self) -> None:
        """Forget what was not finished; once or often."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._path.unlink(missing_ok=True)

    def _named(self, name: str) -> bool:
        with contextlib.suppress(FileExistsError):
            self._do(os.link, self._path, self._root / name)  # unlike rename, link never replaces
            return True
        return False

    def _do(self, work: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._in_thread(work, *args)
        except FileExistsError:
            raise
        except OSError as error:
            raise _store_error(error) from error


def _sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: fdatasync of a file says nothing of its name."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _store_error(error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StoreFull("No space is left for this upload.") if full else StoreError("The upload could not be stored.")

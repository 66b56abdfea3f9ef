"""Files that grow, on a disk that may be slow or full: all its work is done in threads, and its errors are the store's.

Rules:
- A thread that was given work is waited for, whatever happens: it uses the descriptor and the caller's buffer.
- ``synced`` says that what was acknowledged is on the disk, and not only in the kernel's memory. A long file is brought
  there while it grows: at its end a client would wait for all of it (1 GiB: 7 s on a disk of 146 MB/s).
- What could not be brought there is cut off again, or a later success would cover a gap.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent.threadpool import ThreadPool

from stores import filling
from stores.bodies import Feed
from stores.errors import StoreError, StoreFull

THREADS = 4
# So much is written before it is begun to bring it to the disk.
BEHIND_BYTES = 32 * 2**20

_sync_data = getattr(os, "fdatasync", os.fsync)


class Disk:
    """The threads in which files are written. ``synced``: see above."""

    def __init__(self, synced: bool = True) -> None:
        self.synced = synced
        self._threads = ThreadPool(THREADS)
        # Of their own: a write to the kernel's memory would wait behind another file's seconds of disk.
        self._syncing = ThreadPool(THREADS)

    def do(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return what ``work`` returns. Waits cooperatively; raises StoreFull, StoreError, FileExistsError."""
        return _result(self._threads.spawn(_outcome, work, *args))

    def sync(self, descriptor: int) -> None:
        """Bring the file's bytes to the disk. Waits and raises as ``do``."""
        _result(self.begin_sync(descriptor))

    def begin_sync(self, descriptor: int) -> Any:
        """Return the job that does so meanwhile; its result is a pair, None and what went wrong."""
        return self._syncing.spawn(_outcome, _sync_data, descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in ``folder`` durable: fdatasync of a file says nothing of its name."""
        if self.synced:
            _result(self._syncing.spawn(_outcome, _sync_folder, folder))

    def dispose(self) -> None:
        self._threads.kill()
        self._syncing.kill()


class GrowingFile:
    """A file that is appended to through ``descriptor``, which it owns. ``size``: all that is in it."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self.size = self._durable = os.fstat(descriptor).st_size
        self._behind: Any = None

    def fileno(self) -> int:
        return self._descriptor

    def append(self, piece: bytes | memoryview, *feeds: Feed) -> None:
        """Write ``piece`` whole, and feed it. Raises StoreFull, StoreError; ``size`` is right also then."""
        try:
            self._disk.do(_append, self._descriptor, self.size, piece, feeds)
            self.size += len(piece)
        except BaseException:  # a killed greenlet's thread has written on
            self.size = os.fstat(self._descriptor).st_size
            raise
        self._sync_behind()

    def fill(self, receive: Callable[[memoryview], int | None], most: int, *feeds: Feed) -> tuple[int, bool]:
        """Write what ``receive`` gets, at most ``most`` bytes; return how many, and whether that was the end.

        ``receive`` is called in a thread with a block to put bytes into, and returns how many came: 0 at the end, None
        where there are none yet, which ends this too. Raises as ``append``.
        """
        try:
            count, ended = self._disk.do(filling.fill, self._descriptor, self.size, receive, most, feeds)
        finally:
            self.grown()
        self._sync_behind()
        return count, ended

    def grown(self) -> None:
        """Others have written to the descriptor: look how much there is."""
        self.size = os.fstat(self._descriptor).st_size

    def sync(self) -> int:
        """Bring all of it to the disk; return how much that is. Raises StoreFull, StoreError, and has it cut off."""
        if not self._disk.synced:
            return self.size
        size = self.size
        try:
            self._settle()
            self._disk.sync(self._descriptor)
        except StoreError:
            self.cut(self._durable)
            raise
        self._durable = size
        return size

    def cut(self, size: int) -> None:
        """Take back what is after ``size``."""
        self._disk.do(os.ftruncate, self._descriptor, size)
        self.size = size
        self._durable = min(self._durable, size)

    def close(self) -> None:
        """Once or often."""
        if self._descriptor >= 0:
            if self._behind is not None:
                self._behind[1].wait()
            os.close(self._descriptor)
            self._descriptor = -1

    def _sync_behind(self) -> None:
        if not self._disk.synced or self.size - self._durable < BEHIND_BYTES:
            return
        if self._behind is not None and not self._behind[1].ready():
            return
        self._settle()
        self._behind = self.size, self._disk.begin_sync(self._descriptor)

    def _settle(self) -> None:
        """Wait for what was begun: the kernel tells a failed write to the disk once, to whoever asks first."""
        if self._behind is not None:
            (size, job), self._behind = self._behind, None
            job.wait()
            _, error = job.get()
            if error is not None:
                self.cut(self._durable)
                raise store_error(error) from error
            self._durable = size


def _result(job: Any) -> Any:
    try:
        result, error = job.get()
    except BaseException:
        job.wait()
        raise
    try:
        if isinstance(error, FileExistsError):
            raise error
        if error is not None:
            raise store_error(error) from error
        return result
    finally:
        del error, job  # it has this frame: only the collector would free both


def _outcome(work: Callable[..., Any], *args: Any) -> tuple[Any, OSError | None]:
    """Return what ``work`` returns, or its error: gevent would print what is raised in a thread."""
    try:
        return work(*args), None
    except OSError as error:
        return None, error


def _append(descriptor: int, offset: int, piece: bytes | memoryview, feeds: tuple[Feed, ...]) -> None:
    for feed in feeds:
        feed.update(piece)
    filling.write(descriptor, piece, offset)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, synced: bool) -> None:
    """Put ``data`` in the place of the file ``path``: whoever reads it meanwhile has the old or the new. Blocks."""
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def store_error(error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StoreFull("No space is left for this upload.") if full else StoreError("The upload could not be stored.")

"""Uploaded files: appended bytes, and a name when they are whole.

Rules:
- The file's size is the offset; there is no second counter.
- A part lies in the folder of the finished files under a hidden name (which is never served), so that giving it its
  name is one atomic step, and an existing file is never overwritten.
- Who writes it holds a lock on it, which the kernel frees when its process is killed.
- Before it has its name its bytes are on the disk: fdatasync, in a thread, since it may take long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from stores.bodies import Feed
from stores.disk import Disk, GrowingFile, store_error
from stores.errors import NameTaken, StoreError
from streaming.file_names import numbered

_PART = ".part-"
# So many others may take the name that was free a moment ago.
_ATTEMPTS = 100


class FileUploads:
    """Uploads into the folder ``root``."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk = disk or Disk()

    def begin(self) -> Part:
        """Return a new, empty part; the caller finishes or discards it."""
        return Part(self._root, self._disk)

    def has(self, name: str) -> bool:
        """Whether a finished file has this name now; another one may get it at any time."""
        return os.path.lexists(self._root / name)

    def sweep(self, age_s: float) -> int:
        """Delete the parts that a killed process left behind, unwritten for ``age_s`` seconds; return how many.

        Their age alone says nothing: a clock that is set makes the part of a living one old. Thousands of uploads at
        once have thousands of parts: they are looked through in a thread.
        """
        swept: int = self._disk.do(_swept, self._root, time.time() - age_s)
        return swept

    def dispose(self) -> None:
        self._disk.dispose()


class Part:
    """An upload that is not whole yet. Its methods wait cooperatively and raise StoreFull, StoreError."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._path = root / f"{_PART}{secrets.token_hex(8)}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = GrowingFile(disk, os.open(self._path, flags, 0o644))
            lock(self._file.fileno())
        except OSError as error:
            raise store_error(error) from error

    @property
    def size(self) -> int:
        return self._file.size

    def write(self, piece: bytes | memoryview, *feeds: Feed) -> None:
        """Append ``piece`` whole; ``feeds`` are fed with it, in the thread that writes."""
        self._file.append(piece, *feeds)

    def fill(self, receive: Callable[[memoryview], int | None], most: int, *feeds: Feed) -> tuple[int, bool]:
        """Append what ``receive`` gets (stores/disk.py)."""
        return self._file.fill(receive, most, *feeds)

    def finish(self, name: str, *, only: bool = False) -> str:
        """Make the bytes durable and give them ``name``, or the next free "name (2)"; return the name they got.

        ``only``: that name or none. Raises NameTaken.
        """
        self._file.sync()
        final = link_free(self._disk, self._path, self._root, name, only=only)
        self._disk.sync_folder(self._root)
        self.discard()
        return final

    def discard(self) -> None:
        """Forget what was not finished; once or often."""
        if self._file.fileno() >= 0:
            self._file.close()
            self._path.unlink(missing_ok=True)


def link_free(disk: Disk, path: Path, root: Path, name: str, *, only: bool = False) -> str:
    """Give the file ``path`` this name in ``root``, or the next free "name (2)"; return the name it got.

    ``only``: that name or none. Raises NameTaken, StoreError. A file that has a name there already keeps it: its
    process was killed right after this step.
    """
    if own := _own_name(path, root):
        return own
    number = 1
    for _ in range(1 if only else _ATTEMPTS):
        try:
            disk.do(os.link, path, root / numbered(name, number))  # unlike rename, link never replaces
            return numbered(name, number)
        except FileExistsError:
            number = disk.do(_free, root, name, number)
    raise NameTaken("There is a file of this name.")


def _free(root: Path, name: str, taken: int) -> int:
    """Return the number of a free name behind one that is taken: the next, where they follow each other without a gap.

    The ten-thousandth file of one name looks at 27 names, not at all of them.
    """
    step = 1
    while os.path.lexists(root / numbered(name, taken + step)):
        taken, step = taken + step, 2 * step
    free = taken + step
    while free - taken > 1:
        middle = (taken + free) // 2
        if os.path.lexists(root / numbered(name, middle)):
            taken = middle
        else:
            free = middle
    return free


def _own_name(path: Path, root: Path) -> str:
    """Return the name in ``root``, beside its hidden one, that the file ``path`` has; "" when it has none."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        if status.st_nlink > 1:
            with os.scandir(root) as found:
                return next((each.name for each in found if _shown(each) and each.inode() == status.st_ino), "")
    return ""


def _shown(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)


def lock(descriptor: int) -> bool:
    """Whether nobody else works on the open file; from now on this descriptor does, until it is closed (flock)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def locked(path: Path) -> int | None:
    """Open the file and lock it; return its descriptor, None where another one works on it.

    Raises FileNotFoundError, and StoreError for all else that is wrong (no descriptor is left, a disk that fails): who
    was told then that his upload has gone would begin anew.
    """
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if lock(descriptor):
            return descriptor
    except FileNotFoundError:
        raise
    except OSError as error:
        _close(descriptor)
        raise StoreError("The upload could not be opened.") from error
    _close(descriptor)
    return None


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _swept(root: Path, limit: float) -> int:
    swept = 0
    with os.scandir(root) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError, StoreError):
                if entry.name.startswith(_PART) and entry.stat().st_mtime < limit and _nobodys(Path(entry.path)):
                    os.unlink(entry.path)
                    swept += 1
    return swept


def _nobodys(path: Path) -> bool:
    if (descriptor := locked(path)) is None:
        return False
    os.close(descriptor)
    return True

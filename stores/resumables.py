"""Uploads in several requests: a file of the bytes that came, and beside it what is known of them.

Rules:
- The file's size is the offset. What is known is small, and replaced as a whole.
- Who works on an upload holds a lock on its file (flock): one at a time on all workers, and none by a killed one.
- It lies below the folder of the finished files, hidden, so that it becomes one of them by ``link``: one step, which
  replaces nothing. A file with two names was finished by somebody who could not say so any more.
- Its age is the file's own: the time of the last write, or of its end.

A folder ``.resumable`` holds, of each upload: ``<id>`` (bytes), ``<id>.json`` (what is known), ``<id>.joins`` (of a
final one that waits for its parts).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from stores import slices
from stores.bodies import Feed, Upload
from stores.disk import Disk, GrowingFile, store_error, write_whole
from stores.errors import NoUpload, PartMissing, StoreError
from stores.uploads import link_free, lock, locked

FOLDER = ".resumable"
ID = re.compile("[A-Za-z0-9_-]{16,64}")
_KNOWN = ".json"
_JOINS = ".joins"
# Files without what belongs beside them are left by a process that was killed between two steps.
_STRAY_S = 3600

_decode = msgspec.json.Decoder(Upload).decode


class FileResumables:
    """Below ``root``, the folder of finished files. They expire ``keep_s`` seconds after the last write or the end."""

    def __init__(self, root: Path, keep_s: float, disk: Disk | None = None) -> None:
        self.root = root
        self._keep_s = keep_s
        self.disk = disk or Disk()
        self._folder = root / FOLDER

    def create(self, upload: Upload) -> Held:
        for part in upload.parts:
            self.whole(part)
        held = None
        try:
            self._folder.mkdir(exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            held = Held(self, upload, os.open(self.path(upload.id), flags, 0o644))
            lock(held.fileno())
            if upload.parts:
                self.path(upload.id, _JOINS).touch()
            held.change(upload)
            self.disk.sync_folder(self._folder)
        except (OSError, StoreError) as error:
            if held is not None:
                held.delete()
            raise store_error(error) if isinstance(error, OSError) else error from error
        return held

    def look(self, id: str) -> Upload:
        if not ID.fullmatch(id):
            raise NoUpload("There is no such upload.")
        try:
            return _decode(self.path(id, _KNOWN).read_bytes())
        except FileNotFoundError:
            raise NoUpload("There is no such upload.") from None
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError("This upload cannot be read.") from error

    def hold(self, id: str) -> Held | None:
        descriptor = -1 if self.look(id).over else self._locked(id)
        if descriptor is None:
            return None
        held = None
        try:
            upload = self.look(id)  # what is known may have been changed by the last one who held it
            if descriptor < 0 and not upload.over:
                raise NoUpload("There is no such upload.")
            held = Held(self, upload, -1 if upload.over else descriptor)
        finally:
            if descriptor >= 0 and (held is None or held.upload.over):
                os.close(descriptor)
        return held

    def _locked(self, id: str) -> int | None:
        """Its file, open and locked; -1: there is none any more, None: another one holds it. Raises StoreError."""
        with contextlib.suppress(FileNotFoundError):
            return locked(self.path(id))
        return -1

    def whole(self, id: str) -> int | None:
        try:
            part = self.look(id)
            size = self.path(id).stat().st_size
        except (NoUpload, FileNotFoundError):
            raise PartMissing("A part of the final upload is not there.") from None
        except OSError as error:
            raise StoreError("A part of the final upload cannot be read.") from error
        if not part.partial:
            raise PartMissing("A part of the final upload is no partial upload.")
        return size if size == part.length else None

    def waiting_for(self, id: str) -> Sequence[str]:
        waiting = []
        for path in self._folder.glob("*" + _JOINS):
            with contextlib.suppress(StoreError):
                if id in self.look(path.stem).parts:
                    waiting.append(path.stem)
        return waiting

    def expires_at(self, id: str) -> float:
        for path in (self.path(id), self.path(id, _KNOWN)):
            try:
                return path.stat().st_mtime + self._keep_s
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError("This upload cannot be read.") from error
        raise NoUpload("There is no such upload.")

    def expire_within(self, id: str, seconds: float) -> None:
        at = time.time() + seconds - self._keep_s
        with contextlib.suppress(OSError):
            if self.path(id).stat().st_mtime > at:
                os.utime(self.path(id), (at, at))

    def sweep(self) -> Sequence[str]:
        expired = []
        for id in self.disk.do(self._all_old):  # in a thread: there may be thousands of them
            with contextlib.suppress(StoreError, OSError):
                held = self._hold_stray(id)
                if held and self._old(id):
                    if self.path(id, _KNOWN).exists() and not held.upload.over:
                        expired.append(id)
                    held.forget()
                elif held:  # somebody wrote to it meanwhile
                    held.release()
        return expired

    def _all_old(self) -> list[str]:
        ids = {path.name.partition(".")[0] for path in self._folder.glob("*")}
        return [id for id in ids if ID.fullmatch(id) and self._old(id)]

    def _old(self, id: str) -> bool:
        """Whether it has expired, or is a part of an upload that was never quite made."""
        with contextlib.suppress(StoreError):
            kept_s = self._keep_s if self.path(id, _KNOWN).exists() else _STRAY_S
            return self.expires_at(id) - self._keep_s + kept_s < time.time()
        return False

    def _hold_stray(self, id: str) -> Held | None:
        with contextlib.suppress(NoUpload):
            return self.hold(id)
        descriptor = self._locked(id)
        return None if descriptor is None else Held(self, Upload(id, ""), descriptor)  # None: it is being made

    def path(self, id: str, suffix: str = "") -> Path:
        return self._folder / (id + suffix)


class Held:
    """An upload that this caller alone works on (stores/bodies.py: HeldUpload)."""

    def __init__(self, store: FileResumables, upload: Upload, descriptor: int) -> None:
        self._store = store
        self._disk = store.disk
        self.upload = upload
        self._file = GrowingFile(self._disk, descriptor) if descriptor >= 0 else None

    @property
    def offset(self) -> int:
        return self._file.size if self._file else self.upload.size

    def fileno(self) -> int:
        return self._growing().fileno()

    def write(self, piece: bytes | memoryview, *feeds: Feed) -> None:
        self._growing().append(piece, *feeds)

    def fill(self, receive: Callable[[memoryview], int | None], most: int, *feeds: Feed) -> tuple[int, bool]:
        return self._growing().fill(receive, most, *feeds)

    def sync(self) -> int:
        return self._growing().sync()

    def cut(self, offset: int) -> None:
        self._growing().cut(offset)

    def read(self, feed: Feed) -> None:
        for offset in range(0, self.offset, slices.SLICE_BYTES):
            self._disk.do(slices.read, self.fileno(), offset, feed)

    def change(self, upload: Upload) -> None:
        path = self._store.path(upload.id, _KNOWN)
        self._disk.do(write_whole, path, msgspec.json.encode(upload), self._disk.synced)
        self.upload = upload

    def join(self) -> bool:
        if any(self._store.whole(part) is None for part in self.upload.parts):
            return False
        self.cut(0)
        for part in self.upload.parts:
            path = self._store.path(part)
            for offset in range(0, path.stat().st_size, slices.SLICE_BYTES):
                self._disk.do(slices.copy, path, offset, self.fileno(), self.offset)
                self._growing().grown()
        return True

    def finish(self, name: str) -> Upload:
        size = self.sync()
        path, root = self._store.path(self.upload.id), self._store.root
        final = link_free(self._disk, path, root, name)
        self._disk.sync_folder(root)
        self.change(replace(self.upload, length=size, finished=final, size=size, inode=os.fstat(self.fileno()).st_ino))
        path.unlink(missing_ok=True)
        self._store.path(self.upload.id, _JOINS).unlink(missing_ok=True)
        return self.upload

    def delete(self) -> None:
        if self.upload.over:
            with contextlib.suppress(OSError):
                file = self._store.root / self.upload.finished
                if file.lstat().st_ino == self.upload.inode:  # else it is another file of the same name
                    file.unlink()
        self.forget()

    def forget(self) -> None:
        """Forget the upload; the file that it became stays."""
        for suffix in (_KNOWN, _KNOWN + ".new", _JOINS, ""):
            self._store.path(self.upload.id, suffix).unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()  # and with it the lock

    def _growing(self) -> GrowingFile:
        if self._file is None:
            raise StoreError("This upload is over.")
        return self._file

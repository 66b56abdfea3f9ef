"""Slices of files, read and copied in a thread, which is free for others after each."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from stores.bodies import Feed

SLICE_BYTES = 64 * 2**20
_BLOCK_BYTES = 2**20


def read(descriptor: int, offset: int, feed: Feed) -> None:
    end = offset + SLICE_BYTES
    while block := os.pread(descriptor, min(_BLOCK_BYTES, end - offset), offset):
        feed.update(block)
        offset += len(block)


def copy(path: Path, offset: int, target: int, at: int) -> None:
    """Copy a slice of the file to ``at`` in ``target``; file systems that can share blocks copy none."""
    end = min(offset + SLICE_BYTES, path.stat().st_size)
    with path.open("rb", buffering=0) as source:
        while offset < end:
            count = _copy_some(source.fileno(), offset, target, at, end - offset)
            offset, at = offset + count, at + count


def _copy_some(source: int, offset: int, target: int, at: int, count: int) -> int:
    with contextlib.suppress(AttributeError):  # of Linux only
        try:
            return os.copy_file_range(source, target, count, offset, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    return os.pwrite(target, os.pread(source, min(count, _BLOCK_BYTES), offset), at)

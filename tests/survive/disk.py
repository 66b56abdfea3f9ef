"""A small disk of its own for what a stage's server keeps: it can be full, and ENOSPC is the kernel's own.

Rules:
- A tmpfs, mounted for the stage. Who may not mount has none, and ``why`` says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_BYTES = 128 * 2**20
_BLOCK_BYTES = 4096


class Disk:
    """The folder ``folder``, on a file system that holds SIZE_BYTES where that could be had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.why = ""
        folder.mkdir()
        options = f"size={SIZE_BYTES},mode=0755"
        try:
            command = ["mount", "-t", "tmpfs", "-o", options, "survive", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            self.why = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            self.why = str(error)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a block is free, for as long as this runs; what is freed meanwhile is free."""
        filler = self.folder / "filler"
        try:
            with filler.open("wb") as file:
                _fill(file.fileno())
                yield
        finally:
            filler.unlink(missing_ok=True)

    def close(self) -> None:
        if not self.why:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, timeout=30, check=False)


def _fill(descriptor: int) -> None:
    size, at = SIZE_BYTES, 0
    while size >= _BLOCK_BYTES:
        try:
            os.posix_fallocate(descriptor, at, size)
            at += size
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            size //= 2
    with contextlib.suppress(OSError):  # blocks that fallocate did not get
        while os.pwrite(descriptor, bytes(_BLOCK_BYTES), at):
            at += _BLOCK_BYTES

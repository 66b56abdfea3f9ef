"""The disk, and the memory that its cache is made of, before a write that is timed.

Rules:
- Whoever is next finds the same: nothing waits to be written, and there is memory for all that will be.
- A virtual machine gives back to its host what is free for some seconds, and a page that is taken again is waited for;
  which pages a server gets depends on who wrote before it. Measured: a POST of 1 GiB took 1.1 s of CPU or 3.4 s, in
  turn with nginx.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

HUGE_BYTES = 2**21


def settle(size: int) -> None:
    """Return when all that was written is on the disk, and ``size`` bytes of memory have just become free."""
    with taken(size):  # what the last file had is held before it goes
        os.sync()  # Linux returns when it has been done, by whomever it was written


@contextmanager
def taken(size: int) -> Iterator[None]:
    """Hold so much memory in the block."""
    with mmap.mmap(-1, -(-size // HUGE_BYTES) * HUGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)  # what is free in large pieces can be had in small ones, too
        memory[:: mmap.PAGESIZE] = bytes(len(memory) // mmap.PAGESIZE)
        yield

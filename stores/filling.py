"""Bytes on their way into a file, in a thread: received, written, and fed to what hashes them.

Rules:
- Blocks are lent while there is something to move, and there are only as many as threads that move something.
- What hashes is fed in the order of the bytes, and has been fed with all of them when ``fill`` returns. Of a fast
  client it is fed by a second thread, while this one goes on: SHA-256 alone takes as long as receiving and writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence

from gevent.monkey import get_original

from stores.bodies import Feed

_SimpleQueue = get_original("queue", "SimpleQueue")
_start_thread = get_original("_thread", "start_new_thread")

BLOCK_BYTES = 2**20
# For less, a thread is not worth its start.
_FAST_BYTES = 256 * 1024

# Free ones. A list's own pop and append are safe between threads.
_blocks: list[memoryview] = []


def fill(
    descriptor: int, offset: int, receive: Callable[[memoryview], int | None], most: int, feeds: Sequence[Feed]
) -> tuple[int, bool]:
    """Write what ``receive`` gets at ``offset``, at most ``most`` bytes; return how many, and whether it has ended.

    Blocks; for a native thread. Raises OSError.
    """
    moved = 0
    feeding = _Feeding(feeds)
    try:
        while moved < most:
            block = feeding.free()
            count = receive(block[: most - moved])
            if not count:
                return moved, count == 0
            feeding.feed(block[:count])
            write(descriptor, block[:count], offset + moved)
            moved += count
        return moved, False
    finally:
        feeding.end()


def write(descriptor: int, piece: bytes | memoryview, offset: int) -> None:
    """Write ``piece`` whole. Blocks; raises OSError."""
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


class _Feeding:
    """The blocks of one ``fill``: one without feeds, and two where a second thread feeds one of them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._lent = [_blocks.pop() if _blocks else memoryview(bytearray(BLOCK_BYTES))]
        self._threaded = False
        self._whole = True
        self._fed = _SimpleQueue()
        self._todo = _SimpleQueue()
        self._next = 0

    def free(self) -> memoryview:
        """Return a block that nobody reads any more."""
        if not self._threaded:
            return self._lent[0]
        if self._fed.get() is self:
            self._fed.put(self)  # ``end`` says why
            raise _failed()
        self._next = 1 - self._next
        return self._lent[self._next]

    def feed(self, piece: memoryview) -> None:
        """Feed a part of the block that ``free`` gave, now or meanwhile."""
        if self._feeds and not self._threaded and len(piece) >= _FAST_BYTES:
            self._lent.append(_blocks.pop() if _blocks else memoryview(bytearray(BLOCK_BYTES)))
            self._threaded = True
            self._fed.put(None)  # the second block is free
            _start_thread(self._run, ())
        if self._threaded:
            self._todo.put(piece)
        else:
            for feed in self._feeds:
                feed.update(piece)

    def end(self) -> None:
        """Return when all has been fed, and the blocks are free."""
        if self._threaded:
            self._todo.put(None)
            while self._fed.get() is not self:
                continue
        _blocks.extend(self._lent)
        if not self._whole:
            raise _failed()

    def _run(self) -> None:
        self._whole = False
        with contextlib.suppress(Exception):  # told by ``end``: a digest of less than all must not pass for one of all
            while (piece := self._todo.get()) is not None:
                for feed in self._feeds:
                    feed.update(piece)
                self._fed.put(None)
            self._whole = True
        self._fed.put(self)


def _failed() -> OSError:
    return OSError(errno.EIO, "what was fed has failed")

"""An answer that is written while its request is still being read.

Rules:
- A client may write everything before it reads anything: as long as its body arrives, no write may wait for it. What
  it does not take is spooled, in memory, then in a temporary file.
- Beyond the spool's bound the body is read only as fast as the answer is taken; a client that does neither is ended
  by the deadline on writes without progress.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from streaming import wire
from streaming.errors import BadRequest
from streaming.events import Event, Source
from streaming.transforms import Transform

# What a socket that is writable takes without waiting, and what is read back from the spool at once.
_SMALL_BYTES = 16 * 1024
_LARGE_BYTES = 64 * 1024
_MEMORY_BYTES = 2**20


def duplex(pieces: Iterator[bytes], codec: Transform, environ: Mapping[str, Any], spool_bytes: int) -> Source:
    """Yield what ``codec`` makes of the pieces. Raises BadRequest when they are not what it takes."""
    spool = Spool()
    try:
        for piece in pieces:
            spool.write(_converted(codec.decode, piece))
            while len(spool) and (len(spool) > spool_bytes or wire.writable(environ)):
                yield Event(spool.read(_SMALL_BYTES))
                yield None
        spool.write(_converted(codec.flush))
        while len(spool):
            yield Event(spool.read(_LARGE_BYTES))
    finally:
        spool.close()


def _converted(convert: Callable[..., bytes], *piece: bytes) -> bytes:
    try:
        return convert(*piece)
    except ValueError as error:
        raise BadRequest(str(error)) from error


class Spool:
    """Bytes, first in first out: up to ``memory_bytes`` in memory, and what comes beyond in a temporary file."""

    def __init__(self, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._memory: deque[bytes] = deque()
        self._held = 0
        self._file: IO[bytes] | None = None
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._held + self._end - self._start

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self._start == self._end and self._held + len(data) <= self._memory_bytes:
            self._memory.append(data)
            self._held += len(data)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # close() closes it
        self._end += os.pwrite(self._file.fileno(), data, self._end)

    def read(self, most: int) -> bytes:
        """Return the oldest bytes, at least one and at most ``most``."""
        if self._memory:
            data = self._memory.popleft()
            if len(data) > most:
                self._memory.appendleft(data[most:])
                data = data[:most]
            self._held -= len(data)
            return data
        assert self._file is not None
        data = os.pread(self._file.fileno(), min(most, self._end - self._start), self._start)
        self._start += len(data)
        if self._start == self._end:
            self._start = self._end = 0
            os.ftruncate(self._file.fileno(), 0)
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

"""An answer that is written while its request is still being read.

Rules:
- A client may write everything before it reads anything: as long as its body arrives, no write may wait for it. What
  it does not take is spooled, in memory, then in a temporary file.
- A client may also want its answer so far before it writes on: no read may hold up what is spooled. So the body is read
  in a greenlet of its own; gunicorn's chunk reader waits where nothing tells whether a piece will come.
- Beyond the spool's bound the body is read only as fast as the answer is taken; a client that does neither is ended
  by the deadline on writes without progress.
"""

from __future__ import annotations

import contextvars
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import IO, Any

import gevent
from gevent.event import Event as Signal

from streaming import wire
from streaming.errors import BadRequest
from streaming.events import TICK_S, Event, Source
from streaming.transforms import Transform

# What a socket that is writable takes without waiting, and what is read back from the spool at once.
_SMALL_BYTES = 16 * 1024
_LARGE_BYTES = 64 * 1024
_MEMORY_BYTES = 2**20
_FILE_BYTES = 16 * 2**20


def duplex(pieces: Iterator[bytes], codec: Transform, environ: MutableMapping[str, Any], spool_bytes: int) -> Source:
    """Yield what ``codec`` makes of the pieces. Raises BadRequest when they are not what it takes."""
    environ[wire.DUPLEX] = True
    intake = Intake(pieces, codec, spool_bytes)
    try:
        while not intake.ended or intake.held:
            if intake.ended:
                yield Event(intake.take(_LARGE_BYTES))
                continue
            if intake.held and (intake.held > spool_bytes or wire.writable(environ)):
                yield Event(intake.take(_SMALL_BYTES))
            yield None
            if intake.held <= spool_bytes and (not intake.held or wire.writable(environ, TICK_S) is None):
                intake.wait(TICK_S)
    finally:
        intake.close()


class Intake:
    """The pieces on their way through the codec into a spool, as fast as they come and as long as the spool has room.

    ``held``: bytes in the spool. ``ended``: no more will come; asking raises what went wrong.
    """

    def __init__(self, pieces: Iterator[bytes], codec: Transform, spool_bytes: int) -> None:
        self._pieces = pieces
        self._codec = codec
        self._spool = Spool()
        self._spool_bytes = spool_bytes
        self._ended = False
        self._failure: Exception | None = None
        self._came, self._taken = Signal(), Signal()
        # With its context: the body of another server than gunicorn is read through flask.request.
        self._greenlet = gevent.spawn(contextvars.copy_context().run, self._read)

    @property
    def held(self) -> int:
        return len(self._spool)

    @property
    def ended(self) -> bool:
        if self._failure is not None:
            raise self._failure
        return self._ended

    def take(self, most: int) -> bytes:
        self._taken.set()
        return self._spool.read(most)

    def wait(self, timeout_s: float) -> None:
        """Return when something came or the end, at most ``timeout_s`` seconds later."""
        self._came.is_set() or self._came.wait(timeout_s)
        self._came.clear()

    def close(self) -> None:
        self._greenlet.kill(timeout=1)
        self._spool.close()

    def _read(self) -> None:
        try:
            for piece in self._pieces:
                self._spool.write(_converted(self._codec.decode, piece))
                self._came.set()
                while self.held > self._spool_bytes:
                    self._taken.clear()
                    self._taken.wait()
            self._spool.write(_converted(self._codec.flush))
        except Exception as error:  # raised where the answer is made
            self._failure = error
        self._ended = True
        self._came.set()


def _converted(convert: Callable[..., bytes], *piece: bytes) -> bytes:
    try:
        return convert(*piece)
    except ValueError as error:
        raise BadRequest(str(error)) from error


class Spool:
    """Bytes, first in first out: up to ``memory_bytes`` in memory, and what comes beyond in temporary files.

    A file is given back as soon as it has been read, at some ``file_bytes``: a spool that is never empty would
    otherwise grow by all that passes through it, and not stay within its bound.
    """

    def __init__(self, memory_bytes: int = _MEMORY_BYTES, file_bytes: int = _FILE_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._file_bytes = file_bytes
        self._memory: deque[bytes] = deque()
        self._held = 0
        self._files: deque[IO[bytes]] = deque()
        self._filed = 0
        self._start = self._end = 0  # in the first file, in the last one

    def __len__(self) -> int:
        return self._held + self._filed

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._files and self._held + len(data) <= self._memory_bytes:
            self._memory.append(data)
            self._held += len(data)
            return
        if not self._files or self._end >= self._file_bytes:
            self._files.append(tempfile.TemporaryFile())  # noqa: SIM115  # close() closes it
            self._end = 0
        view = memoryview(data)
        while view:  # a disk that is nearly full takes a part, and says so only at the next write
            written = os.pwrite(self._files[-1].fileno(), view, self._end)
            self._end, self._filed, view = self._end + written, self._filed + written, view[written:]

    def read(self, most: int) -> bytes:
        """Return the oldest bytes, at least one and at most ``most``."""
        if self._memory:
            data = self._memory.popleft()
            if len(data) > most:
                self._memory.appendleft(data[most:])
                data = data[:most]
            self._held -= len(data)
            return data
        file = self._files[0]
        data = os.pread(file.fileno(), most, self._start)
        self._start, self._filed = self._start + len(data), self._filed - len(data)
        if self._start == os.fstat(file.fileno()).st_size and (len(self._files) > 1 or not self._filed):
            self._files.popleft().close()
            self._start = 0
        return data

    def close(self) -> None:
        while self._files:
            self._files.popleft().close()

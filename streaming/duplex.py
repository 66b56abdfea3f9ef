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
import errno
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, MutableMapping
from typing import IO, Any

import gevent
from gevent.event import Event as Signal

from streaming import wire
from streaming.errors import BadRequest, DiskFull
from streaming.events import TICK_S, Event, Source
from streaming.pace import Pace
from streaming.pipeline import Pipeline

_BLOCK_BYTES = 256 * 1024
_MEMORY_BYTES = 2 * 2**20  # the half of it is a piece of a body that comes quickly
_FILE_BYTES = 16 * 2**20


def duplex(pieces: Iterator[bytes], pipeline: Pipeline, environ: MutableMapping[str, Any], spool_bytes: int) -> Source:
    """Yield what ``pipeline`` makes of the pieces. Raises BadRequest when they are not what it takes, and TooLarge."""
    intake = Intake(pieces, pipeline, environ, spool_bytes)
    begun = False
    try:
        while not intake.ended or intake.held:
            if intake.ended and not begun:
                intake.check()  # while it can still be a status
            if intake.held:
                begun = True
                yield Event(intake.take(_BLOCK_BYTES))
                continue
            yield None
            if not intake.wait(TICK_S):
                intake.sync()
        intake.check()
    finally:
        intake.close()


class Intake:
    """The pieces on their way through the pipeline into a spool, as fast as they come and while the spool has room.

    ``held``: bytes in the spool. ``ended``: no more will come.
    """

    def __init__(
        self, pieces: Iterator[bytes], pipeline: Pipeline, environ: MutableMapping[str, Any], spool_bytes: int
    ) -> None:
        self._pieces = pieces
        self._environ = environ
        self._pipeline = pipeline
        self._spool = Spool()
        self._spool_bytes = spool_bytes
        self._failure: Exception | None = None
        self._between_pieces = True
        self._pace = Pace()
        self._came, self._taken = Signal(), Signal()
        self.ended = False
        self._progress()
        # With its context: the body of another server than gunicorn is read through flask.request.
        self._greenlet = gevent.spawn(contextvars.copy_context().run, self._read)

    @property
    def held(self) -> int:
        return len(self._spool)

    def check(self) -> None:
        """Raise what has ended the reading, if it was not the body's end."""
        if self._failure is not None:
            raise self._failure

    def take(self, most: int) -> bytes:
        self._taken.set()
        return self._spool.read(most)

    def wait(self, timeout_s: float) -> bool:
        """Return when something came or the end, at most ``timeout_s`` seconds later, and which of the two."""
        came = bool(self._came.is_set() or self._came.wait(timeout_s))
        self._came.clear()
        return came

    def sync(self) -> None:
        """Let out what a compressor holds back; nothing comes for now, and it may be all the reader waits for."""
        if self._between_pieces:
            # No rest in between: the next piece must not meet a pipeline that is half way.
            for made in self._pipeline.sync():
                self._spool.write(made)

    def close(self) -> None:
        self._greenlet.kill(timeout=1)
        self._spool.close()

    def _progress(self) -> None:
        """A client that sends is no client that is stuck, also when it takes nothing meanwhile."""
        self._environ[wire.DUPLEX] = time.monotonic()

    def _read(self) -> None:
        try:
            for piece in self._pieces:
                self._progress()
                self._between_pieces = False
                self._fill(self._pipeline.decode(piece))
                self._between_pieces = True
            self._between_pieces = False
            self._fill(self._pipeline.flush())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._failure = DiskFull("No space is left for what the client has not read yet.") if full else error
        except Exception as error:  # raised where the answer is made
            self._failure = error
        self.ended = True
        self._came.set()

    def _fill(self, steps: Iterator[bytes]) -> None:
        for made in _told(steps):
            if made:
                self._spool.write(made)
                self._came.set()
            while self.held > self._spool_bytes:
                self._taken.clear()
                self._taken.wait()
            self._pace.rest()


def _told(steps: Iterator[bytes]) -> Iterator[bytes]:
    """The codecs know no HTTP: what they cannot take is the request's fault."""
    try:
        yield from steps
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
        self._memory: deque[bytes | memoryview] = deque()
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
                view = memoryview(data)
                self._memory.appendleft(view[most:])  # of a large block: copying the rest each time is slow
                data = view[:most]
            self._held -= len(data)
            return bytes(data)
        file = self._files[0]
        read = os.pread(file.fileno(), most, self._start)
        self._start, self._filed = self._start + len(read), self._filed - len(read)
        if self._start == os.fstat(file.fileno()).st_size and (len(self._files) > 1 or not self._filed):
            self._files.popleft().close()
            self._start = 0
        return read

    def close(self) -> None:
        while self._files:
            self._files.popleft().close()

"""How the bytes of a file reach a client: by sendfile(2) where the connection is a plain one, in blocks elsewhere.

Rules:
- One rule for both ways: the bytes are counted, and a file that came out shorter than was announced cuts the
  connection. gunicorn would let the next response's bytes fill the body.
- Both send in fair slices, in constant memory, and read a file at the offset they are at: its descriptor's own position
  does not matter.
- A file that is not in memory is read ahead in a thread: sendfile(2) itself would hold up the whole worker for a disk.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import IO, Any
from urllib.parse import quote

import gevent

from streaming.accounts import Account
from streaming.connections import RESPONSE, send_file, takes_files
from streaming.pace import Pace
from streaming.ranges import Span
from streaming.shares import Leave, nothing
from streaming.wire import Link

log = logging.getLogger("perennial.files")

BLOCK_BYTES = 256 * 1024
STEP_BYTES = 2**19
AHEAD_BYTES = 2**20
# Linux alone can say whether a read would wait for the disk; without the flag a read of one byte is but that.
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_probe = bytearray(1)


class FileBody:
    """The body of a response: ``parts`` in turn, where a span is of ``file``, which is closed with it.

    ``leave`` gives back the place that its caller has for it.
    """

    def __init__(self, parts: Sequence[bytes | Span], file: IO[bytes], environ: Mapping[str, Any]) -> None:
        self._file = file
        self.leave: Leave = nothing
        self._expected = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
        self._response = environ.get(RESPONSE)
        # Told from its path: a direct answer knows no route.
        self._account = Account(
            "video" if environ.get("PATH_INFO", "").startswith("/api/video/") else "download", environ
        )
        self._account.how = "left"
        self._pieces = _pieces(parts, file.fileno(), environ, self._account)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self.leave()
        self._pieces.close()
        self._file.close()
        account = self._account
        if self._response is not None:
            account.bytes = self._response.sent
        if account.bytes >= self._expected:
            account.how = "complete"
        account.end()


def _pieces(
    parts: Sequence[bytes | Span], file: int, environ: Mapping[str, Any], account: Account
) -> Generator[bytes, None, None]:
    """Yield what gunicorn is to write; the rest is sent past it in between."""
    if takes_files(environ):
        yield b""  # gunicorn writes the headers
        account.first_byte()
        # What a connection takes at once needs no watcher, which would cost as much as the sending.
        parts = _sent_at_once(parts, file, environ)
    if parts:
        yield from _watched(parts, file, environ, account)


def _sent_at_once(parts: Sequence[bytes | Span], file: int, environ: Mapping[str, Any]) -> Sequence[bytes | Span]:
    """Send a single, small span as far as it goes without waiting; return what is left."""
    span = parts[0]
    if len(parts) > 1 or isinstance(span, bytes) or span.length > BLOCK_BYTES or not _in_memory(file, span.end - 1):
        return parts
    sent = span.length and send_file(environ, file, span.first, span.length)
    if sent == span.length:
        return ()
    return (Span(span.first + sent, span.end),) if sent else parts


def _watched(parts: Sequence[bytes | Span], file: int, environ: Mapping[str, Any], account: Account) -> Iterator[bytes]:
    link = Link(environ)
    pace = Pace()
    try:
        for part in parts:
            if isinstance(part, bytes):
                account.bytes += len(part)
                yield part
            elif takes_files(environ):
                _send(part, file, link, pace)
            else:
                for block in _blocks(part, file, pace):
                    account.bytes += len(block)
                    yield block
    except _Shrunk:
        account.how = "failed"
        # Quoted: a line end in a name would write a line of its own into the log (CWE-117).
        log.warning("%s shrank while it was sent: cut", quote(environ.get("PATH_INFO", ""), encoding="latin-1"))
        link.cut()
        raise BrokenPipeError(errno.EPIPE, "the file shrank") from None
    except gevent.GreenletExit:
        account.how = "stopped"
        raise
    finally:
        if link.slow:
            account.how = "slow"
        link.close()


class _Shrunk(Exception):
    pass


def _send(span: Span, file: int, link: Link, pace: Pace) -> None:
    offset = span.first
    while offset < span.end:
        count = min(STEP_BYTES, span.end - offset)
        _bring(file, offset, count)
        if not (sent := link.send_file(file, offset, count)):
            raise _Shrunk
        offset += sent
        pace.rest()


def _blocks(span: Span, file: int, pace: Pace) -> Iterator[bytes]:
    offset = span.first
    while offset < span.end:
        count = min(BLOCK_BYTES, span.end - offset)
        _bring(file, offset, count)
        if not (block := os.pread(file, count, offset)):
            raise _Shrunk
        offset += len(block)
        yield block
        pace.rest()


def _bring(file: int, offset: int, count: int) -> None:
    """Wait, cooperatively, until the bytes are in memory, as far as the last of them tells of the others."""
    if not _in_memory(file, offset + count - 1):
        job = gevent.get_hub().threadpool.spawn(_read, file, offset)
        try:
            job.get()
        finally:
            # Thrown at in the meantime: if the file were closed now, another could get its number under the thread.
            job.wait()


def _in_memory(file: int, offset: int) -> bool:
    try:
        os.preadv(file, [_probe], offset, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system that does not know the flag
    return True


def _read(file: int, offset: int) -> None:
    with contextlib.suppress(OSError):  # whoever sends it meets the same error, where it can be told
        os.pread(file, AHEAD_BYTES, offset)

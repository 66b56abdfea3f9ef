"""A file by Flask's own ``send_file``: the plain path, for ``SEND_FILES=flask``.

Rules:
- What is answered is Werkzeug's: one range, and most conditions. ``streaming/ranges.py`` has all of RFC 9110.
- A range is read from its start, which gunicorn's own ``wsgi.file_wrapper`` cannot.
- The bytes are counted: gunicorn would let the next response's bytes fill a body that came out too short.
"""

from __future__ import annotations

import errno
import io
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

from flask import Response, request, send_file

from streaming.pace import Pace
from streaming.senders import BLOCK_BYTES
from streaming.wire import Interrupted, Link

log = logging.getLogger("perennial.files")


class FileWrapper:
    """``wsgi.file_wrapper`` that can seek, so that a range is read from its start and not from byte 0.

    gunicorn's own has no ``seekable``: the last MiB of 1 GiB took 254 times as long as nginx takes for it.
    """

    def __init__(self, file: IO[bytes], block_bytes: int = BLOCK_BYTES) -> None:
        self.filelike = file
        self._block_bytes = max(block_bytes, BLOCK_BYTES)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if block := self.filelike.read(self._block_bytes):
            return block
        raise StopIteration

    def seekable(self) -> bool:
        return self.filelike.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.filelike.seek(offset, whence)

    def tell(self) -> int:
        return self.filelike.tell()

    def close(self) -> None:
        self.filelike.close()


def respond_plainly(file: IO[bytes], content_type: str, etag: str) -> Response:
    """Return the response that sends ``file``. Raises werkzeug's RequestedRangeNotSatisfiable."""
    status = os.fstat(file.fileno())
    request.environ["wsgi.file_wrapper"] = FileWrapper
    modified = datetime.fromtimestamp(int(status.st_mtime), UTC)
    response = send_file(file, mimetype=content_type, etag=etag.strip('"'), last_modified=modified)
    response.content_length = status.st_size  # send_file knows it of paths only, and without it no range
    response.make_conditional(request.environ, accept_ranges=True, complete_length=status.st_size)
    response.direct_passthrough = False  # or Werkzeug would not call what is to be called on close
    response.response = _counted(response.iter_encoded(), response.content_length or 0, request.environ)
    return response


def _counted(blocks: Iterator[bytes], expected: int, environ: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the blocks, letting other greenlets run in between; cut when they are fewer bytes than were announced."""
    link = Link(environ)
    sent = 0
    pace = Pace()
    try:
        while isinstance(block := link.pull(blocks), bytes):
            sent += len(block)
            yield block
            pace.rest()
        if sent < expected:
            # Quoted: a line end in a name would write a line of its own into the log (CWE-117).
            log.warning("%s shrank while it was sent: cut", quote(environ.get("PATH_INFO", ""), encoding="latin-1"))
            link.cut()
            raise BrokenPipeError(errno.EPIPE, "the file shrank")
    except Interrupted:
        raise BrokenPipeError(errno.EPIPE, "the client left") from None
    finally:
        link.close()

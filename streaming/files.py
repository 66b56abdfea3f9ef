"""Files of a folder, opened safely and sent in fair slices.

Rules:
- A path is opened below its root one name at a time, and no link is followed: what is checked is what is sent.
- ``O_NONBLOCK``, because opening a FIFO without it waits for ever; only a regular file is sent.
- The bytes are counted: gunicorn would let the next response's bytes fill a body that came out too short.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from flask import Response, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import dump_options_header

from streaming.errors import NotFound
from streaming.wire import Interrupted, Link, Pace

log = logging.getLogger("perennial.files")

BLOCK_BYTES = 256 * 1024


def open_below(root: Path, path: str) -> IO[bytes]:
    """Open the regular file ``path`` (names separated by "/") below ``root``. The caller closes it.

    Raises NotFound for everything else: other kinds, hidden names, links, ``..``, NUL, over-long names.
    """
    names = path.split("/")
    if any(name in ("", ".", "..") or name.startswith(".") or "\0" in name for name in names):
        raise NotFound("There is no such file.")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        fd = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", 0) in (errno.EMFILE, errno.ENFILE):
            raise
        raise NotFound("There is no such file.") from error
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFound("There is no such file.")
    return os.fdopen(fd, "rb", buffering=0)


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


def respond_file(file: IO[bytes], name: str, content_type: str, *, attachment: bool) -> Response:
    """Return the response that sends ``file``, with ranges and conditions; the file is closed with it."""
    status = os.fstat(file.fileno())
    request.environ["wsgi.file_wrapper"] = FileWrapper
    response = send_file(
        file,
        mimetype=content_type,
        etag=f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}",
        last_modified=datetime.fromtimestamp(int(status.st_mtime), UTC),
    )
    response.call_on_close(file.close)
    response.content_length = status.st_size  # send_file knows it of paths only, and without it no range
    try:
        response.make_conditional(request.environ, accept_ranges=True, complete_length=status.st_size)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    response.headers["Content-Disposition"] = _disposition(name) if attachment else "inline"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"
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
            log.warning("%s shrank while it was sent: cut", environ.get("PATH_INFO"))
            link.cut()
            raise BrokenPipeError(errno.EPIPE, "the file shrank")
    except Interrupted:
        raise BrokenPipeError(errno.EPIPE, "the client left") from None
    finally:
        link.close()


def _disposition(name: str) -> str:
    """RFC 6266 and 8187: a plain ``filename`` for old readers, ``filename*`` for every other name."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return dump_options_header("attachment", {"filename": name})
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~', errors='replace')}"

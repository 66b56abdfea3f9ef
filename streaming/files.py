"""A file as a response: its validators, its headers, and who sends its bytes.

Rules:
- What is answered is decided by ``ranges.resolve``, what is sent by ``senders.send_parts``, wherever the server is.
- ``SEND_FILES`` may leave both to others: to Flask's ``send_file``, with Werkzeug's rules, or to the server in front.
- What could act in a browser under this server's name is an attachment, and in a sandbox where it is shown.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import IO
from urllib.parse import quote

from flask import Response, current_app, request
from werkzeug.http import dump_options_header

from streaming import media_types, ranges
from streaming.conditions import Validators
from streaming.errors import RangeNotSatisfiable
from streaming.fingerprints import Fingerprints, wants_sha256
from streaming.folders import open_below
from streaming.plain_files import respond_plainly
from streaming.ranges import Resolution, Span
from streaming.senders import send_parts

# What WSGI calls the fields that decide.
_FIELDS = {
    "HTTP_RANGE": "range",
    "HTTP_IF_RANGE": "if-range",
    "HTTP_IF_MATCH": "if-match",
    "HTTP_IF_NONE_MATCH": "if-none-match",
    "HTTP_IF_MODIFIED_SINCE": "if-modified-since",
    "HTTP_IF_UNMODIFIED_SINCE": "if-unmodified-since",
}
_SANDBOX = "default-src 'none'; sandbox"
# Where nginx finds FILES_DIR, for nobody but this server (deploy/nginx.conf).
_INTERNAL = "/_files/"

fingerprints = Fingerprints()


@dataclass(frozen=True, slots=True)
class Sendable:
    """An open regular file, its path below the root, and how it is to be shown."""

    file: IO[bytes]
    path: str
    content_type: str
    attachment: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def respond_file(path: str, *, attachment: bool) -> Response:
    """Return the response that sends a file of ``FILES_DIR``, with ranges and conditions.

    Raises NotFound, and RangeNotSatisfiable.
    """
    settings = current_app.extensions["settings"]
    file = open_below(settings.FILES_DIR, path)
    try:
        sendable = Sendable(file, path, media_types.content_type(path), attachment)
        response = SENDERS[settings.SEND_FILES](sendable)
    except BaseException:
        file.close()
        raise
    response.headers["Cache-Control"] = settings.FILES_CACHE_CONTROL
    if response.status_code < 300:
        response.headers.update(_presentation(sendable))
    response.call_on_close(file.close)
    return response


def _own(sendable: Sendable) -> Response:
    """Return the response of this server's own rules and senders."""
    status, now_s = os.fstat(sendable.file.fileno()), time.time()
    length = status.st_size
    # 8.8.2.1: no Last-Modified is later than the Date beside it.
    current = Validators(_etag(status), min(int(status.st_mtime), int(now_s)))
    fields = {name: request.environ[key] for key, name in _FIELDS.items() if key in request.environ}
    found = ranges.resolve(request.method, fields, current, length, now_s)
    if found.status == 416:
        raise RangeNotSatisfiable(f"The file has {length} bytes.", headers={"Content-Range": f"bytes */{length}"})
    response = Response(status=found.status, headers={"ETag": current.etag})
    if found.status in (304, 412):
        del response.headers["Content-Type"]
        return response
    _fill(response, sendable, found, length)
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Last-Modified"] = formatdate(current.modified_s, usegmt=True)
    return response


def _fill(response: Response, sendable: Sendable, found: Resolution, length: int) -> None:
    """Give a response its body, and the headers that describe it."""
    parts: list[bytes | Span] = list(found.spans)
    response.content_length = sum(span.length for span in found.spans)
    response.content_type = sendable.content_type
    if found.status == 206 and len(found.spans) == 1:
        response.headers["Content-Range"] = ranges.content_range(found.spans[0], length)
    elif found.status == 206:
        boundary = secrets.token_hex(16)
        response.content_type = f"multipart/byteranges; boundary={boundary}"
        parts, response.content_length = ranges.multipart(found.spans, length, sendable.content_type, boundary)
    response.headers.update(_digest(sendable))
    if request.method != "HEAD":
        response.response = send_parts(parts, sendable.file.fileno(), request.environ)


def _flask(sendable: Sendable) -> Response:
    return respond_plainly(sendable.file, sendable.content_type, _etag(os.fstat(sendable.file.fileno())))


def _accel(sendable: Sendable) -> Response:
    """Return what makes nginx send the file, with its own rules for ranges and conditions."""
    return _elsewhere(sendable, "X-Accel-Redirect", _INTERNAL + quote(sendable.path))


def _sendfile(sendable: Sendable) -> Response:
    path = Path(current_app.extensions["settings"].FILES_DIR, sendable.path).absolute()
    return _elsewhere(sendable, "X-Sendfile", quote(str(path)))


def _elsewhere(sendable: Sendable, field: str, place: str) -> Response:
    response = Response(content_type=sendable.content_type, headers={field: place})
    response.headers.update(_digest(sendable))
    return response


SENDERS: dict[str, Callable[[Sendable], Response]] = {
    "own": _own,
    "flask": _flask,
    "x-accel-redirect": _accel,
    "x-sendfile": _sendfile,
}


def _digest(sendable: Sendable) -> dict[str, str]:
    if not wants_sha256(request.environ.get("HTTP_WANT_REPR_DIGEST", "")):
        return {}
    digest = fingerprints.repr_digest(sendable.file.fileno())
    return {"Repr-Digest": digest} if digest else {}


def _presentation(sendable: Sendable) -> dict[str, str]:
    """Return the headers that say how a browser is to take the file."""
    headers = {
        "Content-Disposition": _disposition(sendable.name) if sendable.attachment else "inline",
        "X-Content-Type-Options": "nosniff",
    }
    if media_types.is_active(sendable.content_type):
        headers["Content-Security-Policy"] = _SANDBOX
    return headers


def _etag(status: os.stat_result) -> str:
    """Return a strong entity tag that changes with every rewrite, in place or by another file's name."""
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


def _disposition(name: str) -> str:
    """RFC 6266 and 8187: a plain ``filename`` for old readers, ``filename*`` for every other name."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return dump_options_header("attachment", {"filename": name})
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~', errors='replace')}"

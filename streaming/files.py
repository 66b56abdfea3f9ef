"""A file as a response: its validators, its headers, and who sends its bytes.

Rules:
- What is answered is decided by ``ranges.resolve``, what is sent by ``senders.FileBody``, wherever the server is.
- ``SEND_FILES`` may leave both to others: to Flask's ``send_file``, with Werkzeug's rules, or to the server in front.
- What could act in a browser under this server's name is an attachment, and in a sandbox where it is shown.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from flask import Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.http import dump_options_header

from settings import Settings
from streaming import callers, media_types, ranges
from streaming.conditions import Validators
from streaming.errors import RangeNotSatisfiable
from streaming.file_names import disposition
from streaming.fingerprints import Fingerprints, wants_sha256
from streaming.folders import open_below
from streaming.links import links
from streaming.plain_files import respond_plainly
from streaming.ranges import Resolution, Span
from streaming.senders import FileBody
from streaming.shares import Shares, nothing

# What WSGI calls the fields that decide.
_FIELDS = (
    ("HTTP_RANGE", "range"),
    ("HTTP_IF_RANGE", "if-range"),
    ("HTTP_IF_MATCH", "if-match"),
    ("HTTP_IF_NONE_MATCH", "if-none-match"),
    ("HTTP_IF_MODIFIED_SINCE", "if-modified-since"),
    ("HTTP_IF_UNMODIFIED_SINCE", "if-unmodified-since"),
)
_ACCEPTED = ("Accept-Ranges", "bytes")
_SANDBOX = "default-src 'none'; sandbox"
# Where nginx finds FILES_DIR, for nobody but this server (deploy/nginx.conf).
_INTERNAL = "/_files/"

fingerprints = Fingerprints()


Header = tuple[str, str]


class Answer(NamedTuple):
    """What WSGI wants: a status, headers, and a body, which is closed by whoever gets it."""

    status: int
    headers: list[Header]
    body: Iterable[bytes]


class Shown(NamedTuple):
    """A path below the root, and how a browser is to take the file: all that its name decides."""

    path: str
    content_type: str
    headers: tuple[Header, ...]


def respond_file(path: str, *, attachment: bool) -> Response:
    """Return the response that sends a file of ``FILES_DIR``, with ranges and conditions.

    Raises NotFound, RangeNotSatisfiable, and TooManyRequests when its caller has CALLER_STREAMS open.
    """
    settings: Settings = current_app.extensions["settings"]
    if settings.SEND_FILES == "own":
        told = _in_a_place(settings, path, attachment)
        response = Response(told.body, told.status)
        response.headers = Headers(told.headers)  # without the Content-Type that Flask gives to everything
        return response
    file = open_below(settings.FILES_DIR, path)
    try:
        return _SENDERS[settings.SEND_FILES](file, _shown(path, attachment), settings)
    except BaseException:
        file.close()
        raise


def _in_a_place(settings: Settings, path: str, attachment: bool) -> Answer:
    """A file that is read in drops holds a place of its caller's, too."""
    shares: Shares = current_app.extensions["streams"]
    leave = shares.enter(callers.key()) if request.method == "GET" else nothing
    try:
        told = answer(request.environ, settings, path, attachment)
    except BaseException:
        leave()
        raise
    if isinstance(told.body, FileBody):
        told.body.leave = leave
    else:
        leave()
    return told


def answer(environ: Mapping[str, Any], settings: Settings, path: str, attachment: bool) -> Answer:
    """Return what a GET or HEAD of a file is answered with, by this server's own rules and senders.

    Raises NotFound, RangeNotSatisfiable, and Unavailable when the worker has MAX_STREAMS open.
    """
    links.check_place(settings.MAX_STREAMS)  # a file that is read in drops holds a place as a stream does
    file = open_below(settings.FILES_DIR, path)
    try:
        return _answer(environ, settings, file, _shown(path, attachment))
    except BaseException:
        file.close()
        raise


def _answer(environ: Mapping[str, Any], settings: Settings, file: IO[bytes], shown: Shown) -> Answer:
    status, now_s = os.fstat(file.fileno()), time.time()
    length = status.st_size
    # 8.8.2.1: no Last-Modified is later than the Date beside it.
    current = Validators(_etag(status), min(int(status.st_mtime), int(now_s)))
    fields = {name: environ[key] for key, name in _FIELDS if key in environ}
    found = ranges.resolve(environ["REQUEST_METHOD"], fields, current, length, now_s)
    if found.status == 416:
        raise RangeNotSatisfiable(f"The file has {length} bytes.", headers={"Content-Range": f"bytes */{length}"})
    headers = [("ETag", current.etag), ("Cache-Control", settings.FILES_CACHE_CONTROL)]
    if found.status in (304, 412):
        file.close()
        return Answer(found.status, headers + [("Content-Length", "0")] * (found.status == 412), ())
    parts, described = _described(found, length, shown.content_type)
    modified = ("Last-Modified", _date(current.modified_s))
    headers = [*described, *shown.headers, *headers, modified, *_digest(environ, file)]
    return Answer(found.status, headers, FileBody(parts, file, environ))


def _described(found: Resolution, length: int, content_type: str) -> tuple[Sequence[bytes | Span], list[Header]]:
    """Return the body of a 200 or a 206, and the headers that describe it."""
    spans = found.spans
    if found.status == 206 and len(spans) > 1:
        boundary = secrets.token_hex(16)
        parts, size = ranges.multipart(spans, length, content_type, boundary)
        content_type = f"multipart/byteranges; boundary={boundary}"
        return parts, [("Content-Type", content_type), ("Content-Length", str(size)), _ACCEPTED]
    headers = [("Content-Type", content_type), ("Content-Length", str(spans[0].length)), _ACCEPTED]
    if found.status == 206:
        headers.append(("Content-Range", ranges.content_range(spans[0], length)))
    return spans, headers


def _flask(file: IO[bytes], shown: Shown, settings: Settings) -> Response:
    response = respond_plainly(file, shown.content_type, _etag(os.fstat(file.fileno())))
    response.headers.extend(shown.headers)
    response.headers["Cache-Control"] = settings.FILES_CACHE_CONTROL
    response.call_on_close(file.close)
    return response


def _accel(file: IO[bytes], shown: Shown, settings: Settings) -> Response:
    """Return what makes nginx send the file, with its own rules for ranges and conditions."""
    return _elsewhere(file, shown, settings, ("X-Accel-Redirect", _INTERNAL + quote(shown.path)))


def _sendfile(file: IO[bytes], shown: Shown, settings: Settings) -> Response:
    path = Path(settings.FILES_DIR, shown.path).absolute()
    return _elsewhere(file, shown, settings, ("X-Sendfile", quote(str(path))))


def _elsewhere(file: IO[bytes], shown: Shown, settings: Settings, place: Header) -> Response:
    headers = [place, *shown.headers, ("Cache-Control", settings.FILES_CACHE_CONTROL), *_digest(request.environ, file)]
    file.close()
    return Response(content_type=shown.content_type, headers=headers)


_SENDERS: dict[str, Callable[[IO[bytes], Shown, Settings], Response]] = {
    "flask": _flask,
    "x-accel-redirect": _accel,
    "x-sendfile": _sendfile,
}


def _digest(environ: Mapping[str, Any], file: IO[bytes]) -> list[Header]:
    """Return the Repr-Digest that was asked for, if it was and can be had."""
    if not (asked := environ.get("HTTP_WANT_REPR_DIGEST")) or not wants_sha256(asked):
        return []
    digest = fingerprints.repr_digest(file.fileno())
    return [("Repr-Digest", digest)] if digest else []


@lru_cache(1000)
def _shown(path: str, attachment: bool) -> Shown:
    name, content_type = path.rpartition("/")[2], media_types.content_type(path)
    headers = [("Content-Disposition", _disposition(name) if attachment else "inline")]
    headers.append(("X-Content-Type-Options", "nosniff"))
    if media_types.is_active(content_type):
        headers.append(("Content-Security-Policy", _SANDBOX))
    return Shown(path, content_type, tuple(headers))


@lru_cache(1000)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _etag(status: os.stat_result) -> str:
    """Return a strong entity tag that changes with every rewrite, in place or by another file's name."""
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


def _disposition(name: str) -> str:
    """As Flask's own sender writes it, where that is right: a name that is a token has no quotes."""
    told = disposition(name)
    return told if "; filename*=" in told else dump_options_header("attachment", {"filename": name})

"""Request bodies, piece by piece as they arrive.

Rules:
- A piece is what the connection had: ``request.stream.read(n)`` under gunicorn waits for n bytes or the end, so the
  pieces are taken from gunicorn's own body readers; another server's body is read by ``read``.
- A body that ends early is never taken for a whole one; one that stalls, or comes in drops, is given up after a time.
- What is refused early is read and thrown away for a while after the answer, or a reset would eat the answer; gunicorn
  does the same 1 KiB at a time over a buffer it copies anew (64 MiB: the worker stood still for 3 s).
"""

from __future__ import annotations

import contextlib
import mmap
import socket
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final

import gevent
import gevent.socket
from flask import Response, current_app, request
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData, ParseException

from streaming.accounts import tally
from streaming.connections import RESPONSE, plain_socket
from streaming.errors import BadRequest, BodyStalled, TooLarge
from streaming.pace import Pace
from streaming.slowness import Slowest, Waits

PIECE_BYTES = 256 * 1024
# In the environ: who is told, at the end of its reading, how many bytes of the body came.
CAME: Final = "perennial.came"
DISCARD_BYTES = 2**30
DISCARD_S = 30.0
_TRUNCATE = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0
# Never read, and on a plain connection never written: no memory stands behind it.
_waste = mmap.mmap(-1, 4 * 2**20)
# So little gunicorn may as well read itself.
_SMALL_BYTES = 64 * 1024


def has_body(environ: Mapping[str, Any]) -> bool:
    """Whether the request announces a body that is not empty (RFC 9112, 6.3)."""
    return environ.get("HTTP_TRANSFER_ENCODING", "") != "" or environ.get("CONTENT_LENGTH", "") not in ("", "0")


def length(environ: Mapping[str, Any]) -> int | None:
    """Return the announced length in bytes, None when the body is chunked."""
    text = environ.get("CONTENT_LENGTH", "")
    return int(text) if text else None


def pieces(environ: MutableMapping[str, Any], limit_bytes: int, slowest: Slowest) -> Iterator[bytes]:
    """Yield the body as it arrives, letting other greenlets run in between.

    Raises TooLarge as soon as it is known to exceed ``limit_bytes``, BodyStalled when it comes more slowly than
    ``slowest``, BadRequest when it ends before its announced end or is wrongly framed.
    """
    check_length(environ, limit_bytes)
    received = 0
    pace, waits = Pace(), Waits(slowest)
    source = _source(environ)
    try:
        while piece := _next(source, environ, slowest, waits):
            received += len(piece)
            tally.received += len(piece)
            if received > limit_bytes:
                raise TooLarge(f"The body has more than the {limit_bytes} bytes that are taken.")
            yield piece
            pace.rest()
        check_whole(environ, received)
    finally:
        came(environ, received)


def came(environ: Mapping[str, Any], count: int) -> None:
    """Tell who counts them (CAME), at the end of the reading, how many bytes of the body came."""
    if count and (tell := environ.get(CAME)):
        tell(count)


def check_length(environ: Mapping[str, Any], limit_bytes: int) -> None:
    """Raise TooLarge for a body whose announced length is above ``limit_bytes``."""
    if (announced := length(environ)) is not None and announced > limit_bytes:
        raise TooLarge(f"The body has {announced} bytes, and at most {limit_bytes} are taken.")


def check_whole(environ: Mapping[str, Any], received: int) -> None:
    """Raise BadRequest for a body that ended before its announced end."""
    if (announced := length(environ)) is not None and received < announced:
        fail(environ)
        raise BadRequest(f"The body ended after {received} of {announced} bytes.")


def wait_readable(environ: Mapping[str, Any], connection: Any, slowest: Slowest) -> float:
    """Wait until there is something to read, or the end; return how long that took. Raises BodyStalled."""
    began = time.monotonic()
    try:
        gevent.socket.wait_read(connection.fileno(), timeout=slowest.stall_s, timeout_exc=TimeoutError())
    except TimeoutError:
        raise _stalled(environ, slowest) from None
    return time.monotonic() - began


def slowest() -> Slowest:
    """How slowly the body of a request to this application may come."""
    found: Slowest = current_app.extensions["slowest"]
    return found


def arriving(limit_bytes: int) -> Iterator[bytes]:
    """Yield the current request's body as it arrives, as ``pieces``."""
    return pieces(request.environ, limit_bytes, slowest())


def taken(limit_bytes: int) -> bytes:
    """Return the current request's body whole, which is small. Raises as ``pieces`` does."""
    return b"".join(arriving(limit_bytes)) if has_body(request.environ) else b""


def _next(source: Iterator[bytes], environ: Mapping[str, Any], slowest: Slowest, waits: Waits) -> bytes:
    began = time.monotonic()
    try:
        with gevent.Timeout(slowest.stall_s):
            piece = next(source, b"")
    except gevent.Timeout:
        raise _stalled(environ, slowest) from None
    except (NoMoreData, OSError) as error:  # a reset, a network that was lost, TLS that is none
        fail(environ)
        raise BadRequest("The body ended before its last chunk.") from error
    except ParseException as error:
        fail(environ)
        raise BadRequest("The body is not correctly chunked.") from error
    if waits.brought(time.monotonic() - began, len(piece)) and piece:
        raise too_slow(environ, slowest)
    return piece


def _source(environ: Mapping[str, Any]) -> Iterator[bytes]:
    body = environ["wsgi.input"]
    reader = getattr(body, "reader", None)
    if isinstance(reader, LengthReader):
        return _from_length(reader)
    if isinstance(reader, ChunkedReader):
        return _from_chunks(reader)
    return iter(lambda: request.stream.read(PIECE_BYTES), b"")


def _from_length(reader: Any) -> Iterator[bytes]:
    while reader.length:
        data = reader.unreader.read(None, read_ahead=reader.length)
        piece, rest = data[: reader.length], data[reader.length :]
        if rest:  # the start of a pipelined request
            reader.unreader.unread(rest)
        if not piece:
            return
        reader.length -= len(piece)
        yield piece


def _from_chunks(reader: Any) -> Iterator[bytes]:
    if reader.parser is not None:
        yield from reader.parser
        reader.parser = None


def _stalled(environ: Mapping[str, Any], slowest: Slowest) -> BodyStalled:
    fail(environ)
    return BodyStalled(f"Nothing of the body arrived for {slowest.stall_s:g} seconds.")


def too_slow(environ: Mapping[str, Any], slowest: Slowest) -> BodyStalled:
    """Return what a body gets that comes in drops."""
    fail(environ)
    return BodyStalled(f"The body came at less than {slowest.rate} bytes a second.")


def fail(environ: Mapping[str, Any]) -> None:
    """Tell gunicorn that the place of the next request on this connection is unknown: it closes, and says so."""
    if (response := environ.get(RESPONSE)) is not None:
        # Without "Connection: close" a client sends its next request into the closing connection.
        response.force_close()
    if hasattr(environ["wsgi.input"], "failed"):
        environ["wsgi.input"].failed = True


def discard_unread(response: Response) -> Response:
    """After the answer to a request whose body was not read whole: let the client come to reading the answer."""
    environ = request.environ
    reader = getattr(environ["wsgi.input"], "reader", None)
    left = getattr(reader, "length", 0)
    unread = left > _SMALL_BYTES if isinstance(reader, LengthReader) else getattr(reader, "parser", None) is not None
    # Who came too slowly is not waited for.
    if unread and not response.is_streamed and response.status_code != BodyStalled.status:
        fail(environ)
        response.call_on_close(lambda: _discard(environ))
    return response


def _discard(environ: Mapping[str, Any]) -> None:
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return
    # The kernel throws it away without copying it (tcp(7)); of a TLS connection it has to be deciphered.
    flags = _TRUNCATE if plain_socket(environ) is not None else 0
    left, deadline, pace = DISCARD_BYTES, time.monotonic() + DISCARD_S, Pace()
    with contextlib.suppress(OSError), gevent.Timeout(DISCARD_S, False):
        while left > 0 and time.monotonic() < deadline and (count := connection.recv_into(_waste, 0, flags)):
            left -= count
            pace.rest()

"""Bodies of requests whose connection fails: what is told is that they are not whole, never that this server failed."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import pytest
from gunicorn.http.body import Body, LengthReader

from streaming import bodies
from streaming.arrivals import _receiver
from streaming.errors import BadRequest
from streaming.slowness import Slowest

FAILURES = [
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    # Of a client that lost its power or its network: the kernel's keep-alive and TCP_USER_TIMEOUT, and ICMP.
    TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    OSError(errno.EHOSTUNREACH, "No route to host"),
    # What came was no TLS.
    ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
]
IDS = [type(failure).__name__ for failure in FAILURES]


class Failing:
    """A connection that had three bytes, and has failed."""

    def __init__(self, failure: OSError) -> None:
        self._failure = failure
        self._left = b"abc"

    def read(self, size: int | None = None, read_ahead: int = 0) -> bytes:
        data, self._left = self._left, b""
        if not data:
            raise self._failure
        return data

    def unread(self, data: bytes) -> None:
        self._left = data


@pytest.mark.parametrize("failure", FAILURES, ids=IDS)
def test_a_connection_that_fails_ends_its_body(failure: OSError) -> None:
    """As one that is closed does, however it failed: 400, and what came was counted."""
    came: list[int] = []
    body = Body(LengthReader(Failing(failure), 10))
    environ: dict[str, Any] = {"wsgi.input": body, "CONTENT_LENGTH": "10", bodies.CAME: came.append}
    pieces = bodies.pieces(environ, 100, Slowest(5.0))
    assert next(pieces) == b"abc"
    with pytest.raises(BadRequest, match="ended before"):
        next(pieces)
    assert came == [3]


@pytest.mark.parametrize("failure", FAILURES[:3], ids=IDS[:3])
def test_an_upload_whose_connection_fails_has_ended(failure: OSError) -> None:
    """It is no failure of the disk that it goes to."""

    class Socket:
        def recv_into(self, block: memoryview, size: int, flags: int) -> int:
            raise failure

    class Connection:
        _sock = Socket()

        def fileno(self) -> int:
            return mine.fileno()

    mine, other = socket.socketpair()
    with mine, other:
        assert _receiver(Connection())(memoryview(bytearray(10))) == 0

"""Heads of requests that come too slowly: whether anything of one has come, and what its client is told.

Rules:
- Only who has sent a part of a head is told: a client that was silent may send its next request in that very moment,
  and would take a 408 for its answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sys
import termios
from typing import Any

import gevent

from streaming.accounts import tally

# Offset and length of tcpi_bytes_received in struct tcp_info (linux/tcp.h, since Linux 4.1).
_BYTES_RECEIVED = slice(128, 136)
_NONE = bytes(4)
_TELL_S = 1.0
_SENTENCE = (
    b'{"type":"about:blank","title":"Request Timeout","status":408,"detail":"The head of the request came too slowly."}'
)
_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    b"Cache-Control: no-store\r\nContent-Length: %d\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)


def received(client: Any) -> int:
    """How many bytes have come on the connection since it began; 0 where that is not known."""
    try:
        told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
    except (AttributeError, OSError):  # a Unix socket, another system than Linux, or it is closed
        return 0
    return int.from_bytes(told[_BYTES_RECEIVED], "little")


def taken(client: Any) -> int:
    """How many of those have been read: what has come of the next request, and waits, is not among them."""
    try:
        waiting = fcntl.ioctl(client.fileno(), termios.FIONREAD, _NONE)
    except OSError:
        return received(client)
    return received(client) - int.from_bytes(waiting, sys.byteorder)


def refuse(client: Any) -> None:
    """Say why the connection ends (RFC 9110, 15.5.9), if the client takes that soon."""
    tally.refused["408"] += 1
    with contextlib.suppress(OSError), gevent.Timeout(_TELL_S, False):
        client.sendall(_ANSWER)

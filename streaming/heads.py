"""Heads of requests that come too slowly: whether anything of one has come, and what its client is told.

Rules:
- Only who has sent a part of a head is told: a client that was silent may send its next request in that very moment,
  and would take a 408 for its answer.
"""

from __future__ import annotations

import contextlib
import socket
import traceback
from typing import Any

import gevent
from gunicorn.http import message

from streaming.accounts import tally

_TELL_S = 1.0
_SENTENCE = (
    b'{"type":"about:blank","title":"Request Timeout","status":408,"detail":"The head of the request came too slowly."}'
)
_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    b"Cache-Control: no-store\r\nContent-Length: %d\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)


def has_come(client: Any) -> bool:
    """Whether there is anything to read on gevent's socket: a request has begun to arrive."""
    try:
        return bool(client._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def begun(error: BaseException) -> bool:
    """Whether a part of a head had been read when ``error`` ended the reading.

    gunicorn's parser has it in its own variables, and nowhere else. To count what comes would take two system calls for
    each request; this takes nothing until it is needed.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(
        frame.f_locals.get("buf") or frame.f_locals.get("line")
        for frame in frames
        if frame.f_code.co_filename == message.__file__
    )


def refuse(client: Any) -> None:
    """Say why the connection ends (RFC 9110, 15.5.9), if the client takes that soon."""
    tally.refused["408"] += 1
    with contextlib.suppress(OSError), gevent.Timeout(_TELL_S, False):
        client.sendall(_ANSWER)

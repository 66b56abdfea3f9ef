"""gunicorn's connection of a request, as far as a stream goes past gunicorn: its socket, and what is written to it.

Rules:
- A socket is handed out only where its bytes are the connection's own: gunicorn's gevent worker, plain HTTP/1.x.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Mapping
from typing import Any, Final

import gevent.socket

# gunicorn's response in the environ, put there by worker.py.
RESPONSE: Final = "perennial.response"


def interim(environ: Mapping[str, Any], answer: bytes) -> None:
    """Write an interim answer (1xx) before the answer itself, where the connection is plain and takes it at once."""
    connection = plain_socket(environ)
    if connection is not None and answer and environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        with contextlib.suppress(OSError):
            connection._sock.send(answer, socket.MSG_DONTWAIT)


def forget_headers(environ: Mapping[str, Any]) -> None:
    """Let go of the response's headers, which were sent, unless a line of the access log has some of them."""
    response = environ.get(RESPONSE)
    if response is not None and "}o)" not in response.cfg.access_log_format:
        response.headers.clear()


def takes_files(environ: Mapping[str, Any]) -> bool:
    """Whether ``send_file`` works here, once gunicorn has written the headers."""
    return RESPONSE in environ and plain_socket(environ) is not None


def send_file(environ: Mapping[str, Any], file: int, offset: int, count: int) -> int | None:
    """Let the kernel send at most ``count`` bytes of a descriptor; return how many: 0 at its end, None for not now.

    gevent's own socket.sendfile copies 8 KiB at a time. Raises OSError for a client that has gone.
    """
    try:
        sent = os.sendfile(environ["gunicorn.socket"].fileno(), file, offset, count)
    except BlockingIOError:
        return None
    environ[RESPONSE].sent += sent  # for the access log
    return sent


def plain_socket(environ: Mapping[str, Any]) -> Any:
    """Return gunicorn's socket where its bytes are the connection's own: gevent, Linux, no TLS, no HTTP/2."""
    connection = environ.get("gunicorn.socket")
    plain = type(connection) is gevent.socket.socket and environ.get("HTTP_VERSION") != "2"
    return connection if plain and hasattr(select, "EPOLLRDHUP") else None

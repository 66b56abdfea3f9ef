"""The head of a response leaves with what is written first, in one segment.

gunicorn writes one after the other: a system call more, and a client that is woken twice.
"""

from __future__ import annotations

from typing import Any

from gunicorn.http.wsgi import Response

# What is longer leaves by itself: joining copies it.
_MOST_BYTES = 64 * 1024


def join(response: Any) -> None:
    """Let ``response``, of which nothing was written, do so. One that is not gunicorn's for HTTP/1.x stays as it is."""
    if type(response) is Response:
        response.__class__ = _Unwritten


class _Unwritten(Response):  # type: ignore[misc]  # gunicorn has no types
    def write(self: Any, arg: Any) -> None:
        self.__class__ = Response
        if len(arg) > _MOST_BYTES:
            self.write(arg)
            return
        connection, self.sock = self.sock, (together := _Together())
        try:
            self.write(arg)
        finally:
            self.sock = connection
            connection.sendall(b"".join(together.parts))


class _Together:
    """In the place of a socket: keeps what is sent."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)

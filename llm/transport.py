"""HTTP/1.1 to a model's server, for the real client: an httpx2 transport over the standard library's ``http.client``.

httpx2's own reads a body through six layers: 70 µs of CPU for each of a model's tokens, this one half of that.

Rules:
- One connection an answer; after one that came whole, and was no refusal, it is kept for ``IDLE_S`` and used again.
  There is no bound: MAX_STREAMS and the slots are.
- A body that ends early is an error, whether its length was told or it came in chunks.
- Closing an unfinished answer shuts its connection down: the server sees it at once.
- Under gevent no socket has a time-out: ``llm.deadline`` breaks a wait off. Elsewhere the request's own holds.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import gevent.monkey
import gevent.socket
import httpx2

from llm.beside import PIECE_BYTES, Beside
from llm.chunked import Chunked
from llm.texts import Take

# Uvicorn, which most model servers run on, closes idle connections after 5 s.
IDLE_S = 4.0
_MOST_IDLE = 100
# The extension of a response that is its body.
BODY = "perennial.body"
_poll = gevent.monkey.get_original("select", "poll")

_Origin = tuple[bytes, bytes, int]


class Transport(httpx2.BaseTransport):
    """``close`` ends what is idle; an answer that is being read goes on."""

    def __init__(self) -> None:
        self._idle: dict[_Origin, deque[tuple[http.client.HTTPConnection, float]]] = {}
        self._tls: Any = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        origin = url.raw_scheme, url.raw_host, url.port or (443 if url.scheme == "https" else 80)
        timeouts = request.extensions.get("timeout", {})
        connection = self._reused(origin) or self._connect(origin, timeouts.get("connect"))
        _limit(connection, timeouts.get("read"))
        try:
            answer = _exchange(connection, request)
        except TimeoutError as error:
            connection.close()
            raise httpx2.ReadTimeout("no answer", request=request) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise httpx2.RemoteProtocolError(f"no answer: {error!r}", request=request) from error
        except BaseException:
            _shut(connection)
            raise
        body = Body(self, origin, connection, answer)
        told = {BODY: body}
        return httpx2.Response(
            answer.status, headers=answer.getheaders(), stream=body, request=request, extensions=told
        )

    def close(self) -> None:
        while self._idle:
            for connection, _ in self._idle.popitem()[1]:
                connection.close()

    def keep(self, origin: _Origin, connection: http.client.HTTPConnection) -> None:
        """Take back a connection whose answer has been read to its end."""
        idle = self._idle.setdefault(origin, deque())
        idle.append((connection, time.monotonic()))
        while idle and (len(idle) > _MOST_IDLE or time.monotonic() - idle[0][1] > IDLE_S):
            idle.popleft()[0].close()

    def _reused(self, origin: _Origin) -> http.client.HTTPConnection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, since = idle.pop()
            if time.monotonic() - since <= IDLE_S and not _readable(connection.sock):
                return connection
            connection.close()  # its server has closed it, or said something that nobody asked
        return None

    def _connect(self, origin: _Origin, timeout_s: float | None) -> http.client.HTTPConnection:
        scheme, host, port = origin
        name = host.decode("ascii").strip("[]")
        if scheme == b"https":
            self._tls = self._tls or httpx2.create_ssl_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                name, port, timeout=timeout_s, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(name, port, timeout=timeout_s)
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx2.ConnectError(f"no connection: {error}") from error
        return connection


class Body(httpx2.SyncByteStream):
    """The body as it comes; read to its end, its connection is kept.

    ``take``: may take what comes while its reader waits, where that can be (``beside``).
    """

    take: Take | None = None

    def __init__(
        self, transport: Transport, origin: _Origin, connection: http.client.HTTPConnection, answer: Any
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection = connection
        self._answer = answer
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunked() if self._answer.chunked else self._plain()
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no more of the answer") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise httpx2.RemoteProtocolError(f"the answer was cut: {error!r}") from error
        self._ended = True
        # Behind a refusal many a server closes without saying so, and that may come after the next request has left.
        over = self._answer.will_close or self._answer.status >= 400
        self._answer.close()
        if over:
            self._connection.close()
        else:
            self._transport.keep(self._origin, self._connection)

    def _plain(self) -> Iterator[bytes]:
        while piece := self._answer.read1(PIECE_BYTES):
            yield piece
        if self._answer.length:
            raise ConnectionError("it was longer")

    def _chunked(self) -> Iterator[bytes]:
        """By our own decoder: http.client's gives out one chunk at a time, also where a hundred have come."""
        decoder = Chunked()
        connection: Any = getattr(self._answer.fp.raw, "_sock", None)
        pieces = _pieces(self._answer.fp, connection)
        beside: Beside | None = None
        while not decoder.ended:
            if beside is not None:
                data = beside.wait()
            elif piece := next(pieces, b""):
                data = decoder.decode(piece)
            else:
                raise ConnectionError("there was no last chunk")
            if data:
                yield data
            if self.take is not None and beside is None and type(connection) is gevent.socket.socket:
                beside = Beside(connection, decoder, self.take)
        if decoder.rest:
            raise ConnectionError("there was more after the last chunk")

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            _shut(self._connection, self._answer)


def _pieces(file: Any, connection: Any) -> Iterator[bytes]:
    """Yield what comes, as it comes, until the end; ``file``: http.client's, which may have read some of it already."""
    piece = file.read1(PIECE_BYTES)
    while piece:
        yield piece
        if type(connection) is not gevent.socket.socket:
            piece = file.read1(PIECE_BYTES)
            continue
        # By the file, an empty socket is asked first: 12 of the 200 µs of a token.
        if len(piece) < PIECE_BYTES:
            gevent.socket.wait(connection._read_event)
        piece = connection.recv(PIECE_BYTES)


def _exchange(connection: http.client.HTTPConnection, request: httpx2.Request) -> http.client.HTTPResponse:
    """Send the request, head and body at once, and return the answer when its head has come."""
    fields = request.headers.raw
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b\r\n" % field for field in fields]
    head = b"".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) or b"\0" in head:
        raise httpx2.LocalProtocolError("a header's value ends its line", request=request)
    connection.sock.sendall(head + b"\r\n" + request.read())
    answer = http.client.HTTPResponse(connection.sock, method=request.method)
    try:
        answer.begin()
    except BaseException:
        answer.close()
        raise
    return answer


def _limit(connection: http.client.HTTPConnection, seconds: float | None) -> None:
    connection.sock.settimeout(None if gevent.monkey.is_module_patched("socket") else seconds)


def _readable(connection: Any) -> bool:
    poll = _poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _shut(connection: http.client.HTTPConnection, answer: Any = None) -> None:
    """Shut the connection down: the file that http.client reads from would keep it open."""
    for sock in (connection.sock, getattr(getattr(getattr(answer, "fp", None), "raw", None), "_sock", None)):
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
    if answer is not None:
        answer.close()
    connection.close()

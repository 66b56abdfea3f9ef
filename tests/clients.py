"""Clients for the tests that see what is on the wire: when each piece arrived, and a clean end from a cut.

Rules:
- A client sends bytes as they are; h11, a parser that is not ours, reads what comes back.
- The event-stream parser is written from the HTML standard, not from our encoder.
"""

from __future__ import annotations

import codecs
import json
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h11


@dataclass(repr=False)
class Answer:
    """One response as it arrives.

    ``pieces``: when (time.monotonic) and which bytes of the body came, one for each time the socket was read.
    ``end``: "" while it may go on, then "clean" (the final chunk, the full length) or "cut".
    ``interim``: status and headers of the 1xx answers before it.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    end: str = ""
    interim: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    def header(self, name: str, default: str = "") -> str:
        """All values of a header, joined by ", "."""
        return ", ".join(value for key, value in self.headers if key == name.lower()) or default

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        tail = bytes(self.body[-500:])
        return f"<{self.status} {self.end or 'open'}, {len(self.body)} bytes, the last: {tail!r}, {self.headers}>"


class RawClient:
    """One connection. What it sends is sent as it is; h11 reads what comes back.

    ``receive_buffer_bytes``: SO_RCVBUF, so small a window that a server's writes soon block. ``tls``: what it trusts,
    where the server speaks TLS. Usable in ``with``.
    """

    def __init__(
        self, port: int, *, receive_buffer_bytes: int = 0, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.timeout_s = timeout_s
        self.socket = socket.socket()
        if receive_buffer_bytes:
            # Before connect: the window's scale is agreed on in the handshake.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(("127.0.0.1", port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        except OSError:
            self.socket.close()
            raise
        self.received = bytearray()
        self._parser: h11.Connection | None = None
        self.answer = Answer()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None
    ) -> RawClient:
        """Send a request; with ``body`` its length is stated. The answer is then read with the methods below."""
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [] if body is None else [f"Content-Length: {len(body)}"]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""), method)

    def send(self, data: bytes, method: str = "") -> RawClient:
        """Send bytes as they are; ``method`` says that they begin a request, whose answer is to be read next."""
        if method:
            self._expect(method)
        self.socket.sendall(data)
        return self

    def _expect(self, method: str) -> None:
        """Read what comes next as the answer to ``method``: only HEAD and CONNECT change how an answer is framed."""
        before = self._parser
        left = before.trailing_data[0] if before is not None else b""
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        self._parser.send(h11.EndOfMessage())
        self.answer = Answer()
        if left:
            self._feed(left)

    def send_chunk(self, data: bytes) -> RawClient:
        """One chunk of a chunked body; empty: the final one."""
        return self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def receive(self, timeout_s: float | None = None, limit_bytes: int = 65536) -> bytes:
        """Read once and return what came: b"" at the connection's end. TimeoutError when nothing comes."""
        self.socket.settimeout(self.timeout_s if timeout_s is None else timeout_s)
        try:
            data = self.socket.recv(limit_bytes)
        except ConnectionResetError:
            # Also where the end of the connection is the end of the body: after a reset nobody knows that it was whole.
            self.answer.end = self.answer.end or "cut"
            return b""
        self.received += data
        if self._parser is not None and not self.answer.end:
            self._feed(data)
        return data

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        answer, before = self.answer, len(self.answer.body)
        try:
            self._parser.receive_data(data)
            while (event := self._parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                self._take(event)
                if answer.end:
                    break
        except h11.RemoteProtocolError:
            answer.end = "cut"
        if len(answer.body) > before:
            answer.pieces.append((time.monotonic(), bytes(answer.body[before:])))

    def _take(self, event: Any) -> None:
        answer = self.answer
        if isinstance(event, (h11.InformationalResponse, h11.Response)):
            headers = [(name.decode().lower(), value.decode("latin-1")) for name, value in event.headers]
            if isinstance(event, h11.InformationalResponse):
                answer.interim.append((event.status_code, headers))
            else:
                answer.status, answer.headers = event.status_code, headers
        elif isinstance(event, h11.Data):
            answer.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            answer.end = "clean"
        elif isinstance(event, h11.ConnectionClosed):
            answer.end = answer.end or "cut"

    def read_until(self, predicate: Callable[[Answer], object], timeout_s: float | None = None) -> Answer:
        """Read until ``predicate(answer)`` is true or the answer has ended; AssertionError when neither happens."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        while not (predicate(self.answer) or self.answer.end):
            try:
                self.receive(max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                raise AssertionError(f"not within {limit_s} s; the answer so far: {self.answer}") from None
        return self.answer

    def read_head(self, timeout_s: float | None = None) -> Answer:
        return self.read_until(lambda answer: answer.status, timeout_s)

    def read_body_until(self, text: bytes, timeout_s: float | None = None) -> Answer:
        """The answer once ``text`` stands in its body; AssertionError when it ends without."""
        answer = self.read_until(lambda answer: text in answer.body, timeout_s)
        assert text in answer.body, f"ended ({answer.end}) without {text!r}: {answer}"
        return answer

    def read_to_end(self, timeout_s: float | None = None) -> Answer:
        return self.read_until(lambda _: False, timeout_s)

    def quiet(self, seconds: float) -> bool:
        """Whether nothing arrives, not even an end, for ``seconds``."""
        return not select.select([self.socket], [], [], seconds)[0]

    def half_close(self) -> None:
        """Say that nothing more is sent (FIN); reading goes on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Go without a word: RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


@dataclass(frozen=True)
class ServerSentEvent:
    data: str
    type: str = "message"
    id: str = ""


class EventStream:
    """Interpret an event stream as the HTML Living Standard, 9.2.6, says; pure, incremental.

    ``last_event_id``: what a reconnect would send. ``retry_ms``: the last reconnection time, None before the first.
    An event that is not finished by an empty line when the stream ends is never returned.
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._started = False
        self._after_cr = False
        self._data: list[str] = []
        self._type = ""
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that ``chunk`` completes."""
        text = self._decoder.decode(chunk)
        if text and not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if text and self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")
        # A CR ends its line at once; a LF that follows in a later chunk belongs to it.
        self._after_cr = text.endswith("\r") if text else self._after_cr
        *lines, self._text = re.split("\r\n|\n|\r", self._text + text)
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        self.last_event_id = self._id
        data, type = self._data, self._type
        self._data, self._type = [], ""
        # An empty data buffer is no event; "data" alone appends an LF, which makes it an event with empty data.
        return ServerSentEvent("\n".join(data), type or "message", self._id) if data else None


def parse_events(stream: bytes) -> list[ServerSentEvent]:
    """All events of a whole stream."""
    return EventStream().feed(stream)

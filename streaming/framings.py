"""How a wire writes events: one small class per format, a content type and an encoder.

Rules:
- Bytes in, bytes out: no Flask, no socket, no clock. One instance serves one response.
- ``open`` comes once before the first event, ``close`` once after the last of a whole stream.
- ``idle`` is a heartbeat; b"" where the format has none.
- ``error`` tells a failure in-band and ends the stream; it is None where the format cannot say it.
- ``drain`` ends a stream that its client continues by itself; it is None where such an end would pass for the whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Protocol, TypeGuard

import msgspec

from streaming.events import Event

_json = msgspec.json.encode


class Framing(Protocol):
    content_type: str
    headers: Mapping[str, str]

    @property
    def error(self) -> Callable[[str], bytes] | None: ...
    @property
    def drain(self) -> Callable[[], bytes] | None: ...
    def open(self) -> bytes: ...
    def encode(self, event: Event) -> bytes: ...
    def idle(self) -> bytes: ...
    def close(self) -> bytes: ...


class Shareable(Framing, Protocol):
    """A framing that writes an event the same for every client: all whose ``share`` is the same write the same bytes.

    ``passed``: the event with this id has been written by somebody else.
    """

    share: str

    def passed(self, id: str) -> None: ...


def is_shareable(framing: Framing) -> TypeGuard[Shareable]:
    # By isinstance of a Protocol it took 20 µs, a thirtieth of all that a new connection costs.
    return hasattr(framing, "share")


class Text:
    """Events as they are, one after the other: text, or pieces of a body that was framed elsewhere.

    ``error``: how that other framing tells of a failure, None where it cannot.
    """

    headers: Mapping[str, str] = {}
    drain = None

    def __init__(
        self, content_type: str = "text/plain; charset=utf-8", error: Callable[[str], bytes] | None = None
    ) -> None:
        self.content_type = content_type
        self.error = error

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        return event.data

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class NDJSON:
    """One JSON value a line. The heartbeat is an empty line, which readers of line-delimited JSON skip."""

    content_type = "application/x-ndjson"
    headers: Mapping[str, str] = {}
    drain = None

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        return event.data + b"\n"

    def idle(self) -> bytes:
        return b"\n"

    def error(self, message: str) -> bytes:
        return _json({"error": message}) + b"\n"

    def close(self) -> bytes:
        return b""


class SSE:
    """Server-sent events (HTML Living Standard, 9.2).

    ``cursor`` is where this response begins: it leaves in an id-only frame at once and in every heartbeat. Such a
    frame fires no event and sets the Last-Event-ID, so a connection lost before its first event loses nothing.
    ``retry_ms`` is how long a client should wait before it reconnects; when the server restarts, it is drawn from
    ``drain_ms`` for each client, or all of them would come back in the same millisecond.
    """

    content_type = "text/event-stream; charset=utf-8"
    share = "sse"
    headers: Mapping[str, str] = {}

    def __init__(self, cursor: str = "", retry_ms: int = 1000, drain_ms: tuple[int, int] = (100, 1000)) -> None:
        self._id = _sse_id(cursor)
        self._retry_ms = retry_ms
        self._drain_ms = drain_ms

    def open(self) -> bytes:
        return b"retry: %d\n" % self._retry_ms + self.idle()

    def encode(self, event: Event) -> bytes:
        head = b""
        if event.id:
            self._id = _sse_id(event.id)
            head = self._id
        if event.type:
            head += b"event: " + _one_line(event.type) + b"\n"
        return head + _sse_data(event.data) + b"\n"

    def idle(self) -> bytes:
        return (self._id or b":\n") + b"\n"

    def error(self, message: str) -> bytes:
        # Not "event: error": in a browser that name is EventSource's own, for a lost connection.
        return self.encode(Event(_json({"error": message}), "stream-error"))

    def passed(self, id: str) -> None:
        self._id = _sse_id(id)

    def drain(self) -> bytes:
        return b"retry: %d\n" % random.randint(*self._drain_ms) + self.idle()

    def close(self) -> bytes:
        return b""


def _sse_data(data: bytes) -> bytes:
    # The standard's line ends are CRLF, LF and CR, and no other: a bare CR that is not split here would let data
    # inject fields. bytes.splitlines knows these three (str.splitlines eight more), but forgets a last, empty line.
    if b"\n" not in data and b"\r" not in data:
        return b"data: " + data + b"\n"
    lines = data.splitlines()
    if data.endswith((b"\n", b"\r")):
        lines.append(b"")
    return b"".join(b"data: " + line + b"\n" for line in lines)


def _one_line(text: str) -> bytes:
    if "\n" in text or "\r" in text:
        raise ValueError(f"an event's type cannot hold line ends: {text!r}")
    return text.encode()


def _sse_id(cursor: str) -> bytes:
    # An id with NUL is ignored by browsers, one with a line end would inject fields.
    if "\0" in cursor:
        raise ValueError(f"an event's id cannot hold NUL: {cursor!r}")
    return b"id: " + _one_line(cursor) + b"\n" if cursor else b""

"""Typed events where the wire has no types: one JSON object an event, as NDJSON and as the answer to a long-poll.

Rules:
- An object has ``id``, ``type`` and ``data``, and ``topic`` where its reader has several.
- ``id`` is never missing: it is the cursor that continues after this line, also where the event itself has none.
- No end of a connection is left to be guessed at: one that is handed over says so in its last line.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec

from streaming.events import Event
from streaming.framings import NDJSON

_json = msgspec.json.encode
# The last line of a reader that is to go on elsewhere.
DRAIN = "stream-drain"


def line(event: Event, cursor: str, topic: str = "") -> Event:
    """Return the event, whose data is JSON, as an event whose data is the whole object."""
    said = {"id": cursor, **({"topic": topic} if topic else {}), "type": event.type, "data": msgspec.Raw(event.data)}
    return Event(_json(said), id=cursor)


class Lines:
    """NDJSON of what ``line`` returns. A worker that drains says so in a last line, whose ``id`` is where to go on.

    ``cursor``: where this response begins. When to come again is drawn from ``drain_ms``, as for server-sent events.
    """

    content_type = NDJSON.content_type
    share = "lines"
    headers: Mapping[str, str] = {}

    def __init__(self, cursor: str = "", drain_ms: tuple[int, int] = (100, 1000)) -> None:
        self._cursor = cursor
        self._drain_ms = drain_ms

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        self._cursor = event.id
        return event.data + b"\n"

    def idle(self) -> bytes:
        return b"\n"

    def error(self, message: str) -> bytes:
        return _json({"error": message}) + b"\n"

    def passed(self, id: str) -> None:
        self._cursor = id

    def drain(self) -> bytes:
        told = Event(_json({"retry_ms": random.randint(*self._drain_ms)}), DRAIN)
        return line(told, self._cursor).data + b"\n"

    def close(self) -> bytes:
        return b""


class Poll:
    """``{"events":[…],"cursor":"…"}`` in pieces: a framing of what ``line`` returns.

    The heartbeat is a line end, which JSON allows between its tokens (RFC 8259, 2). A worker that drains completes the
    answer with what there is: its client asks again after the cursor, and loses nothing.
    """

    content_type = "application/json"
    headers: Mapping[str, str] = {}
    error = None

    def __init__(self, cursor: str) -> None:
        self._cursor = cursor
        self._begun = False

    def open(self) -> bytes:
        return b'{"events":['

    def encode(self, event: Event) -> bytes:
        comma = b"," if self._begun else b""
        self._begun, self._cursor = True, event.id
        return comma + event.data

    def idle(self) -> bytes:
        return b"\n"

    def drain(self) -> bytes:
        return self.close()

    def close(self) -> bytes:
        return b'],"cursor":' + _json(self._cursor) + b"}\n"

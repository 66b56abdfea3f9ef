"""Typed events where the wire has no types: one JSON object an event, as NDJSON and as the answer to a long-poll.

Rules:
- An object has ``id``, ``type`` and ``data``, and ``topic`` where its reader has several.
- ``id`` is never missing: it is the cursor that continues after this line, also where the event itself has none.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streaming.events import Event

_json = msgspec.json.encode


def line(event: Event, cursor: str, topic: str = "") -> Event:
    """Return the event, whose data is JSON, as an event whose data is the whole object."""
    said = {"id": cursor, **({"topic": topic} if topic else {}), "type": event.type, "data": msgspec.Raw(event.data)}
    return Event(_json(said), id=cursor)


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

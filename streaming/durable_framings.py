"""How the Durable Streams protocol writes what a log holds: as a body, and as server-sent events (5.6, 5.8, 9).

Rules:
- A batch is one body, or one ``data`` event and the ``control`` event that says where it ends: written together, since
  the one is of no use without the other.
- JSON messages are joined into one array; other content is bytes, in base64 where an event stream could not carry it.
- A ``control`` event has its offset as ``id``: an ``EventSource`` comes back with it as Last-Event-ID.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from stores.base import Batch
from stores.errors import UnknownOffset
from streaming import durable, durable_answers
from streaming.errors import StreamFailed
from streaming.events import Event
from streaming.leases import RUN_FAILED


def body(events: Sequence[Event], content_type: str) -> bytes:
    """Return the events as one body of their stream's type (9.1.5); of none, an empty one."""
    if durable.media_type(content_type) == durable.JSON:
        return b"[" + b",".join(event.data for event in events) + b"]"
    return b"".join(event.data for event in events)


def is_binary(content_type: str) -> bool:
    """Whether an event stream carries the type in base64 only (5.8)."""
    kind = durable.media_type(content_type)
    return kind != durable.JSON and not kind.startswith("text/")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a batch is to the readers of a stream of ``content_type``: a function for ``readers.Follow``.

    Two that are equal are one to the fan-out. ``past``: the least cursor for a reader that came with one of its own,
    0 for all others. ``whole``: the reader asked for what is kept, so what was dropped before its first event is no
    loss.
    Raises UnknownOffset when retention has overtaken the reader: coming back with its offset, it is told.
    """

    content_type: str
    past: int = 0
    whole: bool = False

    def __call__(self, batch: Batch, after: str) -> Sequence[Event]:
        if batch.missed and (after or not self.whole):
            raise UnknownOffset("What comes after this offset is no longer kept.")
        if any(event.type == RUN_FAILED for event in batch.events):
            return self._until_failure(batch)
        if not batch.events:
            return (self.control(batch.tail, batch),) if batch.closed else ()
        data = body(batch.events, self.content_type)
        if is_binary(self.content_type):
            data = base64.b64encode(data)
        control = self.control(batch.events[-1].id, batch)
        return (Event(_frame("data", data) + control.data, id=control.id),)

    def _until_failure(self, batch: Batch) -> Sequence[Event]:
        """What came before a run's failure, without an end, and then the mark itself, at which the reader is cut."""
        at = [event.type for event in batch.events].index(RUN_FAILED)
        before = replace(batch, events=batch.events[:at], closed=False)
        return (*(self(before, "") if at else ()), batch.events[at])

    def control(self, offset: str, batch: Batch) -> Event:
        """Return the frame that says how far the reader is: at ``offset``, of a stream that stands as ``batch``."""
        said: dict[str, Any] = {"streamNextOffset": durable_answers.named(offset)}
        closed = batch.closed and offset == batch.tail
        if not closed:
            said["streamCursor"] = str(max(self.past, int(durable_answers.cursor(time.time()))))
        if offset == batch.tail:
            said["upToDate"] = True
        if closed:
            said["streamClosed"] = True
        if batch.missed:
            said["missed"] = batch.missed
        id = durable_answers.named(offset)
        return Event(_frame("control", msgspec.json.encode(said), id), id=id)


class Body:
    """A whole answer: written under the eye of the pump, which cuts a client that does not read."""

    error = None
    drain = None

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        self.headers: Mapping[str, str] = {}

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        return event.data

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class DurableSSE:
    """Server-sent events that ``Shown`` has made; the type has no charset, as the protocol's clients expect it.

    The protocol has no event for a failure: the connection is cut, and its client continues from the last control.
    """

    content_type = "text/event-stream"
    share = "durable-sse"
    error = None

    def __init__(self, content_type: str, retry_ms: int = 1000, drain_ms: tuple[int, int] = (100, 1000)) -> None:
        encoding = {"Stream-SSE-Data-Encoding": "base64"} if is_binary(content_type) else {}
        self.headers: Mapping[str, str] = {"Cache-Control": "no-cache, no-store, no-transform", **encoding}
        self._retry_ms = retry_ms
        self._drain_ms = drain_ms

    def open(self) -> bytes:
        return b"retry: %d\n\n" % self._retry_ms

    def encode(self, event: Event) -> bytes:
        if event.type == RUN_FAILED:
            raise StreamFailed("The run that made this stream failed.")
        return event.data

    def idle(self) -> bytes:
        return b":\n\n"

    def passed(self, id: str) -> None:
        pass

    def drain(self) -> bytes:
        return b"retry: %d\n\n" % random.randint(*self._drain_ms)

    def close(self) -> bytes:
        return b""


def _frame(type: str, data: bytes, id: str = "") -> bytes:
    # The protocol's own suite looks for "data:" without a space; a reader takes one away, so a line that begins with
    # one gets another. bytes.splitlines knows the standard's three line ends and no other, and forgets a last, empty
    # line.
    lines = data.splitlines()
    if not data or data.endswith((b"\n", b"\r")):
        lines.append(b"")
    written = b"".join((b"data: " if line.startswith(b" ") else b"data:") + line + b"\n" for line in lines)
    named = f"id: {id}\n".encode() if id else b""
    return b"event: %b\n%b%b\n" % (type.encode(), written, named)

"""What this worker is doing now: its open streams by kind, its clients, and how much it moves.

Rules:
- Nothing is counted for this on the way of a stream but two numbers that are there anyway (streaming/wire.py): it is
  sampled, once a second, and only while somebody looks.
- A sample looks at every open response, in slices: 9,000 of them hold up nobody.
- What it covers: responses that are streamed, files among them. Pages, short answers and the bodies of uploads are not.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import msgspec

from streaming.links import Links
from streaming.pace import Pace

PATH = "/api/activity"
# A write that has waited for its client for so long: the client is behind. A download is, always, and does not count.
BEHIND_S = 0.5
# The first that a path begins with is its kind.
_KINDS = (
    ("/api/events", "events"),
    ("/api/sse", "events"),
    ("/api/upload", "uploads"),
    ("/api/chat", "chat"),
    ("/v1/chat", "chat"),
    ("/v1/stream/chats/", "chat"),
    ("/v1/stream/", "streams"),
    ("/api/export", "exports"),
    ("/api/stream-json", "exports"),
    ("/api/stream", "text"),
    ("/api/transform", "transforms"),
    ("/api/download/", "files"),
    ("/api/video", "files"),
    ("/events", "events"),
    ("/chat", "chat"),
    ("/transform", "transforms"),
    (PATH, ""),  # who looks is not looked at
)
KINDS = ("text", "events", "chat", "files", "uploads", "exports", "transforms", "streams", "other")
_UNHURRIED = ("files", "exports")


class Sample(msgspec.Struct, frozen=True):
    """One moment. ``kinds``: open streams by kind, those without any left out; ``clients``: addresses.

    ``bytes_s`` and ``events_s``: a second, since the sample before. ``behind``: readers that do not take what there is.
    """

    kinds: dict[str, int]
    clients: int
    bytes_s: float
    events_s: float
    behind: int


class Sampler:
    """Takes samples of ``links``. ``caller``: the header that tells clients apart, "" for their address."""

    def __init__(self, links: Links, caller: str = "") -> None:
        self._links = links
        self._caller = f"HTTP_{caller.upper().replace('-', '_')}" if caller else "REMOTE_ADDR"
        self._bytes = self._events = 0
        self._at = 0.0

    def sample(self) -> Sample:
        """Return the moment; its rates are those since the last call, 0 at the first."""
        kinds: dict[str, int] = {}
        clients: set[str] = set()
        moved, events, behind = self._links.parked_bytes, self._links.parked_events, 0
        now, pace = time.monotonic(), Pace()
        for link in self._links:
            if not (kind := kind_of(link.environ.get("PATH_INFO", ""))):
                continue
            kinds[kind] = kinds.get(kind, 0) + 1
            clients.add(link.environ.get(self._caller, ""))
            moved, events = moved + link.sent_bytes, events + link.events
            behind += kind not in _UNHURRIED and link.waits_to_write(now, BEHIND_S)
            pace.rest()
        moved, events = moved + self._links.ended_bytes, events + self._links.ended_events
        rates = self._rates(moved, events, now)
        return Sample(kinds, len(clients), *rates, behind)

    def _rates(self, moved: int, events: int, now: float) -> tuple[float, float]:
        passed = now - self._at if self._at else 0.0
        # Never below 0: a stream that ended while the others were counted is in neither sum.
        rates = [max(0, each) / passed if passed else 0.0 for each in (moved - self._bytes, events - self._events)]
        self._bytes, self._events, self._at = moved, events, now
        return rates[0], rates[1]


@functools.lru_cache(1024)
def kind_of(path: str) -> str:
    """Return the kind of stream at a path; "" for that of this module."""
    return next((kind for prefix, kind in _KINDS if path.startswith(prefix)), "other")


def total(samples: list[Sample]) -> dict[str, Any]:
    """Return the sum of the workers' samples, as clients have it."""
    kinds = {kind: sum(each.kinds.get(kind, 0) for each in samples) for kind in KINDS}
    return {
        "workers": len(samples),
        "streams": sum(kinds.values()),
        "kinds": {kind: count for kind, count in kinds.items() if count},
        "clients": sum(each.clients for each in samples),
        "bytes_s": round(sum(each.bytes_s for each in samples)),
        "events_s": round(sum(each.events_s for each in samples), 1),
        "behind": sum(each.behind for each in samples),
    }

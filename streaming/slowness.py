"""How slowly a request body may come: the deadline without progress of those who write.

Rules:
- A byte now and then is no progress: each ``stall_s`` seconds of waiting for the client must bring ``rate`` bytes a
  second, or who feeds a body in drops would hold its place for days (CWE-400). Apache's mod_reqtimeout asks for 500.
- Only the wait for the client counts: a worker that is busy, or a transform whose reader is slow, is not its fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from settings import Settings


@dataclass(frozen=True, slots=True)
class Slowest:
    """A body may bring nothing for ``stall_s`` seconds, and at least ``rate`` bytes a second in each such while."""

    stall_s: float
    rate: int = 0

    @staticmethod
    def of(settings: Settings) -> Slowest:
        return Slowest(settings.BODY_TIMEOUT_S, settings.BODY_RATE)


class Waits:
    """How long one body has been waited for, and what that brought."""

    def __init__(self, slowest: Slowest) -> None:
        self._slowest = slowest
        self._waited_s = 0.0
        self._came = 0

    def brought(self, waited_s: float, count: int) -> bool:
        """A wait of ``waited_s`` brought so many bytes; return whether the body comes too slowly."""
        self._waited_s += waited_s
        self._came += count
        if self._waited_s < self._slowest.stall_s:
            return False
        slow = self._came < self._slowest.rate * self._waited_s
        self._waited_s, self._came = 0.0, 0
        return slow

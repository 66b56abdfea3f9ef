"""How many streams clients may have: counted now and then, and in between what this worker adds is added.

Rules:
- The number is a bound on what a store must hold, not an account: several workers may go past it by what they make
  between two counts.
- Nobody is refused before it has been counted anew; a full server counts at most every ``COUNT_S`` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stores.base import Log
from streaming.durable import HIDDEN, INTERNAL
from streaming.errors import TooManyRequests
from streaming.leases import all_paths
from streaming.pace import Pace

COUNT_S = 10.0


class Quota:
    """At most ``limit`` streams of clients in ``log``."""

    def __init__(self, log: Log, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._limit = limit
        self._clock = clock
        self._count = 0
        self._counted_at = -COUNT_S

    def enter(self, path: str) -> None:
        """Raise TooManyRequests when a stream at ``path`` would be one too many; one that is there is none more."""
        if self._full() and list(self._log.paths(path, limit=1)) != [path]:
            raise TooManyRequests(f"There are {self._limit} streams, and no more are taken.", retry_after_s=COUNT_S)

    def _full(self) -> bool:
        if self._clock() - self._counted_at >= COUNT_S * (1 if self._count >= self._limit else 6):
            self._counted_at = self._clock()
            self._count = self._counted()
        return self._count >= self._limit

    def made(self) -> None:
        self._count += 1

    def deleted(self) -> None:
        self._count -= 1

    def _counted(self) -> int:
        count, pace = 0, Pace()
        for path in all_paths(self._log, ""):
            count += not path.startswith(INTERNAL + HIDDEN)
            if count >= self._limit:
                break
            pace.rest()
        return count

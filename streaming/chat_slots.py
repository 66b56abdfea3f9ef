"""How many runs of chat there may be at once: for each caller, and in all.

Rules:
- A slot is what its run is held under (``leases``): it is given back when the run has ended, and when its worker died.
- Taken first, counted then: two callers at the bound may both be refused, never both be let in.
- Those of one caller are counted each time; all of them only where the bound may be near, or once a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stores.base import Log
from streaming.errors import TooManyRequests
from streaming.leases import SLOTS, Lease

RETRY_S = 5
COUNT_S = 1.0
_PAGE = 1000


class Slots:
    """``most`` in all and ``most_each`` for each caller, over all workers."""

    def __init__(
        self, log: Log, lease: Lease, most: int, most_each: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._lease = lease
        self._most = most
        self._most_each = most_each
        self._clock = clock
        self._counted = 0
        self._counted_at = -COUNT_S

    @contextmanager
    def holding(self, path: str, caller: str) -> Iterator[None]:
        """Hold the run at ``path`` in a slot of ``caller`` for this block. Raises TooManyRequests, StoreError."""
        with self._lease.holding(path, caller):
            if self._count(f"{SLOTS}{caller}/", self._most_each + 1) > self._most_each:
                raise _refused("runs-per-caller", self._most_each, "You have")
            if self._all() > self._most:
                raise _refused("runs", self._most, "The server has")
            yield

    def _all(self) -> int:
        """How many there are, with the one just taken."""
        self._counted += 1
        near = self._counted > self._most // 2
        if near or self._clock() - self._counted_at >= COUNT_S:
            self._counted_at = self._clock()
            self._counted = self._count(SLOTS, self._most + 1)
        return self._counted

    def _count(self, prefix: str, most: int) -> int:
        count, last = 0, ""
        while count < most and (page := self._log.paths(prefix, last, min(_PAGE, most - count))):
            count += len(page)
            last = page[-1]
        return count


def _refused(name: str, most: int, who: str) -> TooManyRequests:
    sentence = f"{who} as many answers running as may ({most}); try again in a moment."
    # draft-ietf-httpapi-ratelimit-headers-10: how many are left, and when to look again.
    fields = {"RateLimit-Policy": f'"{name}";q={most}', "RateLimit": f'"{name}";r=0;t={RETRY_S}'}
    return TooManyRequests(sentence, retry_after_s=RETRY_S, headers=fields)

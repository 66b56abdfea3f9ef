"""How many runs of chat there may be at once: for each caller, and in all.

Rules:
- A slot is what its run is held under (``leases``): it is given back when the run has ended, and when its worker died.
- Taken first, counted then: two callers at the bound may both be refused, never both be let in.
- They are counted anew where the bound may be near, and once a second; in between, what this worker adds is added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stores.base import Create, Log
from streaming.errors import TooManyRequests
from streaming.leases import SLOTS, Lease

RETRY_S = 5
COUNT_S = 1.0
_PAGE = 1000
_CALLERS = 1000


@dataclass(slots=True)
class _Tally:
    """How many slots there were below a prefix when they were counted last, and those taken here since."""

    count: int
    at: float


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
        self._tallies: dict[str, _Tally] = {}

    @contextmanager
    def holding(self, run: Create, caller: str) -> Iterator[None]:
        """Make the run and hold it in a slot of ``caller`` for this block. Raises TooManyRequests, StoreError."""
        with self._lease.holding(run.path, caller, [run]):
            if refused := self._refusal(caller):
                self._log.delete(run.path)
                raise refused
            yield

    def _refusal(self, caller: str) -> TooManyRequests | None:
        if self._beyond(f"{SLOTS}{caller}/", self._most_each):
            return _refused("runs-per-caller", self._most_each, "You have")
        if self._beyond(SLOTS, self._most):
            return _refused("runs", self._most, "The server has")
        return None

    def _beyond(self, prefix: str, most: int) -> bool:
        """Whether there are more than ``most``, with the one just taken."""
        if len(self._tallies) > _CALLERS:
            self._tallies.clear()
        tally = self._tallies.setdefault(prefix, _Tally(0, -COUNT_S))
        tally.count += 1
        if tally.count > most // 2 or self._clock() - tally.at >= COUNT_S:
            tally.count, tally.at = self._count(prefix, most + 1), self._clock()
        return tally.count > most

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

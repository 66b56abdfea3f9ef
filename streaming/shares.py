"""How much of a worker one caller may have at once: streams, uploads, exports. Counted here, in this worker.

Rules:
- A place is taken before any work is done, and given back once, however the work ends.
- Who has all of his own is told 429; where there is no place for anybody, 503. Both say when to come again.
- Without a bound nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from stores.tables import Block, Query, Rows, Snapshot
from streaming.errors import Problem, TooManyRequests, Unavailable

RETRY_S: Final = 5
Leave = Callable[[], None]


def nothing() -> None:
    """What is to be done where nothing was taken."""


class Shares:
    """At most ``most`` of ``what`` at once, and ``most_each`` of each caller; 0: no bound."""

    def __init__(self, what: str, most: int, most_each: int) -> None:
        self._what = what
        self._most = most
        self._most_each = most_each
        self._count = 0
        self._each: dict[str, int] = {}

    @property
    def bounded(self) -> bool:
        return bool(self._most or self._most_each)

    def enter(self, caller: str) -> Leave:
        """Take a place, and return how it is given back, once or often. Raises TooManyRequests, Unavailable."""
        if not self.bounded:
            return nothing
        if self._most and self._count >= self._most:
            sentence = f"The server has as many {self._what} as it takes ({self._most}); try again in a moment."
            raise _refused(Unavailable, self._what, self._most, sentence)
        if self._most_each and self._each.get(caller, 0) >= self._most_each:
            sentence = f"You have as many {self._what} as you may ({self._most_each}); try again in a moment."
            raise _refused(TooManyRequests, f"{self._what}-per-caller", self._most_each, sentence)
        self._count += 1
        self._each[caller] = self._each.get(caller, 0) + 1
        return _Place(self, caller).leave

    def left(self, caller: str) -> None:
        """A place was given back."""
        self._count -= 1
        self._each[caller] -= 1
        if not self._each[caller]:
            del self._each[caller]


class _Place:
    def __init__(self, shares: Shares, caller: str) -> None:
        self._shares: Shares | None = shares
        self._caller = caller

    def leave(self) -> None:
        shares, self._shares = self._shares, None
        if shares is not None:
            shares.left(self._caller)


def _refused(kind: type[Problem], name: str, most: int, sentence: str) -> Problem:
    return kind(sentence, retry_after_s=RETRY_S, headers=fields(name, most, RETRY_S))


def fields(name: str, most: int, left_s: float, window_s: float = 0) -> dict[str, str]:
    """Return what says that nothing is left of a quota, and when there is again.

    As of draft-ietf-httpapi-ratelimit-headers-10.
    """
    window = f";w={window_s:.0f}" if window_s else ""
    return {"RateLimit-Policy": f'"{name}";q={most}{window}', "RateLimit": f'"{name}";r=0;t={left_s:.0f}'}


class CountedSnapshot:
    """A snapshot whose place is given back when it is closed."""

    def __init__(self, snapshot: Snapshot, leave: Leave) -> None:
        self.name = snapshot.name
        self._snapshot = snapshot
        self._leave = leave

    def rows(self, query: Query, form: Rows, last: bool = True) -> Iterator[Block | None]:
        return self._snapshot.rows(query, form, last)

    def close(self) -> None:
        self._leave()
        self._snapshot.close()

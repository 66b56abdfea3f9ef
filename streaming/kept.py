"""How many logs that a caller made are still kept, in all workers: streams, topics, durable runs.

Rules:
- Beside what a caller makes, a mark is kept below ``kept/<caller>/``; they are counted in the store, so that all
  workers count the same. Without a bound there are no marks.
- Marked first, counted then: two requests at the bound may both be refused, never both be let in.
- What has been deleted or has expired counts no more: at its bound, a caller's marks are looked through, at most every
  ``LOOK_S`` seconds; everybody's once in an hour.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import msgspec

from stores.base import START, Config, Log
from stores.errors import NoStream, StoreError, StreamGone
from streaming import topics
from streaming.errors import TooManyRequests
from streaming.events import json_event
from streaming.leases import all_paths
from streaming.pace import Pace
from streaming.shares import fields

log = logging.getLogger("perennial.limits")

KEPT = "kept/"
LOOK_S = 10.0
SWEEP_S = 3600.0
# So long what is marked may take to be made.
_MAKING_S = 60.0
_CONFIG = Config("application/json")
_TOPICS = topics.path("")
_REMEMBERED = 10_000


class Kept:
    """At most ``most_each`` streams of each caller in ``store``; 0: no bound."""

    def __init__(self, store: Log, most_each: int, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._most_each = most_each
        self._clock = clock
        self._looked_at: dict[str, float] = {}
        self._topics: set[str] = set()
        self._swept_at = clock()

    @contextmanager
    def making(self, caller: str, path: str) -> Iterator[None]:
        """Make the stream in this block, if it is not there already. Raises TooManyRequests, StoreError."""
        if not self._most_each or self._is_there(path):
            yield
            return
        below = _below(caller)
        mark = below + path
        first = self._mark(mark)
        try:
            if self._full(below):
                raise self._refused()
            yield
        except BaseException:
            if first:
                self._unmark_unmade(mark)
            raise
        if not first:  # whoever was may have failed meanwhile, and have taken the mark along
            with suppress(StoreError):
                self._mark(mark)

    def deleted(self, caller: str, path: str) -> None:
        """The caller has deleted the stream; if it was another one's, that one's mark is found to be beside nothing."""
        if self._most_each:
            self._unmark(_below(caller) + path)

    def sweep(self) -> None:
        """Once in an hour: forget the marks of what is gone. Raises StoreError."""
        if self._most_each and self._clock() - self._swept_at >= SWEEP_S:
            self._swept_at = self._clock()
            self._look_through(KEPT)

    def _is_there(self, path: str) -> bool:
        if path in self._topics:
            return True
        if not self._exists(path):
            return False
        if path.startswith(_TOPICS):  # nobody deletes them, and they are published to often
            if len(self._topics) >= _REMEMBERED:
                self._topics.clear()
            self._topics.add(path)
        return True

    def _exists(self, path: str) -> bool:
        try:
            self._store.state(path)
        except StreamGone:
            return True
        except NoStream:
            return False
        return True

    def _full(self, below: str) -> bool:
        if self._count(below) <= self._most_each:
            return False
        if self._clock() - self._looked_at.get(below, 0.0) < LOOK_S:
            return True
        if len(self._looked_at) >= _REMEMBERED:
            self._looked_at.clear()
        self._looked_at[below] = self._clock()
        self._look_through(below)
        return self._count(below) > self._most_each

    def _count(self, below: str) -> int:
        return sum(1 for _ in islice(all_paths(self._store, below), self._most_each + 1))

    def _look_through(self, below: str) -> None:
        pace = Pace()
        for mark in all_paths(self._store, below):
            if self._is_gone(mark):
                self._unmark(mark)
            pace.rest()

    def _is_gone(self, mark: str) -> bool:
        """Whether there is nothing any more that the mark is beside, and not only nothing yet."""
        if self._exists(_beside(mark)):
            return False
        made = self._store.read(mark, START).events
        return bool(made) and self._clock() - msgspec.json.decode(made[0].data, type=float) > _MAKING_S

    def _mark(self, mark: str) -> bool:
        """Whether it was not there."""
        return self._store.create(mark, _CONFIG, [json_event(self._clock())]).created

    def _unmark_unmade(self, mark: str) -> None:
        """Unless the stream is there by now: another request for it, at the same time, may have made it."""
        with suppress(StoreError):
            if not self._exists(_beside(mark)):
                self._unmark(mark)

    def _unmark(self, mark: str) -> None:
        with suppress(StoreError):  # then it is found to be beside nothing
            self._store.delete(mark)

    def _refused(self) -> TooManyRequests:
        sentence = f"You keep as many streams as you may ({self._most_each}): delete some, or let them expire."
        headers = fields("kept-streams-per-caller", self._most_each, LOOK_S)
        return TooManyRequests(sentence, retry_after_s=LOOK_S, headers=headers)


def _below(caller: str) -> str:
    return f"{KEPT}{hashlib.sha256(caller.encode()).hexdigest()[:16]}/"


def _beside(mark: str) -> str:
    """Return the path of the stream that the mark is beside."""
    return mark.removeprefix(KEPT).partition("/")[2]

"""Sources that read a stream of the log: one path for replay and live, "what is after N, or wait".

Rules:
- A reader whose next events are gone is told with ``stream-reset`` before it goes on; a history is never hidden.
- A store that does not answer is waited for: its reader has lost nothing but time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence

from stores.base import Batch, Log
from stores.errors import StoreBusy, StoreError
from streaming.accounts import tally
from streaming.events import TICK_S, Event, Source, json_event, pause

BUSY_S = 1.0
# At a time. Some readers have nothing of a batch before they have all of it: one whose connections never last for a MiB
# must get on, too.
READ_BYTES = 128 * 1024

# What is yielded of a batch that was read after an offset. Two readers may share the work of one whose function it is.
Shown = Callable[[Batch, str], Sequence[Event]]


def told(batch: Batch, after: str) -> Sequence[Event]:
    """The batch's events; before them, to a reader that had a cursor, how many before them are gone."""
    if not (batch.missed and after):
        return batch.events
    tally.resets += 1
    first = batch.events[0].id if batch.events else batch.tail
    return [json_event({"asked": after, "from": first, "missed": batch.missed}, "stream-reset"), *batch.events]


class Follow:
    """All that comes after ``after`` until the stream is closed: a source; after ``first``, what ``shown`` makes of it.

    ``greets``: there is a ``first``, which waits for nothing and can leave together with the headers.
    ``after`` is how far it has read, ``read_at`` when (time.monotonic). While ``caught_up`` it waits for more, and may
    be moved by ``skip`` to where somebody else has read for it (streaming/fanout.py). It ends at ``ends_at``
    (time.monotonic) when it waits then, and where the log raises one of ``ends_with``.
    """

    def __init__(
        self,
        log: Log,
        path: str,
        after: str,
        first: Sequence[Event] = (),
        shown: Shown = told,
        ends_at: float = math.inf,
        ends_with: tuple[type[StoreError], ...] = (),
    ) -> None:
        self.log = log
        self.path = path
        self.after = after
        self.shown = shown
        self.ends_at = ends_at
        self._ends_with = ends_with
        self.caught_up = False
        self.read_at = time.monotonic()
        self.greets = bool(first)
        self._source: Generator[Event | None] = self._read(first)

    def __iter__(self) -> Follow:
        return self

    def __next__(self) -> Event | None:
        try:
            return next(self._source)
        except self._ends_with:
            raise StopIteration from None

    def close(self) -> None:
        self._source.close()

    def skip(self, after: str) -> None:
        self.after = after

    def _read(self, first: Sequence[Event]) -> Generator[Event | None]:
        yield from first
        first = ()  # not kept for as long as the reader stays
        while True:
            try:
                batch = self.log.read(self.path, self.after, limit_bytes=READ_BYTES)
            except StoreBusy:
                yield from pause(BUSY_S)
                continue
            self.read_at = time.monotonic()
            yield from self.shown(batch, self.after)
            # Age can drop what no event has followed: then the end is where it goes on.
            self.after = batch.events[-1].id if batch.events else batch.tail
            if self.after == batch.tail:
                if batch.closed:
                    return
                yield from self._wait()
                if time.monotonic() >= self.ends_at:
                    return

    def _wait(self) -> Iterator[None]:
        self.caught_up = True
        try:
            yield None
            while time.monotonic() < self.ends_at and not self._more():
                yield None
        finally:
            self.caught_up = False

    def _more(self) -> bool:
        try:
            return self.log.wait(self.path, self.after, TICK_S)
        except StoreBusy:
            return True


def replay(log: Log, path: str, after: str, until: str) -> Source:
    """Yield what comes after ``after``, up to and with the offset ``until``, which the log holds already."""
    while after < until:
        try:
            batch = log.read(path, after)
        except StoreBusy:
            yield from pause(BUSY_S)
            continue
        for event in told(batch, after):
            if event.id > until:
                return
            yield event
        after = batch.events[-1].id if batch.events else until

"""Sources that read a log: one path for replay and live, "what is after N, or wait".

Rules:
- A reader whose next events are gone is told with ``stream-reset`` before it goes on; a history is never hidden.
"""

from __future__ import annotations

from collections.abc import Iterator

from stores.base import Batch, Log
from streaming.events import TICK_S, Event, Source, json_event


def follow(log: Log, path: str, after: str) -> Source:
    """Yield all that comes after ``after`` until the log is closed."""
    while True:
        batch = log.read(path, after)
        yield from _told(batch, after)
        if batch.events:
            after = batch.events[-1].id
        if after == batch.tail:
            if batch.closed:
                return
            yield None
            while not log.wait(path, after, TICK_S):
                yield None


def replay(log: Log, path: str, after: str, until: str) -> Source:
    """Yield what comes after ``after``, up to and with the offset ``until``, which the log holds already."""
    while after < until:
        batch = log.read(path, after)
        for event in _told(batch, after):
            if event.id > until:
                return
            yield event
        after = batch.events[-1].id if batch.events else until


def _told(batch: Batch, after: str) -> Iterator[Event]:
    """Yield the batch's events; before them, to a reader that had a cursor, how many before them are gone."""
    if batch.missed and after:
        yield json_event({"asked": after, "from": batch.events[0].id, "missed": batch.missed}, "stream-reset")
    yield from batch.events

"""Reading a stream by the Durable Streams protocol: what there is, what comes next (5.6 to 5.8), and what is lost.

Rules:
- A reader waits in ticks under a watched connection: one that has gone is noticed while nothing happens.
- A reader that waits keeps a stream with a sliding lifetime alive (5.1).
- What retention has dropped is a 410 to a reader that asks for it; who asks for the beginning gets what is kept.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from stores.base import Batch, Log, State
from stores.errors import NoStream, StreamGone, UnknownOffset
from streaming import durable_answers, wire
from streaming.durable import Place
from streaming.durable_framings import Shown
from streaming.errors import ClientLeft, Gone
from streaming.events import TICK_S, Source
from streaming.leases import RUN_FAILED, RUNS
from streaming.readers import READ_BYTES, Follow

READ_EVENTS = 5000
# 5.8 and 10.2: about a minute, and not the same minute for everybody.
LIFETIME_S = (50.0, 70.0)


def read(log: Log, path: str, place: Place, state: State, limit: int = READ_EVENTS) -> Batch:
    """Return what follows ``place``, as much as an answer has. Raises Gone when some of that is no longer kept."""
    after = state.tail if place.now else place.offset
    # Nothing new is asked for at "now", but it is a read: a sliding lifetime begins anew.
    batch = log.read(path, after, 0 if place.now else limit, READ_BYTES)
    if batch.missed and not place.whole:
        raise Gone(f"{batch.missed} of what came after this offset is no longer kept.", parameter="offset")
    return _until_failure(batch) if path.startswith(RUNS) else batch


def _until_failure(batch: Batch) -> Batch:
    """Return the batch without the mark of a run that failed, and without its end: a failed run is never whole.

    Raises Gone where there is nothing before the mark: nothing more will come, and the sentence says why.
    """
    for number, event in enumerate(batch.events):
        if event.type == RUN_FAILED:
            if number == 0:
                raise Gone(msgspec.json.decode(event.data)["error"])
            return replace(batch, events=batch.events[:number], closed=False)
    return batch


def poll(log: Log, path: str, place: Place, state: State, wait_s: float, environ: Mapping[str, Any]) -> Batch:
    """Return what follows ``place``, or the end; wait for it up to ``wait_s`` seconds, then return an empty batch.

    A worker that drains waits no longer. Raises Gone, ClientLeft, and NoStream for a stream deleted meanwhile.
    """
    place = Place(state.tail if place.now else place.offset, whole=place.whole)
    batch = read(log, path, place, state)
    if batch.events or batch.closed:
        return batch
    link = wire.Link(environ, drainable=True)
    coming = _coming(log, path, place, state, wait_s)
    try:
        while (item := link.pull(coming)) is not wire.END:
            batch = item if isinstance(item, Batch) else batch
        return batch
    except wire.Interrupted:
        if link.gone:
            raise ClientLeft("The client left before there was an answer.") from None
        return batch  # also where its token has expired: the next request is told so
    finally:
        link.close()


def _coming(log: Log, path: str, place: Place, state: State, wait_s: float) -> Iterator[Batch | None]:
    """Yield what comes after ``place`` when there is something, or the end; None at every tick until then."""
    touch = _Touch(log, path, state.config.ttl_s)
    deadline = time.monotonic() + wait_s
    while (left := deadline - time.monotonic()) > 0:
        if log.wait(path, place.offset, min(TICK_S, left)):
            batch = read(log, path, place, log.state(path))
            yield batch
            if batch.events or batch.closed:
                return
        else:
            touch(place.offset)
            yield None


class _Touch:
    """Keeps a stream that expires ``ttl_s`` seconds after its last read from doing so while somebody waits."""

    def __init__(self, log: Log, path: str, ttl_s: float | None) -> None:
        self._log = log
        self._path = path
        self._every_s = None if ttl_s is None else ttl_s / 3
        self._at = time.monotonic()

    def __call__(self, after: str) -> None:
        if self._every_s is not None and time.monotonic() - self._at >= self._every_s:
            self._log.read(self._path, after, 0)
            self._at = time.monotonic()


def live(log: Log, path: str, place: Place, state: State, asked: str) -> Source:
    """Return the source of what follows ``place``: ``data`` and ``control``, to the stream's end or for a minute.

    ``asked``: the cursor that the reader came with. It ends, too, when the stream is deleted or the reader is
    overtaken by retention: the reader comes back, and is told.
    """
    after = state.tail if place.now else place.offset
    ahead = durable_answers.cursor(time.time(), asked)
    past = 0 if ahead == durable_answers.cursor(time.time()) else int(ahead)
    shown = Shown(state.config.content_type, past, place.whole and bool(state.tail))
    standing = Batch((), 0, state.tail, state.closed, state.total)
    first = [shown.control(after, standing)] if after == state.tail and not state.closed else []
    ends_at = time.monotonic() + random.uniform(*LIFETIME_S)
    source = Follow(log, path, after, first, shown, ends_at, (NoStream, StreamGone, UnknownOffset))
    return source if state.config.ttl_s is None else _kept_alive(source, _Touch(log, path, state.config.ttl_s))


def _kept_alive(source: Follow, touch: _Touch) -> Source:
    """Yield what ``source`` does; a reader that waits keeps a stream with a sliding lifetime alive (5.1)."""
    try:
        for event in source:
            yield event
            if event is None:
                touch(source.after)
    finally:
        source.close()

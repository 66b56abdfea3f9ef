"""Several topics on one connection: their events as they come, with one cursor for all of them.

Rules:
- A topic is a stream of the log. Events of different topics have no order but that in which this reader sees them.
- After every event the cursor continues each topic exactly; what a cursor asked for and cannot have is told with
  ``stream-reset``, before anything else of that topic.
- A topic whose place is not known goes on at its end: nothing is sent twice to a reader that did not ask for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec

from stores.base import START, Batch, Log
from stores.errors import StoreBusy, UnknownOffset
from streaming import positions, watches
from streaming.accounts import tally
from streaming.event_lines import line
from streaming.events import TICK_S, Event, Source, json_event, pause
from streaming.readers import BUSY_S, Follow, replay, told

POLL_EVENTS = 1000

# An event, the cursor after it and its topic ("" where there is one only), as it is written.
Shape = Callable[[Event, str, str], Event]


def path(topic: str) -> str:
    """Return where the log keeps the topic."""
    return f"notifications/{topic}"


def frame(event: Event, cursor: str, topic: str) -> Event:
    """The event for a wire that has types and ids: an event without an id moves no cursor."""
    return Event(event.data, event.type, cursor if event.id else "")


def lines(batch: Batch, after: str) -> Sequence[Event]:
    """What ``readers.told`` says of one topic, as lines."""
    return [line(event, event.id or after) for event in told(batch, after)]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins: the offset of each topic, what it ``asked`` for, and what it must be told of that.

    ``complete``: it has read everything, and was told so. ``ended``: nothing will ever come after it.
    """

    offsets: dict[str, str]
    asked: str = ""
    resets: tuple[dict[str, object], ...] = ()
    complete: bool = False
    ended: bool = False

    @property
    def cursor(self) -> str:
        """The cursor that the reader has now; it is not moved before the reader has been told."""
        return self.asked if self.resets else positions.write(self.offsets)


def begin_at(log: Log, topics: Sequence[str], cursor: str) -> Start:
    """Return the start after ``cursor``, which may be anything; empty: the beginning of every topic."""
    asked = positions.read(cursor, topics)
    offsets, resets, ended = {}, [], True
    for topic in topics:
        offset = asked.offsets.get(topic)
        try:
            if offset is None:
                raise UnknownOffset
            end = log.read(path(topic), offset, limit=0)
        except UnknownOffset:
            end = log.read(path(topic), START, limit=0)
            offset = end.tail
            named = asked.offsets.get(topic) if len(topics) > 1 else cursor
            resets.append(_reset(topics, topic, named, offset))
        offsets[topic] = offset
        ended = ended and end.closed and end.tail == offset
    if asked.unknown and not resets:
        resets.append({"asked": ",".join(asked.unknown), "from": positions.write(offsets), "missed": None})
    return Start(offsets, cursor, tuple(resets), asked.complete, ended and not resets)


def _reset(topics: Sequence[str], topic: str, asked: str | None, offset: str) -> dict[str, object]:
    told: dict[str, object] = {"asked": asked, "from": offset, "missed": None}
    return {"topic": topic, **told} if len(topics) > 1 else told


def begin_since(log: Log, topics: Sequence[str], time_s: float) -> Start:
    """Return the start before what was published at ``time_s`` (seconds since 1970) or later."""
    offsets = {topic: log.since(path(topic), time_s) for topic in topics}
    ends = [(log.read(path(topic), offset, limit=0), offset) for topic, offset in offsets.items()]
    return Start(offsets, ended=all(end.closed and end.tail == offset for end, offset in ends))


class Reader:
    """One reader of the topics in ``start``; each of its sources may be used once."""

    def __init__(self, log: Log, start: Start, shape: Shape) -> None:
        self._log = log
        self._start = start
        self._shape = shape
        self._offsets = dict(start.offsets)

    def stored(self) -> Source:
        """Yield ``connected``, what the topics hold now after the start, and ``complete``."""
        now = {topic: self._log.read(path(topic), START, limit=0) for topic in self._offsets}
        yield from self._greeting()
        for topic, batch in now.items():
            for event in replay(self._log, path(topic), self._offsets[topic], batch.tail):
                yield event and self._shown(event, topic)
            self._offsets[topic] = batch.tail
        total = sum(batch.total for batch in now.values())
        cursor = positions.write_complete(self._offsets)
        yield self._shape(json_event({"total": total}, "complete", cursor), cursor, "")

    def follow(self) -> Source:
        """Return ``connected`` and all that comes after the start, until every topic is closed."""
        if len(self._offsets) > 1:
            return self._follow(self._greeting())
        return self._follow_one(list(self._greeting()))

    def poll(self, wait_s: float) -> Source:
        """Yield what there is after the start; while there is nothing, wait for it, at most ``wait_s`` seconds."""
        deadline = time.monotonic() + wait_s
        count = 0
        with closing(self._follow(self._resets())) as source:
            for item in source:
                if item is None and (count or time.monotonic() >= deadline):
                    return
                yield item
                count += item is not None
                if count >= POLL_EVENTS:
                    return

    def _follow_one(self, first: Sequence[Event]) -> Follow:
        """By a source that can be parked at the end of its stream (streaming/fanout.py)."""
        ((topic, offset),) = self._offsets.items()
        return Follow(self._log, path(topic), offset, first, told if self._shape is frame else lines)

    def _follow(self, first: Iterator[Event]) -> Generator[Event | None, None, None]:
        following = {path(topic): topic for topic in self._offsets}
        with watches.watch(self._log, list(following)) as bell:
            yield from first
            while following:
                for each in sorted(bell.take() & following.keys()):
                    batch = yield from self._batch(following[each])
                    if batch is None or self._offsets[following[each]] != batch.tail:
                        bell.ring(each)
                    elif batch.closed:
                        del following[each]
                if following:
                    yield None
                    while not bell.wait(TICK_S):
                        yield None

    def _batch(self, topic: str) -> Generator[Event | None, None, Batch | None]:
        """Yield the next events of the topic, and return the batch they are from; None: the store does not answer."""
        after = self._offsets[topic]
        try:
            batch = self._log.read(path(topic), after)
        except StoreBusy:
            yield from pause(BUSY_S)
            return None
        if not batch.events:  # what was missed may be all there was
            self._offsets[topic] = batch.tail
        for event in told(batch, after):
            yield self._shown(event, topic)
        return batch

    def _greeting(self) -> Iterator[Event]:
        yield self._shape(json_event({"status": "ok"}, "connected"), self._start.cursor, "")
        yield from self._resets()

    def _resets(self) -> Iterator[Event]:
        """What is told before all else; the last of it moves the reader's cursor."""
        tally.resets += bool(self._start.resets)
        for reset in self._start.resets:
            last = reset is self._start.resets[-1]
            cursor = positions.write(self._offsets) if last else self._start.asked
            yield self._shape(json_event(reset, "stream-reset", cursor if last else ""), cursor, "")

    def _shown(self, event: Event, topic: str) -> Event:
        named = topic if len(self._offsets) > 1 else ""
        if event.id:
            self._offsets[topic] = event.id
        elif named:  # a stream-reset, which speaks of one topic of several
            event = json_event({"topic": topic, **msgspec.json.decode(event.data)}, event.type)
        return self._shape(event, positions.write(self._offsets, topic if event.id else ""), named)

"""One stream in the memory of the process, and its place in a chain of forks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stores import lifetimes, offsets, producers
from stores.base import Config, State
from stores.lifetimes import Place
from stores.producers import Asked, Keyed, Mark, Standing
from streaming.events import Event


@dataclass(slots=True)
class Stream:
    """One stream. ``events`` are its own, from number ``base`` + ``gone`` + 1 on, each with its place.

    ``first``: the number of the first event that it keeps; ``end``: its bytes up to the tail; ``forks``: how many
    streams have this one as their ``source``; ``deleted``: only they know it any more.
    """

    path: str
    config: Config
    asked: Config
    source: Stream | None = None
    base: int = 0
    first: int = 1
    end: int = 0
    time_s: float = 0
    touched: float = 0
    life: str = field(default_factory=offsets.new_life)
    events: list[tuple[Event, Place]] = field(default_factory=list)
    gone: int = 0
    closed: bool = False
    deleted: bool = False
    forks: int = 0
    seq: str = ""
    marks: dict[str, Mark] = field(default_factory=dict)
    keys: dict[str, Keyed] = field(default_factory=dict)

    @property
    def tail(self) -> int:
        return self.base + self.gone + len(self.events)

    @property
    def chain(self) -> list[offsets.Segment]:
        return offsets.segments(self._links(), self.tail)

    def _links(self) -> Iterator[offsets.Link]:
        stream: Stream | None = self
        while stream:
            yield offsets.Link(0, stream.life, stream.base)
            stream = stream.source

    def event(self, number: int) -> tuple[Event, Place]:
        stream = self
        while number <= stream.base and stream.source:
            stream = stream.source
        return stream.events[number - stream.base - stream.gone - 1]

    def place(self, number: int) -> Place:
        return self.event(number)[1]

    def add(self, events: Sequence[Event], now: float) -> None:
        self.time_s = max(now, self.time_s)
        for number, event in enumerate(events, self.tail + 1):
            kept = Event(event.data, event.type, offsets.write(number, self.life))
            self.events.append((kept, Place(self.time_s, self.end)))
            self.end += len(event.data)

    def standing(self, asked: Asked) -> Standing:
        mark = self.marks.get(asked.producer.id) if asked.producer else None
        tail = offsets.of_number(self.tail, self.chain)
        return Standing(tail, self.closed, self.config.content_type, self.seq, mark, self.keys.get(asked.key))

    def mark(self, asked: Asked) -> None:
        """Remember what makes a retry of this append known, before its events are added."""
        last = self.tail + len(asked.events)
        if asked.producer:
            self.marks[asked.producer.id] = Mark(asked.producer.epoch, asked.producer.seq, last)
        if asked.key:
            self.keys[asked.key] = Keyed(self.tail + 1, last, producers.content(asked.events))
        self.seq = asked.seq or self.seq

    def retain(self, now: float) -> None:
        """Drop what retention does not keep, and the keys whose events are no longer whole."""
        self.first = lifetimes.first_kept(self.config, now, self.first, self.tail, self.end, self.place)
        if not self.forks and self.first > self.base + self.gone + 1:
            del self.events[: self.first - self.base - self.gone - 1]
            self.gone = self.first - self.base - 1
        while self.keys and self.keys[oldest := next(iter(self.keys))].first < self.first:
            del self.keys[oldest]

    def state(self, created: bool = False) -> State:
        tail = offsets.of_number(self.tail, self.chain)
        return State(self.config, tail, self.closed, self.tail - self.first + 1, created)

    def expired(self, now: float) -> bool:
        time_s = lifetimes.expires(self.config, self.touched)
        return time_s is not None and now >= time_s

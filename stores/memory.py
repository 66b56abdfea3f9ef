"""A log in the memory of one process: for tests, and for one worker whose streams may end with it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from stores import offsets
from stores.base import Batch, KeyReused, LogClosed
from stores.bells import Bells
from streaming.events import Event


@dataclass(frozen=True, slots=True)
class _Keyed:
    """What came with an idempotency key: the number of its first event, its offset, and each type and data."""

    first: int
    offset: str
    content: list[tuple[str, bytes]]


@dataclass(slots=True)
class _Kept:
    """One log. ``events`` are the newest of ``tail`` events; the number of the first is ``tail - len(events) + 1``."""

    life: str = field(default_factory=offsets.new_life)
    events: deque[Event] = field(default_factory=deque)
    tail: int = 0
    closed: bool = False
    keys: dict[str, _Keyed] = field(default_factory=dict)
    touched: float = field(default_factory=time.time)


def _drop(kept: _Kept, keep: int) -> None:
    """Drop the oldest events beyond ``keep``, and the keys whose events are no longer whole."""
    while len(kept.events) > keep:
        kept.events.popleft()
    gone = kept.tail - len(kept.events)
    while kept.keys and kept.keys[oldest := next(iter(kept.keys))].first <= gone:
        del kept.keys[oldest]


class MemoryLog:
    """``stores.base.Log``, kept nowhere."""

    def __init__(self) -> None:
        self._logs: dict[str, _Kept] = {}
        self._bells = Bells()

    def append(self, path: str, events: Sequence[Event], *, key: str = "", keep: int = 0) -> str:
        kept = self._logs.setdefault(path, _Kept())
        content = [(event.type, event.data) for event in events]
        if key and (earlier := kept.keys.get(key)):
            if earlier.content != content:
                raise KeyReused("This idempotency key came before with another body.")
            return earlier.offset
        if kept.closed:
            raise LogClosed("This log is closed.")
        first = kept.tail + 1
        for event in events:
            kept.tail += 1
            kept.events.append(Event(event.data, event.type, offsets.write(kept.tail, kept.life)))
        offset = offsets.write(kept.tail, kept.life)
        if key:
            kept.keys[key] = _Keyed(first, offset, content)
        if keep:
            _drop(kept, keep)
        self._touch(path, kept)
        return offset

    def read(self, path: str, after: str, limit: int = 1000) -> Batch:
        kept = self._logs.get(path) or _Kept(life="none")
        number = offsets.read(after, kept.life, kept.tail)
        gone = kept.tail - len(kept.events)
        start = max(number - gone, 0)
        events = tuple(islice(kept.events, start, start + limit))
        missed = max(gone - number, 0)
        return Batch(
            events, missed, offsets.write(kept.tail, kept.life) if kept.tail else "", kept.closed, len(kept.events)
        )

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        return self._bells.wait(path, lambda: self._ready(path, after), timeout_s)

    def close(self, path: str) -> None:
        kept = self._logs.setdefault(path, _Kept())
        kept.closed = True
        self._touch(path, kept)

    def delete(self, path: str) -> None:
        self._logs.pop(path, None)
        self._bells.ring(path)

    def expire(self, prefix: str, age_s: float) -> int:
        limit = time.time() - age_s
        old = [path for path, kept in self._logs.items() if path.startswith(prefix) and kept.touched <= limit]
        for path in old:
            self.delete(path)
        return len(old)

    def ping(self) -> None:
        pass

    def dispose(self) -> None:
        self._bells.ring_all()

    def _ready(self, path: str, after: str) -> bool:
        kept = self._logs.get(path)
        return kept is not None and (kept.closed or (offsets.write(kept.tail, kept.life) if kept.tail else "") != after)

    def _touch(self, path: str, kept: _Kept) -> None:
        kept.touched = time.time()
        self._bells.ring(path)

"""Appends to many streams in a few statements, within one write of the group commit: what a worker's runs of chat are.

Rules:
- What a producer's last append left is remembered, and is a guess and no more: the statements name all that it was
  taken from. Where one of them finds something else, none has happened, and each append goes the ordinary way.
- Remembered are only streams of which an append needs to know nothing else: no retention, no end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stores import lifetimes
from stores.base import Append, Config, Producer
from stores.errors import StoreError
from stores.producers import Asked
from stores.sqlite_rows import Found
from stores.sqlite_streams import Streams

_MOST = 4096
_STREAM = (
    "UPDATE streams SET tail = ?, end = ?, time_s = ?, touched = ?, expires = ?, closed = ?, changes = ?"
    " WHERE id = ? AND tail = ? AND end = ? AND NOT closed AND NOT deleted"
)
_PRODUCER = "UPDATE producers SET seq = ?, number = ? WHERE stream = ? AND id = ? AND epoch = ? AND seq = ?"
_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)"
_Event = tuple[int, int, float, int, str, bytes]


class _Left(NamedTuple):
    """A stream as the last append of ``producer`` left it."""

    stream: int
    config: Config
    producer: Producer
    tail: int
    end: int
    time_s: float
    expires: float | None


class Batches:
    """The writes on ``db``, which is that of ``streams``; ``clock``: seconds since 1970."""

    def __init__(self, db: sqlite3.Connection, streams: Streams, clock: Callable[[], float]) -> None:
        self._db = db
        self._streams = streams
        self._clock = clock
        self._left: dict[str, _Left] = {}

    def append(self, appends: Sequence[Append]) -> list[StoreError | None]:
        """Return what each was refused with. Raises sqlite3.Error."""
        if len(self._left) > _MOST:
            self._left.clear()
        now = self._clock()
        guesses = [self._guess(append, now) for append in appends]
        guessed = [(append, left) for append, left in zip(appends, guesses, strict=True) if left]
        if guessed and not self._add(guessed, now):
            guesses = [None] * len(appends)
        return [None if left else self._append(append) for append, left in zip(appends, guesses, strict=True)]

    def _guess(self, append: Append, now: float) -> _Left | None:
        """Return how the append will find its stream, if that is known."""
        left, producer = self._left.pop(append.path, None), append.producer
        if left is None or producer is None or (left.expires is not None and left.expires <= now):
            return None
        last = left.producer
        follows = (producer.id, producer.epoch, producer.seq) == (last.id, last.epoch, last.seq + 1)
        return left if follows else None

    def _add(self, guessed: Sequence[tuple[Append, _Left]], now: float) -> bool:
        """Add them all, if all are as they were guessed; whether they are."""
        change = self._streams.draw()  # before the savepoint: what is drawn stays drawn
        events: list[_Event] = []
        pairs = [(append, left, _after(append, left, now, events)) for append, left in guessed]
        streams = [
            (new.tail, new.end, new.time_s, now, new.expires, append.close, change, left.stream, left.tail, left.end)
            for append, left, new in pairs
        ]
        marks = [
            (new.producer.seq, new.tail, left.stream, left.producer.id, left.producer.epoch, left.producer.seq)
            for _, left, new in pairs
        ]
        self._db.execute("SAVEPOINT guessed")
        right = all(
            self._db.executemany(statement, rows).rowcount == len(guessed)
            for statement, rows in ((_STREAM, streams), (_PRODUCER, marks))
        )
        if right:
            self._db.executemany(_EVENT, events)
            self._left.update({append.path: new for append, _, new in pairs if not append.close})
        else:
            self._db.execute("ROLLBACK TO guessed")
        self._db.execute("RELEASE guessed")
        return right

    def _append(self, append: Append) -> StoreError | None:
        """The ordinary way, under a savepoint of its own."""
        self._db.execute("SAVEPOINT one")
        refused: StoreError | None = None
        try:
            asked = Asked(append.events, producer=append.producer, close=append.close)
            appended, stream = self._streams.added(append.path, None, asked)
            if append.producer and not appended.duplicate:
                self._remember(append.path, append.producer, stream)
        except StoreError as error:
            refused = error
            self._db.execute("ROLLBACK TO one")
            self._streams.begin()
        self._db.execute("RELEASE one")
        return refused

    def _remember(self, path: str, producer: Producer, stream: Found) -> None:
        row, config = stream.row, stream.config
        if not (row.closed or config.keep_events or config.keep_bytes or config.keep_s):
            self._left[path] = _Left(row.id, config, producer, row.tail, row.end, row.time_s, row.expires)


def _after(append: Append, left: _Left, now: float, rows: list[_Event]) -> _Left:
    """Return how the append leaves its stream, and add the rows of its events."""
    time_s, number, end = max(now, left.time_s), left.tail, left.end
    for event in append.events:
        number += 1
        rows.append((left.stream, number, time_s, end, event.type, event.data))
        end += len(event.data)
    producer = append.producer or left.producer
    return _Left(left.stream, left.config, producer, number, end, time_s, lifetimes.expires(left.config, now))

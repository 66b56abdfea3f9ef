"""Appends to many streams in a few statements, within one write of the group commit: what a worker's runs of chat are.

Rules:
- What a producer's last append left is remembered, and is a guess and no more: the statements name all that it was
  taken from. Where one of them finds something else, none has happened, and each append goes the ordinary way.
- Remembered are only streams of which an append needs to know nothing else: no retention, no end. What ends a stream
  goes the ordinary way.
- What was guessed is staged (``sqlite_staging``), and ``settle`` is to be called when it is ``due``.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stores import lifetimes, sqlite_staging
from stores.base import Append, Config, Create, Producer
from stores.errors import StoreError
from stores.producers import Asked
from stores.sqlite_rows import Found
from stores.sqlite_staging import EventRow, Move, Tail
from stores.sqlite_streams import Streams

_MOST = 4096
# To settle so many takes some 20 ms, in a thread.
_MOST_STAGED = 5000
_SETTLE_S = 1.0


class _Left(NamedTuple):
    """A stream as its last append left it, in which ``staged`` tells whether that was staged.

    ``text``: ``config`` as it stands in its row.
    """

    config: Config
    text: str
    tail: Tail
    staged: bool


class Batches:
    """The writes on ``db``, which is that of ``streams``; ``clock``: seconds since 1970."""

    def __init__(self, db: sqlite3.Connection, streams: Streams, clock: Callable[[], float]) -> None:
        self._db = db
        self._streams = streams
        self._clock = clock
        self._left: dict[str, _Left] = {}
        self._owner = secrets.randbits(62)
        self._count = 0
        self._settle_at = float("inf")

    @property
    def due(self) -> bool:
        return self._count >= _MOST_STAGED or time.monotonic() >= self._settle_at

    def create(self, creates: Sequence[Create]) -> None:
        """Make each, in this order. Raises what one of them is refused with, sqlite3.Error."""
        for path, config, events in creates:
            created, stream = self._streams.created(path, config, events)
            if created and not _retains(config):
                self._remember(stream, None)

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

    def settle(self) -> None:
        """Put what was staged in its place. Raises sqlite3.Error."""
        self._count, self._settle_at = 0, float("inf")
        sqlite_staging.settle(self._db, sqlite_staging.OWNER, self._owner)
        self._left = {path: left._replace(staged=False) for path, left in self._left.items()}

    def settle_abandoned(self, before: float) -> None:
        """Put in its place what nobody has touched since that time (seconds since 1970). Raises sqlite3.Error."""
        sqlite_staging.settle(self._db, sqlite_staging.BEFORE, before)

    def _guess(self, append: Append, now: float) -> _Left | None:
        """Return how the append will find its stream, if that is known."""
        left, producer = self._left.pop(append.path, None), append.producer
        if left is None or producer is None or append.close:
            return None
        last, expires = left.tail.producer, left.tail.expires
        if expires is not None and expires <= now:
            return None
        first = last is None and producer.seq == 0
        return left if first or last == Producer(producer.id, producer.epoch, producer.seq - 1) else None

    def _add(self, guessed: Sequence[tuple[Append, _Left]], now: float) -> bool:
        """Add them all, if all are as they were guessed; whether they are."""
        change = self._streams.draw()  # before the savepoint: what is drawn stays drawn
        events: list[EventRow] = []
        after = [_Left(left.config, left.text, _after(append, left, now, events), True) for append, left in guessed]
        moves = [_move(append, left, new) for (append, left), new in zip(guessed, after, strict=True)]
        self._db.execute("SAVEPOINT guessed")
        right = sqlite_staging.add(self._db, self._owner, change, now, moves, events)
        if right:
            self._left.update({append.path: new for (append, _), new in zip(guessed, after, strict=True)})
            self._count += len(events)
            self._settle_at = min(self._settle_at, time.monotonic() + _SETTLE_S)
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
            if append.producer and not (appended.duplicate or stream.row.closed or _retains(stream.config)):
                self._remember(stream, append.producer)
        except StoreError as error:
            refused = error
            self._db.execute("ROLLBACK TO one")
            self._streams.begin()
        self._db.execute("RELEASE one")
        return refused

    def _remember(self, stream: Found, producer: Producer | None) -> None:
        row = stream.row
        tail = Tail(row.id, producer, row.tail, row.end, row.time_s, row.expires)
        self._left[row.path] = _Left(stream.config, row.config, tail, False)


def _move(append: Append, left: _Left, new: _Left) -> Move:
    assert append.producer
    return Move(append.path, left.text, left.tail, new.tail, append.producer, left.staged)


def _retains(config: Config) -> bool:
    return bool(config.keep_events or config.keep_bytes or config.keep_s)


def _after(append: Append, left: _Left, now: float, rows: list[EventRow]) -> Tail:
    """Return how the append leaves its stream, and add the rows of its events."""
    stream, producer, number, end, time_s, _ = left.tail
    time_s = max(now, time_s)
    for event in append.events:
        number += 1
        rows.append((stream, number, time_s, end, event.type, event.data))
        end += len(event.data)
    return Tail(stream, append.producer or producer, number, end, time_s, lifetimes.expires(left.config, now))

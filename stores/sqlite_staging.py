"""Events of many streams in the order in which they came, before they are put where each stream has its own.

A stream's events lie together, and an append to a hundred streams changes a hundred pages: half of what it cost was
the writing of them. Staged, the same events fill a few pages, and are put in their places a few thousand at a time.

Rules:
- ``staged`` has a stream's events after those in ``events``, and ``staged_tails`` how the last of them left the stream:
  its row in ``streams`` is older. Who reads looks at both (``sqlite_rows``).
- Who writes a stream in any other way settles it first; so whoever finds a tail there as he left it knows that nobody
  else has changed the stream since.
- What a process has staged it settles itself; if it was killed, whoever keeps house does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from stores.base import Producer

# The first that is staged: only where the stream is what its writer takes it for.
_ENTER = (
    "INSERT OR IGNORE INTO staged_tails SELECT id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM streams"
    " WHERE id = ? AND tail = ? AND end = ? AND path = ? AND config = ? AND NOT closed AND NOT deleted"
    " AND (SELECT epoch FROM producers WHERE stream = streams.id AND producers.id = ?) IS ?"
    " AND (SELECT producers.seq FROM producers WHERE stream = streams.id AND producers.id = ?) IS ?"
)
_MOVE = (
    "UPDATE staged_tails SET tail = ?, end = ?, time_s = ?, touched = ?, expires = ?, changes = ?, seq = ?"
    " WHERE owner = ? AND stream = ? AND tail = ? AND end = ? AND producer = ? AND epoch = ? AND seq = ?"
)
_EVENT = "INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?)"
_SETTLE = (
    "INSERT INTO events SELECT * FROM staged WHERE stream IN (SELECT stream FROM staged_tails WHERE {which})"
    " ORDER BY stream, number",
    "INSERT OR REPLACE INTO producers SELECT stream, producer, epoch, seq, tail FROM staged_tails WHERE {which}",
    "UPDATE streams SET tail = tails.tail, end = tails.end, time_s = tails.time_s,"
    " touched = max(streams.touched, tails.touched), expires = max(streams.expires, tails.expires),"
    " changes = max(streams.changes, tails.changes)"
    " FROM staged_tails AS tails WHERE id = tails.stream AND tails.{which}",
    "DELETE FROM staged WHERE stream IN (SELECT stream FROM staged_tails WHERE {which})",
    "DELETE FROM staged_tails WHERE {which}",
)
# Of which streams: conditions on a column of ``staged_tails``, before which its alias may stand.
STREAM, OWNER, BEFORE = "stream = ?", "owner = ?", "touched < ?"

EventRow = tuple[int, int, float, int, str, bytes]


class Tail(NamedTuple):
    """How an append of ``producer`` left a stream; None: nobody has appended to it as one."""

    stream: int
    producer: Producer | None
    tail: int
    end: int
    time_s: float
    expires: float | None


class Move(NamedTuple):
    """A stream's tail before and after what is to be staged. ``staged``: so was what left it as it is before.

    ``config``: as it stands in its row.
    """

    path: str
    config: str
    before: Tail
    after: Tail
    producer: Producer
    staged: bool


def add(
    db: sqlite3.Connection, owner: int, change: int, now: float, moves: Sequence[Move], events: Sequence[EventRow]
) -> bool:
    """Stage ``events``, which are those of ``moves``; whether all streams were as they say.

    False: one of them was not, and some may be staged: undo it. Raises sqlite3.Error.
    """
    moved = [
        (*_left(move, now, change), move.producer.seq, owner, *_found(move.before), *_mark(move))
        for move in moves
        if move.staged
    ]
    entered = [
        (
            *_left(move, now, change),
            *_as_columns(move.producer),
            owner,
            *_found(move.before),
            move.path,
            move.config,
            *_old_mark(move),
        )
        for move in moves
        if not move.staged
    ]
    for statement, rows in ((_MOVE, moved), (_ENTER, entered)):
        if rows and db.executemany(statement, rows).rowcount != len(rows):
            return False
    db.executemany(_EVENT, events)
    return True


def settle(db: sqlite3.Connection, which: str, value: float) -> None:
    """Put in their places the staged events of the streams with STREAM, OWNER, BEFORE ``value``."""
    for statement in _SETTLE:
        db.execute(statement.format(which=which), (value,))


def _left(move: Move, now: float, change: int) -> tuple[object, ...]:
    after = move.after
    return after.tail, after.end, after.time_s, now, after.expires, change


def _found(before: Tail) -> tuple[int, int, int]:
    return before.stream, before.tail, before.end


def _as_columns(producer: Producer) -> tuple[str, int, int]:
    return producer.id, producer.epoch, producer.seq


def _mark(move: Move) -> tuple[object, ...]:
    return _as_columns(move.before.producer or move.producer)


def _old_mark(move: Move) -> tuple[object, ...]:
    last, id = move.before.producer, move.producer.id
    return id, last and last.epoch, id, last and last.seq

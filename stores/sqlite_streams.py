"""The changes of streams in SQLite, each within one write of the group commit.

Rules:
- A stream is looked up, checked and changed in one transaction; what raises has changed nothing.
- A number of a change is drawn once in each transaction, when it is first needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from stores import lifetimes, offsets, producers, sqlite_rows, sqlite_staging
from stores.base import BEGINNING, START, Appended, Config, State
from stores.errors import BadFork, NoStream, StreamExists, StreamGone, UnknownOffset
from stores.producers import Asked, Standing
from stores.sqlite_deletions import Deletions
from stores.sqlite_rows import Found, Row
from stores.sqlite_touches import Touches
from streaming.events import Event


class Streams:
    """The writes on ``db``; ``clock`` tells the time in seconds since 1970."""

    def __init__(self, db: sqlite3.Connection, clock: Callable[[], float], touches: Touches) -> None:
        self._db = db
        self._clock = clock
        self._touches = touches
        self._deletions = Deletions(db)
        self.change = 0

    def begin(self) -> None:
        self.change = 0

    def create(self, path: str, config: Config, events: Sequence[Event], closed: bool) -> State:
        created, stream = self.created(path, config, events, closed)
        return stream.state(created)

    def created(self, path: str, config: Config, events: Sequence[Event], closed: bool = False) -> tuple[bool, Found]:
        """``create``: whether the stream was made, and as it then is."""
        try:
            stream = self._find(path)
        except StreamGone as error:
            raise StreamExists("The stream was deleted, and forks still read from it.") from error
        if stream is None:
            return True, self._add(self._make(path, config), Asked(events, close=closed))
        known = (stream.config, sqlite_rows.config_of(stream.row.asked))
        if not any(lifetimes.same(config, each) for each in known) or bool(stream.row.closed) != closed:
            raise StreamExists("The stream exists with another configuration.")
        return False, stream

    def append(self, path: str, create: Config | None, asked: Asked) -> Appended:
        return self.added(path, create, asked)[0]

    def added(self, path: str, create: Config | None, asked: Asked) -> tuple[Appended, Found]:
        """``append``, and the stream as it then is."""
        stream = self._find(path)
        if stream is None and create is None:
            raise NoStream("There is no stream at this path.")
        standing = self._standing(stream, asked) if stream else producers.nothing(create or Config())
        if stream and (repeated := producers.duplicate(standing, asked)) is not None:
            offset = offsets.of_number(repeated, stream.chain)
            return Appended(offset, standing.tail, True, standing.closed, standing.highest), stream
        producers.check(standing, asked)
        stream = stream or self._make(path, create or Config())
        if create:
            stream = stream._replace(config=lifetimes.retaining(stream.config, create))
        self._mark(stream.row, asked)
        stream = self._add(stream, asked)
        highest, tail = asked.producer.seq if asked.producer else None, stream.tail
        return Appended(tail, tail, False, bool(stream.row.closed), highest), stream

    def close(self, path: str) -> None:
        self._add(self._find(path) or self._make(path, Config()), Asked((), close=True))

    def delete(self, path: str) -> bool:
        stream = self._find(path)
        if stream:
            self._deletions.forget(stream.row, self.draw())
        return stream is not None

    def touch(self, stream: int, now: float, expires: float) -> None:
        self._db.execute(
            "UPDATE streams SET touched = ?, expires = ? WHERE id = ? AND touched < ?", (now, expires, stream, now)
        )

    def expire(self, path: str, idle: float | None) -> bool:
        """Delete the stream if its time has come, or if it was last touched at ``idle`` or before; whether it was."""
        row = self._row(path)
        if row is None or row.deleted:
            return False
        over = row.touched <= idle if idle is not None else self._touches.expired(row, self._clock())
        if over:
            self._deletions.forget(row, self.draw())
        return over

    def retain(self, stream: int) -> bool:
        """Drop a slice of what the stream's retention does not keep; whether any may be left."""
        row = sqlite_rows.of_id(self._db, stream)
        if row is None or row.deleted:
            return False
        found = sqlite_rows.found(self._db, row, self._clock())
        self._db.execute("UPDATE streams SET first = ? WHERE id = ?", (found.first, stream))
        return self._drop(row, found.first)

    def purge(self, doomed: int) -> bool:
        """Delete a slice of the events of a stream that is gone; whether any may be left."""
        return self._deletions.purge(doomed)

    def _find(self, path: str) -> Found | None:
        """Return the stream, None when there is none; one whose time has come is deleted. Raises StreamGone."""
        row = self._row(path)
        if row and not row.deleted and self._touches.expired(row, self._clock()):
            self._deletions.forget(row, self.draw())
            row = row._replace(deleted=1) if row.forks else None
        if row and row.deleted:
            raise StreamGone("This stream was deleted.")
        return sqlite_rows.found(self._db, row, self._clock()) if row else None

    def _row(self, path: str) -> Row | None:
        """Return the stream's row, with all that it tells of in its place."""
        row = sqlite_rows.of_path(self._db, path)
        if row and row.staged:
            sqlite_staging.settle(self._db, sqlite_staging.STREAM, row.id)
            row = sqlite_rows.of_path(self._db, path)
        return row

    def _standing(self, stream: Found, asked: Asked) -> Standing:
        row, producer = stream.row, asked.producer
        mark = sqlite_rows.mark(self._db, row.id, producer.id) if producer else None
        keyed = sqlite_rows.keyed(self._db, row.id, asked.key) if asked.key else None
        return Standing(stream.tail, bool(row.closed), stream.config.content_type, row.seq, mark, keyed)

    def _make(self, path: str, config: Config) -> Found:
        """Return the new stream, with what it inherits. Raises NoStream, StreamGone, BadFork, WrongType."""
        if config.forked_from:
            return self._fork(path, config)
        return self._insert(path, config, config, None, 0, 1, 0)

    def _fork(self, path: str, asked: Config) -> Found:
        source = self._find(asked.forked_from)
        if source is None:
            raise NoStream("There is no stream to fork at this path.")
        try:
            wanted = START if asked.fork_offset == BEGINNING else asked.fork_offset or source.tail
            number = offsets.to_number(wanted, source.chain)
        except UnknownOffset as error:
            raise BadFork(str(error)) from error
        config = lifetimes.forked(asked, source.config, wanted or BEGINNING)
        base, part = lifetimes.inherited(config, number, source.row.tail, lambda n: self._event(source, n))
        first, end = min(source.first, base + 1), source.row.end
        if base < source.row.tail:
            end = sqlite_rows.place(self._db, source.chain, base + 1).start if base + 1 >= source.first else 0
        self._db.execute(
            "UPDATE streams SET forks = forks + 1, pinned = max(pinned, ?) WHERE id = ?", (base, source.row.id)
        )
        fork = self._insert(path, config, asked, source.row, base, first, end)
        return self._add(fork, Asked([part])) if part else fork

    def _event(self, stream: Found, number: int) -> Event | None:
        if number < stream.first:
            return None
        return next(sqlite_rows.events(self._db, stream.chain, number - 1, 1), None)

    def _insert(
        self, path: str, config: Config, asked: Config, source: Row | None, base: int, first: int, end: int
    ) -> Found:
        now = self._clock()
        life, texts = offsets.new_life(), (sqlite_rows.text_of(config), sqlite_rows.text_of(asked))
        source_id, time_s = (source.id, source.time_s) if source else (None, now)
        made = self._db.execute(
            "INSERT INTO streams (path, life, config, asked, source, base, first, tail, end, time_s, touched)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (path, life, *texts, source_id, base, first, base, end, time_s, now),
        )
        assert made.lastrowid
        row = Row(
            made.lastrowid, path, life, *texts, source_id, base, 0, 0, first, base, end, time_s, now, None, 0, 0, ""
        )
        return sqlite_rows.found(self._db, row, now)

    def _mark(self, row: Row, asked: Asked) -> None:
        """Remember what makes a retry of this append known."""
        last = row.tail + len(asked.events)
        if producer := asked.producer:
            self._db.execute(
                "INSERT OR REPLACE INTO producers VALUES (?, ?, ?, ?, ?)",
                (row.id, producer.id, producer.epoch, producer.seq, last),
            )
        if asked.key:
            self._db.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (row.id, asked.key, row.tail + 1, last))

    def _add(self, stream: Found, asked: Asked) -> Found:
        """Add the events and the end, drop what retention does not keep, and write the row."""
        now = self._clock()
        row, config = stream.row, stream.config
        time_s = max(now, row.time_s)
        number, end, rows = row.tail, row.end, []
        for event in asked.events:
            number += 1
            rows.append((row.id, number, time_s, end, event.type, event.data))
            end += len(event.data)
        if rows:
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        closed = int(row.closed or asked.close)
        row = row._replace(tail=number, end=end, time_s=time_s, closed=closed, seq=asked.seq or row.seq, touched=now)
        chain = self._extended(stream, row)
        first = sqlite_rows.kept(self._db, row, config, chain, now)
        row = row._replace(first=first, config=sqlite_rows.text_of(config), expires=lifetimes.expires(config, now))
        if first > stream.row.first:
            self._drop(row, first)
        self._write(row, config.keep_s)
        return Found(row, config, chain, first)

    @staticmethod
    def _extended(stream: Found, row: Row) -> list[offsets.Segment]:
        inherited = [each for each in stream.chain if each.stream != row.id]
        return inherited + ([offsets.Segment(row.id, row.life, row.base, row.tail)] if row.tail > row.base else [])

    def _drop(self, row: Row, first: int) -> bool:
        """Drop a slice of the events before number ``first``, and their keys; whether any may be left."""
        self._db.execute("DELETE FROM keys WHERE stream = ? AND first < ?", (row.id, first))
        return self._deletions.drop(row, first)

    def _write(self, row: Row, keep_s: float) -> None:
        self._db.execute(
            "UPDATE streams SET config = ?, first = ?, tail = ?, end = ?, time_s = ?, touched = ?, expires = ?,"
            " keep_s = ?, closed = ?, seq = ?, changes = ? WHERE id = ?",
            (
                *(row.config, row.first, row.tail, row.end, row.time_s, row.touched, row.expires),
                *(keep_s, row.closed, row.seq, self.draw(), row.id),
            ),
        )

    def draw(self) -> int:
        """Return the number of this transaction's change."""
        if not self.change:
            (self.change,) = self._db.execute("UPDATE clock SET changes = changes + 1 RETURNING changes").fetchone()
        return self.change

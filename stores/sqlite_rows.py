"""What is looked up of the streams in SQLite: always by an index, on any connection, in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from stores import lifetimes, offsets
from stores.base import Config, State
from stores.lifetimes import Place
from stores.producers import Keyed, Mark
from streaming.events import Event

# What is staged of a stream is later than its row.
_ROWS = (
    "SELECT id, path, life, config, asked, source, base, forks, pinned, first, coalesce(tails.tail, streams.tail),"
    " coalesce(tails.end, streams.end), coalesce(tails.time_s, streams.time_s),"
    " max(streams.touched, coalesce(tails.touched, 0)), max(streams.expires, coalesce(tails.expires, 0)), closed,"
    " deleted, streams.seq, tails.stream IS NOT NULL FROM streams LEFT JOIN staged_tails AS tails ON tails.stream = id"
)
_config = msgspec.json.Decoder(Config)
# Each append reads one and writes it again; there are as many as ways to make a stream.
_CONFIGS = 1024
# A stream's events lie in the first, and after them in the second.
_TABLES = ("events", "staged")
# Sorts after all that a path is made of.
_LAST = "\U0010ffff"


class Row(NamedTuple):
    """A stream's row; its columns are told in stores/sqlite_file.py. ``staged``: the last of its events are."""

    id: int
    path: str
    life: str
    config: str
    asked: str
    source: int | None
    base: int
    forks: int
    pinned: int
    first: int
    tail: int
    end: int
    time_s: float
    touched: float
    expires: float | None
    closed: int
    deleted: int
    seq: str
    staged: int = 0


class Found(NamedTuple):
    """A stream as it stands now. ``first``: the number of the first event that retention keeps."""

    row: Row
    config: Config
    chain: list[offsets.Segment]
    first: int

    @property
    def tail(self) -> str:
        return offsets.of_number(self.row.tail, self.chain)

    @property
    def total(self) -> int:
        return self.row.tail - self.first + 1

    def state(self, created: bool = False) -> State:
        return State(self.config, self.tail, bool(self.row.closed), self.total, created)


def of_path(db: sqlite3.Connection, path: str) -> Row | None:
    row = db.execute(f"{_ROWS} WHERE path = ?", (path,)).fetchone()
    return Row._make(row) if row else None


def of_id(db: sqlite3.Connection, stream: int) -> Row | None:
    row = db.execute(f"{_ROWS} WHERE id = ?", (stream,)).fetchone()
    return Row._make(row) if row else None


@lru_cache(_CONFIGS)
def config_of(text: str) -> Config:
    return _config.decode(text)


@lru_cache(_CONFIGS)
def text_of(config: Config) -> str:
    return msgspec.json.encode(config).decode()


def found(db: sqlite3.Connection, row: Row, now: float) -> Found:
    """Return the row's stream as it stands at ``now``."""
    config = config_of(row.config)
    chain = offsets.segments(_links(db, row), row.tail)
    first = row.first
    if config.keep_s:  # the other bounds hold since the last append
        first = kept(db, row, config, chain, now)
    return Found(row, config, chain, first)


def kept(db: sqlite3.Connection, row: Row, config: Config, chain: list[offsets.Segment], now: float) -> int:
    """Return the number of the first event that retention keeps at ``now``."""
    return lifetimes.first_kept(config, now, row.first, row.tail, row.end, lambda number: place(db, chain, number))


def _links(db: sqlite3.Connection, row: Row) -> Iterator[offsets.Link]:
    yield offsets.Link(row.id, row.life, row.base)
    source = row.source
    while source is not None:
        life, base, above = db.execute("SELECT life, base, source FROM streams WHERE id = ?", (source,)).fetchone()
        yield offsets.Link(source, life, base)
        source = above


def place(db: sqlite3.Connection, chain: list[offsets.Segment], number: int) -> Place:
    stream = next(each.stream for each in chain if each.after < number <= each.upto)
    for table in _TABLES:
        found = db.execute(f"SELECT time_s, start FROM {table} WHERE stream = ? AND number = ?", (stream, number))
        if row := found.fetchone():
            break
    return Place._make(row)


def events(db: sqlite3.Connection, chain: list[offsets.Segment], after: int, limit: int) -> Iterator[Event]:
    """Yield at most ``limit`` events after number ``after``, which retention has not dropped, with their offsets."""
    for segment in chain:
        if limit <= 0:
            return
        for table in _TABLES:
            if segment.upto <= after or limit <= 0:
                break
            rows = db.execute(
                f"SELECT number, type, data FROM {table} WHERE stream = ? AND number > ? AND number <= ?"
                " ORDER BY number LIMIT ?",
                (segment.stream, max(after, segment.after), segment.upto, limit),
            )
            for after, type, data in rows:
                limit -= 1
                yield Event(data, type, offsets.write(after, segment.life))


def fitting(
    db: sqlite3.Connection, chain: list[offsets.Segment], after: int, limit: int, limit_bytes: int
) -> tuple[Event, ...]:
    """Return the events after number ``after`` that fit; the first one always does."""
    found: list[Event] = []
    for event in events(db, chain, after, limit):
        limit_bytes -= len(event.data)
        if limit_bytes < 0 and found:
            break
        found.append(event)
    return tuple(found)


def mark(db: sqlite3.Connection, stream: int, producer: str) -> Mark | None:
    row = db.execute(
        "SELECT epoch, seq, number FROM producers WHERE stream = ? AND id = ?", (stream, producer)
    ).fetchone()
    return Mark(*row) if row else None


def keyed(db: sqlite3.Connection, stream: int, key: str) -> Keyed | None:
    """Return the append that came with ``key``: its events are the stream's own, and there as long as the key is."""
    row = db.execute("SELECT first, last FROM keys WHERE stream = ? AND key = ?", (stream, key)).fetchone()
    if row is None:
        return None
    held = db.execute(
        "SELECT type, data FROM events WHERE stream = ? AND number BETWEEN ? AND ? ORDER BY number", (stream, *row)
    )
    first, last = row
    return Keyed(first, last, held.fetchall())


def paths(db: sqlite3.Connection, prefix: str, after: str) -> Iterator[Row]:
    """Yield the rows whose path begins with ``prefix`` and sorts after ``after``, in order."""
    # Text is compared as UTF-8 bytes, which sort as the characters do; no pattern: a path may hold % and _.
    rows = db.execute(f"{_ROWS} WHERE path > ? AND path >= ? ORDER BY path", (after, max(prefix, after)))
    for row in map(Row._make, rows):
        if not row.path.startswith(prefix):
            return
        yield row


def untouched(db: sqlite3.Connection, prefix: str, since: float) -> list[str]:
    """Return the paths of the streams that begin with ``prefix`` and were last touched at ``since`` or before."""
    rows = db.execute(
        "SELECT path FROM streams WHERE path >= ? AND path < ? AND touched <= ?", (prefix, prefix + _LAST, since)
    )
    return [path for (path,) in rows]


def over(db: sqlite3.Connection, now: float) -> list[str]:
    """Return the paths of the streams whose time has come."""
    return [path for (path,) in db.execute("SELECT path FROM streams WHERE expires <= ?", (now,))]


def aging(db: sqlite3.Connection) -> list[int]:
    """Return the ids of the streams that keep their events for a time only."""
    return [stream for (stream,) in db.execute("SELECT id FROM streams WHERE keep_s > 0")]


def doomed(db: sqlite3.Connection) -> list[int]:
    """Return the ids of the streams that are gone, but for some of their events."""
    return [stream for (stream,) in db.execute("SELECT stream FROM doomed")]


def change(db: sqlite3.Connection) -> int:
    """Return the number of the last change."""
    return int(db.execute("SELECT changes FROM clock").fetchone()[0])


def news(db: sqlite3.Connection, since: int, most: int) -> tuple[int, list[str]]:
    """Return the last change, and the paths of the streams that changed or went after change ``since``.

    No paths where those are more than ``most`` changes.
    """
    last = change(db)
    if last - since > most:
        return last, []
    rows = db.execute(
        "SELECT path FROM streams WHERE changes > ?1 UNION SELECT path FROM deletions WHERE changes > ?1"
        " UNION SELECT path FROM staged_tails AS tails JOIN streams ON id = tails.stream WHERE tails.changes > ?1",
        (since,),
    )
    return last, [path for (path,) in rows]

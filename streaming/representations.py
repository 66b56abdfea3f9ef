"""An export whose length is known before its first byte, and any range of it, straight from the database.

Rules:
- It is read twice in one snapshot: first to measure it, then to send it. Nothing is kept but its length, its SHA-256
  and a place every MiB (offset, rows, key), after which the rows can be read again: there is no spool file.
- The ETag is its digest: it changes when a byte changes, and is the same on every worker and after every restart.
- What was measured is remembered for its snapshot, so that a client that continues pays for its rows only.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from stores.tables import Block, Query, Snapshot, Tables
from streaming.errors import ClientLeft, StreamFailed
from streaming.events import Event
from streaming.formats import Format
from streaming.pace import Pace
from streaming.wire import END, Interrupted, Link

_PLACE_BYTES = 2**20
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Behind ``rows`` rows, at ``offset`` bytes, the last of which has the key ``key``."""

    offset: int
    rows: int
    key: str


@dataclass(frozen=True, slots=True)
class Measured:
    length: int
    digest: bytes
    places: tuple[Place, ...]

    @property
    def etag(self) -> str:
        return f'"{self.digest.hex()[:32]}"'

    @property
    def repr_digest(self) -> str:
        """RFC 9530."""
        return f"sha-256=:{b64encode(self.digest).decode()}:"


# Of each database by itself: the moments of two may have the same name.
_remembered: WeakKeyDictionary[Tables, OrderedDict[tuple[Query, str, str], Measured]] = WeakKeyDictionary()


def measured(tables: Tables, snapshot: Snapshot, query: Query, format: Format, environ: Mapping[str, Any]) -> Measured:
    """Return the measures of the whole export. Reads it once, unless it has been. Raises ClientLeft, StoreError."""
    key = (query, format.name, snapshot.name)
    remembered = _remembered.setdefault(tables, OrderedDict())
    if snapshot.name and key in remembered:
        remembered.move_to_end(key)
        return remembered[key]
    measure = _Measure(query, format)
    blocks = snapshot.rows(query, format.rows, last=False)
    link, pace = Link(environ), Pace()
    try:
        while (block := link.pull(blocks)) is not END:
            if isinstance(block, Block):
                measure.add(block)
            pace.rest()
    except Interrupted:
        raise ClientLeft("The client left before the answer began.") from None
    finally:
        blocks.close()  # type: ignore[attr-defined]  # every store's is a generator
        link.close()
    remembered[key] = found = measure.end()
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
    return found


class _Measure:
    def __init__(self, query: Query, format: Format) -> None:
        self._framing = format.make(query, False)
        self._hash = hashlib.sha256()
        self._length = 0
        self._rows = 0
        self._places: list[Place] = []
        self._add(self._framing.open())

    def add(self, block: Block) -> None:
        self._add(self._framing.encode(Event(block.data)))
        self._rows += block.rows
        last = self._places[-1].offset if self._places else 0
        if block.id and self._length - last >= _PLACE_BYTES:
            self._places.append(Place(self._length, self._rows, block.id))

    def end(self) -> Measured:
        self._add(self._framing.close())
        return Measured(self._length, self._hash.digest(), tuple(self._places))

    def _add(self, data: bytes) -> None:
        self._length += len(data)
        self._hash.update(data)


def part(
    snapshot: Snapshot, query: Query, format: Format, measures: Measured, begin: int, end: int
) -> Iterator[Block | None]:
    """Yield the bytes from ``begin`` to ``end`` as blocks. Raises StoreError, StreamFailed."""
    place = next((each for each in reversed(measures.places) if each.offset <= begin), None)
    rest = query if place is None else _behind(query, place)
    framing = format.make(query, place is not None)
    position = place.offset if place else 0
    blocks = snapshot.rows(rest, format.rows)

    def cut(data: bytes, block: Block) -> Block:
        nonlocal position
        piece = data[max(begin - position, 0) : max(end - position, 0)]
        position += len(data)
        return replace(block, data=piece)

    try:
        if place is None:
            yield cut(framing.open(), _NO_ROWS)
        for block in blocks:
            if position >= end:
                return
            yield None if block is None else cut(framing.encode(Event(block.data)), block)
        yield cut(framing.close(), _NO_ROWS)
        if position < end:
            raise StreamFailed("The export came out shorter than it was announced.")
    finally:
        blocks.close()  # type: ignore[attr-defined]  # every store's is a generator


def _behind(query: Query, place: Place) -> Query:
    limit = None if query.limit is None else query.limit - place.rows
    return replace(query, after=place.key, limit=limit)


_NO_ROWS = Block(b"", "", 0)

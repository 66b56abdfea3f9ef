"""The messages of COPY … TO STDOUT as they come from PostgreSQL: many rows at once, without a look at each.

A row is a message: ``d``, its length in four bytes (with these four), and a line of text that ends with LF
(PostgreSQL's protocol, "Message Formats"). Measured, libpq's function, which gives out one row at a time, took three
fifths of an export's time.

Rules:
- Text of PostgreSQL holds no NUL, and the head of a row shorter than 64 KiB has two: so LF, ``d``, NUL, NUL is always
  where one row ends and the next begins, and never in the middle of one.
- Where a NUL is left after that, there are longer rows or other messages in between: then each length is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

ROW = ord("d")
# ReadyForQuery, with one more byte: the server says nothing until it is asked again. No row holds the NULs.
_READY = b"Z\0\0\0\5"
HEAD_BYTES = 5
_NEXT = b"\nd\0\0"
# Of a message: its line, behind the half of its length that is not always NULs.
_LINE = itemgetter(slice(2, None))


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows: their lines joined, the first and the last line of them (with LF), their number, and where they end."""

    lines: bytes
    first: bytes
    last: bytes
    rows: int
    end: int


def length(data: bytes | bytearray, at: int = 0) -> int | None:
    """Return how many bytes the message at ``at`` has, None when its head is not whole."""
    return 1 + int.from_bytes(data[at + 1 : at + HEAD_BYTES]) if len(data) - at >= HEAD_BYTES else None


def ended(data: bytes | bytearray) -> bool:
    """Whether the last message of ``data`` is the one with which the server's answer ends."""
    return data.startswith(_READY, len(data) - len(_READY) - 1)


def take(data: bytes | bytearray, line_end: bytes) -> Taken | None:
    """Return the whole rows that ``data``, which begins with a row, begins with; None when not one is whole.

    Their lines are joined by ``line_end``.
    """
    last = data.rfind(_NEXT, 0, len(data) - 2) + 1
    end = last + (length(data, last) or 0)
    if end == last or end > len(data):
        end, last = last, data.rfind(_NEXT, 0, last + 1) + 1 if last else 0
    if not end:
        return None
    with memoryview(data) as view:
        rows = bytes(view[HEAD_BYTES - 2 : end - 1]).split(_NEXT)
    lines = line_end.join(map(_LINE, rows))
    if b"\0" in lines:
        return _one_by_one(bytes(data[:end]), line_end)
    return Taken(lines, _LINE(rows[0]) + b"\n", _LINE(rows[-1]) + b"\n", len(rows), end)


def _one_by_one(data: bytes, line_end: bytes) -> Taken | None:
    rows = list(_rows(data))
    if not rows:
        return None
    size = sum(map(len, rows)) + HEAD_BYTES * len(rows)
    return Taken(line_end.join(row[:-1] for row in rows), rows[0], rows[-1], len(rows), size)


def _rows(data: bytes) -> Iterator[bytes]:
    at = 0
    while data[at : at + 1] == b"d" and (size := length(data, at)) is not None and at + size <= len(data):
        yield data[at + HEAD_BYTES : at + size]
        at += size

"""CSV of fields that stand apart by control characters: quotes where they are needed, for a whole block of rows.

To look at each field for what needs quotes took SQL two thirds of an export's time; here what needs them is found by
``bytes.find``, and nothing else is looked at.

Rules:
- Between two fields stands ``FIELD``, between two rows ``ROW``; a field that is ``NULL`` is no value. What has other
  numbers of them, since a text may hold them too, is not taken.
- RFC 4180 with the quotes of PostgreSQL's COPY: around what holds a comma, quote, CR or LF, and around the empty text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FIELD = b"\x1f"
ROW = b"\x1e"
# Of no text: it is no UTF-8, not even in part.
NULL = b"\xff\xfe\xff"
_NULL_FIELD = re.compile(rb"\xff\xfe\xff(?<![^\x1e\x1f]\xff\xfe\xff)(?![^\x1e\x1f])")
_SPECIAL = (b",", b'"', b"\r", b"\n")


def csv(data: bytes, rows: int, columns: int) -> bytes | None:
    """Return the rows as lines with CRLF between them; None where a separator stands in a field, or what is no text.

    ``columns``: two at the least; one alone would need more quotes (an empty line, ``\\.``).
    """
    if data.count(ROW) != rows - 1 or data.count(FIELD) != rows * (columns - 1):
        return None
    data = _NULL_FIELD.sub(b"", _with_empty_texts(_with_quotes(data)))
    return None if b"\xff" in data else data.replace(FIELD, b",").replace(ROW, b"\r\n")


def _with_quotes(data: bytes) -> bytes:
    special = dict(_special_fields(data))
    if not special:
        return data
    parts, at = [], 0
    for start in sorted(special):
        end = special[start]
        parts += [data[at:start], b'"', data[start:end].replace(b'"', b'""'), b'"']
        at = end
    return b"".join([*parts, data[at:]])


def _special_fields(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each field that needs quotes begins and ends, some of them twice."""
    for character in _SPECIAL:
        at = data.find(character)
        while at >= 0:
            start = max(data.rfind(FIELD, 0, at), data.rfind(ROW, 0, at)) + 1
            if (end := data.find(FIELD, at)) < 0:
                end = len(data)
            if (row := data.find(ROW, at, end)) >= 0:
                end = row
            yield start, end
            at = data.find(character, end)


def _with_empty_texts(data: bytes) -> bytes:
    for before, after in ((FIELD, FIELD), (FIELD, FIELD), (ROW, FIELD), (FIELD, ROW)):  # twice: three fields in a row
        data = data.replace(before + after, before + b'""' + after)
    if data.startswith(FIELD):
        data = b'""' + data
    return data + b'""' if data.endswith(FIELD) else data

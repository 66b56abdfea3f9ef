"""CSV of fields that stand apart by control characters: quotes where they are needed, for a whole block of rows.

To look at each field for what needs quotes took SQL two thirds of an export's time; here what needs them is found by
``bytes.find``, and nothing else is looked at.

Rules:
- Between two fields stands ``FIELD``, between two rows ``ROW``, so that every field is between two of the same bytes; a
  field that is ``NULL`` is no value. What has other numbers of them, since a text may hold them too, is not taken.
- RFC 4180 with the quotes of PostgreSQL's COPY: around what holds a comma, quote, CR or LF, and around the empty text.
"""

from __future__ import annotations

import re

FIELD = b"\x1f"
ROW = FIELD + b"\x1e" + FIELD
# Of no text: it is no UTF-8, not even in part.
NULL = b"\xff\xfe\xff"
_NULL_FIELD = re.compile(rb"\xff\xfe\xff(?<![^\x1f]\xff\xfe\xff)(?![^\x1f])")
_SPECIAL = (b",", b'"', b"\r", b"\n")


def csv(data: bytes, rows: int, columns: int) -> bytes | None:
    """Return the rows as lines with CRLF between them; None where a separator stands in a field, or what is no text.

    ``columns``: two at the least; one alone would need more quotes (an empty line, ``\\.``).
    """
    separators = rows * (columns - 1) + len(ROW) * (rows - 1)
    if len(data) - len(data.translate(None, ROW)) != separators:
        return None
    data = _with_empty_texts(_with_quotes(data))
    if b"\xff" in data:
        data = _NULL_FIELD.sub(b"", data)
        if b"\xff" in data:
            return None
    return data.replace(ROW, b"\r\n").replace(FIELD, b",")


def _with_quotes(data: bytes) -> bytes:
    special = _special_fields(data)
    if not special:
        return data
    parts: list[bytes] = []
    at = 0
    for start in sorted(special):
        end = special[start]
        parts += (data[at:start], b'"', data[start:end].replace(b'"', b'""'), b'"')
        at = end
    return b"".join([*parts, data[at:]])


def _special_fields(data: bytes) -> dict[int, int]:
    """Return where each field that needs quotes begins, and where it ends."""
    found: dict[int, int] = {}
    for character in _SPECIAL:
        at = data.find(character)
        while at >= 0:
            if (end := data.find(FIELD, at)) < 0:
                end = len(data)
            found[data.rfind(FIELD, 0, at) + 1] = end
            at = data.find(character, end)
    return found


def _with_empty_texts(data: bytes) -> bytes:
    if FIELD + FIELD in data:
        for _ in range(2):  # three fields in a row
            data = data.replace(FIELD + FIELD, FIELD + b'""' + FIELD)
    if data.startswith(FIELD):
        data = b'""' + data
    return data + b'""' if data.endswith(FIELD) else data

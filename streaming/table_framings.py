"""How a table's rows are written beside NDJSON: CSV, one JSON array, JSON text sequences.

Rules:
- They are framings (``framings`` has the rules of those), and their events are rows, or blocks of rows.
- A row is formatted already (by the database, ``stores/``): here it is only put between what separates rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from streaming.events import Event

_BOM = b"\xef\xbb\xbf"


class CSV:
    """RFC 4180 with a header line; events are lines, or blocks of lines joined by CRLF.

    ``excel``: with the byte order mark without which Excel takes UTF-8 for something else.
    """

    content_type = "text/csv; charset=utf-8; header=present"
    headers: Mapping[str, str] = {}
    error = None
    drain = None

    def __init__(self, columns: Iterable[str], excel: bool = False) -> None:
        self._header = (_BOM if excel else b"") + ",".join(map(_csv_field, columns)).encode() + b"\r\n"

    def open(self) -> bytes:
        return self._header

    def encode(self, event: Event) -> bytes:
        return event.data + b"\r\n"

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class JSONArray:
    """One JSON array (RFC 8259), an element a line; events are elements, or blocks of them joined by LF.

    No element holds a bare LF: in a JSON text it may stand between two tokens only, and our encoders write none there.
    A failure cannot be told: what is cut is no JSON any more. ``begun``: the first elements were written elsewhere.
    """

    content_type = "application/json"
    headers: Mapping[str, str] = {}
    error = None
    drain = None

    def __init__(self, begun: bool = False) -> None:
        self._begun = begun

    def open(self) -> bytes:
        return b"["

    def encode(self, event: Event) -> bytes:
        before, self._begun = b",\n" if self._begun else b"\n", True
        return before + event.data.replace(b"\n", b",\n")

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b"\n]\n"


class JSONSequence:
    """JSON text sequences (RFC 7464): each text between RS and LF, so that a text cut short is seen to be."""

    content_type = "application/json-seq"
    headers: Mapping[str, str] = {}
    drain = None

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        return b"\x1e" + event.data.replace(b"\n", b"\n\x1e") + b"\n"

    def idle(self) -> bytes:
        return b""

    def error(self, message: str) -> bytes:
        return b"\x1e" + msgspec.json.encode({"error": message}) + b"\n"

    def close(self) -> bytes:
        return b""


def _csv_field(text: str) -> str:
    """RFC 4180, section 2, rules 5 to 7."""
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text

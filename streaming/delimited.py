"""CSV (RFC 4180) to NDJSON and back, record by record.

Rules:
- ``decode(bytes) -> iterator of bytes`` and ``flush() -> bytes``; a step gives whole records, some 64 KiB, or nothing.
- A record has at most 1 MiB and 16,384 fields: nothing that has no end is held, and no step takes long.
- NULL is an empty field in CSV, and the empty string is ``""``, as in PostgreSQL's COPY and our exports; in JSON they
  are null and "". From CSV every value is a string. Numbers of JSON are written as they stand, to the last digit.
- What is no CSV or no JSON object, or does not fit the header, raises ValueError that names the record, from 1.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

RECORD_BYTES = 2**20
FIELDS = 2**14
STEP_BYTES = 64 * 1024
_SLICE_BYTES = 8 * 1024  # of empty lines, which cost as much as full ones

# A field and the comma behind it (RFC 4180, 2, rules 5 to 7), and a record and its LF. Possessive: a MiB of quotes is
# passed over at 20 ns each, and not remembered.
_FIELD = re.compile(r'("(?:[^"]++|"")*+"|[^",\r\n]*+),')
_RECORD = re.compile(r'((?:[^"\n]++|"[^"]*+")*+)\n')
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class CSVToNDJSON:
    """The first record is the header; each further one becomes an object with its names, in their order."""

    def __init__(self) -> None:
        self._records = _Records(quoted=True)
        self._names: list[str] = []

    def decode(self, data: bytes) -> Iterator[bytes]:
        for piece in _slices(data):
            yield from _steps(map(self._line, self._records.split(piece)))

    def flush(self) -> bytes:
        return b"".join(map(self._line, self._records.rest()))

    def _line(self, record: str) -> bytes:
        record = record.removesuffix("\r")
        if not record and len(self._names) != 1:
            return b""  # an empty line; in a table of one column it is a NULL
        if not self._names:
            self._names = self._header(record)
            return b""
        values = self._fields(record, len(self._names))
        if len(values) != len(self._names):
            number, header = self._records.number, len(self._names)
            raise ValueError(f"Record {number} has not as many fields as the header, which has {header}.")
        return _encode(dict(zip(self._names, values, strict=True))) + b"\n"

    def _header(self, record: str) -> list[str]:
        names = [name or "" for name in self._fields(record, FIELDS)]
        if len(names) > FIELDS:
            raise ValueError(f"The header has more than {FIELDS} fields.")
        if len(set(names)) < len(names):
            raise ValueError("Two columns have the same name.")
        return names

    def _fields(self, record: str, most: int) -> list[str | None]:
        """Return the fields, None for NULL; beyond ``most`` they need not be told apart."""
        if '"' not in record and "\r" not in record:
            return [field or None for field in record.split(",", most)]
        text = record + ","
        if record.count(",") < FIELDS:
            fields = _FIELD.findall(text)
        else:  # commas within a text, or more fields than need be told apart
            fields = [found[1] for found in islice(_FIELD.finditer(text), most + 1)]
            if len(fields) > most:
                return fields
        if sum(map(len, fields)) + len(fields) < len(text):  # something between two of them was passed over
            raise ValueError(
                f"Record {self._records.number} is no CSV: its field {_misquoted(text)} is not quoted right."
            )
        return [_text(field) if field.startswith('"') else field or None for field in fields]


def _text(quoted: str) -> str:
    return quoted[1:-1].replace('""', '"')


def _misquoted(text: str) -> int:
    """Return which field of a record and a comma is none, from 1."""
    at, number = 0, 1
    while (found := _FIELD.match(text, at)) is not None:
        at, number = found.end(), number + 1
    return number


class NDJSONToCSV:
    """The first object's keys are the header; what a further one has not is NULL, and more it may not have."""

    def __init__(self) -> None:
        self._records = _Records(quoted=False)
        self._places: dict[str, int] = {}

    def decode(self, data: bytes) -> Iterator[bytes]:
        for piece in _slices(data):
            yield from _steps(map(self._line, self._records.split(piece)))

    def flush(self) -> bytes:
        return b"".join(map(self._line, self._records.rest()))

    def _line(self, record: str) -> bytes:
        record = record.strip(" \t\r")
        if not record:
            return b""  # a heartbeat
        number = self._records.number
        try:
            values = _decode(record)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"Line {number} is no JSON object.") from error
        head = b"" if self._places else self._header(values, number)
        row = [b""] * len(self._places)
        for name, value in values.items():
            if (place := self._places.get(name, -1)) < 0:
                raise ValueError(f"Line {number} has a key that the first one has not: {name[:100]!r}.")
            row[place] = _csv_value(bytes(value))
        return head + b",".join(row) + b"\r\n"

    def _header(self, names: Iterable[str], number: int) -> bytes:
        self._places = {name: place for place, name in enumerate(names)}
        if not 0 < len(self._places) <= FIELDS:
            raise ValueError(f"Line {number} must have from 1 to {FIELDS} keys, and has {len(self._places)}.")
        fields = [_csv_text(name.encode()) for name in self._places]
        if fields[0].startswith(codecs.BOM_UTF8):  # a letter of the name, and no mark of the file
            fields[0] = b'"%b"' % fields[0]
        return b",".join(fields) + b"\r\n"


def _csv_value(raw: bytes) -> bytes:
    """``raw``: a JSON value as it stands. Arrays and objects stay JSON."""
    if not raw.startswith(b'"'):
        return b"" if raw == b"null" else _csv_text(raw)
    return _csv_text(msgspec.json.decode(raw, type=str).encode() if b"\\" in raw else raw[1:-1])


def _csv_text(text: bytes) -> bytes:
    special = not text or b"," in text or b'"' in text or b"\n" in text or b"\r" in text
    return _quoted(text) if special else text


def _quoted(text: bytes) -> bytes:
    return b'"' + text.replace(b'"', b'""') + b'"'


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _SLICE_BYTES] for at in range(0, len(data), _SLICE_BYTES))


def _steps(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines joined: a few bytes can be many, since a record repeats the header's names."""
    out = bytearray()
    try:
        for line in lines:
            out += line
            if len(out) >= STEP_BYTES:
                yield bytes(out)
                out.clear()
    except ValueError:
        yield bytes(out)  # what comes before it is right
        raise
    yield bytes(out)


class _Records:
    """Whole records out of pieces, without the LF that ends each; ``quoted``: an LF within two quotes ends none.

    ``number``: of the record that was yielded last, from 1.
    """

    def __init__(self, *, quoted: bool) -> None:
        self.number = 0
        self._quoted = quoted
        self._held = bytearray()
        self._within = False
        self._at = 0  # where what is held begins in the body

    def split(self, data: bytes) -> Iterator[str]:
        """Yield the records that ``data`` completes, and hold what follows them."""
        end = self._end(data)
        block = bytes(self._held) + data[:end] if end else b""
        if end:
            self._held.clear()
        self._held += data[end:]
        yield from self._texts(block)
        self._at += len(block)
        if len(self._held) > RECORD_BYTES:
            raise ValueError(f"Record {self.number + 1} has more than {RECORD_BYTES} bytes.")

    def rest(self) -> Iterator[str]:
        """Yield the last record, which need not have an end."""
        if self._within:
            raise ValueError(f"Record {self.number + 1} ends within a quoted field, or has one quote too many.")
        if self._held:
            yield from self.split(b"\n")

    def _end(self, data: bytes) -> int:
        """Return where the last record that ends in ``data`` does, behind its LF; 0 when none does."""
        if not self._quoted or b'"' not in data:
            return 0 if self._within else data.rfind(b"\n") + 1
        parts = data.split(b'"')
        end, inside = len(data), self._within ^ (len(parts) % 2 == 0)
        self._within = inside
        for part in reversed(parts):
            if not inside and (found := part.rfind(b"\n")) >= 0:
                return end - len(part) + found + 1
            end -= len(part) + 1
            inside = not inside
        return 0

    def _texts(self, block: bytes) -> Iterator[str]:
        failure = None
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            text = block[: error.start].decode()
            failure = ValueError(f"Byte {self._at + error.start} of the body is not UTF-8.")
        for record in self._whole(text) if failure is None else self._begun(text):
            self.number += 1
            if len(record) > RECORD_BYTES // 4 and len(record.encode()) > RECORD_BYTES:
                raise ValueError(f"Record {self.number} has more than {RECORD_BYTES} bytes.")
            yield record.removeprefix("\ufeff") if self.number == 1 else record
        if failure is not None:
            raise failure

    def _whole(self, text: str) -> list[str]:
        """Return the records of a text that ends with the last one's end."""
        if self._quoted and '"' in text:
            return _RECORD.findall(text)
        return text.split("\n")[:-1]

    def _begun(self, text: str) -> Iterator[str]:
        """Yield the records of a text that may end in the middle of one."""
        if not self._quoted:
            yield from text.split("\n")[:-1]
            return
        at = 0
        while (found := _RECORD.match(text, at)) is not None:
            yield found[1]
            at = found.end()

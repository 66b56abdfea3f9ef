"""CSV (RFC 4180) to NDJSON and back, record by record.

Rules:
- ``decode(bytes) -> iterator of bytes`` and ``flush() -> bytes``; a step gives whole records, some 64 KiB, or nothing.
- A record has at most 1 MiB (``whole_records``) and 16,384 fields: nothing that has no end is held, no step takes long.
- NULL is an empty field in CSV, and the empty string is ``""``, as in PostgreSQL's COPY and our exports; in JSON they
  are null and "". From CSV every value is a string. Numbers of JSON are written as they stand, to the last digit.
- What is no CSV or no JSON object, or does not fit the header, raises ValueError that names the record, from 1.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from streaming.whole_records import Records

FIELDS = 2**14
STEP_BYTES = 64 * 1024
_SLICE_BYTES = 8 * 1024  # of empty lines, which cost as much as full ones

# A field and the comma behind it (RFC 4180, 2, rules 5 to 7).
_FIELD = re.compile(r'("(?:[^"]++|"")*+"|[^",\r\n]*+),')
# What a value in JSON does not show as it stands.
_ODD = re.compile(rb'[\x00-\x09\x0b\x0c\x0e-\x1f"\\]')
# A value in JSON that CSV shows as it stands, but for a text's quotes; null is an empty field. In a wider table they
# are not looked for.
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_VALUE = rf'(?:null|("[^"\\,\x00-\x1f]+"|{_NUMBER}|true|false))'
_PLAIN_FIELDS = 64
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class CSVToNDJSON:
    """The first record is the header; each further one becomes an object with its names, in their order."""

    def __init__(self) -> None:
        self._records = Records(quoted=True)
        self._names: list[str] = []
        self._form = ""  # of a line whose values need no escapes

    def decode(self, data: bytes) -> Iterator[bytes]:
        return _converted(data, self._records, self._plain, self._line)

    def flush(self) -> bytes:
        return b"".join(map(self._line, self._records.rest()))

    def _plain(self, block: bytes) -> bytes | None:
        """Return the lines of a block as nearly all are, at once: the same ones, some five times as quick.

        None: it has quotes, escapes, a line that does not fit, or is too large for one step.
        """
        if not self._names or len(block) > STEP_BYTES or _ODD.search(block):
            return None
        try:
            rows = block.decode().replace("\r\n", "\n").split("\n")[:-1]
        except UnicodeDecodeError:
            return None
        commas = len(self._names) - 1
        if len(self._form) * len(rows) > STEP_BYTES or any(row.count(",") != commas or "\r" in row for row in rows):
            return None
        self._records.passed(block, len(rows))
        lines = self._form * len(rows) % tuple(",".join(rows).split(",")) if rows else ""
        # Without quotes in them, nothing but an empty value makes two after a colon.
        return lines.replace(':""', ":null").encode()

    def _line(self, record: str) -> bytes:
        record = record.removesuffix("\r")
        if not record and len(self._names) != 1:
            return b""  # an empty line; in a table of one column it is a NULL
        if not self._names:
            self._names = self._header(record)
            keys = (_encode(name).decode().replace("%", "%%") for name in self._names)
            self._form = "{" + ",".join(f'{key}:"%s"' for key in keys) + "}\n"
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
        self._records = Records(quoted=False)
        self._places: dict[str, int] = {}
        self._form: re.Pattern[str] | None = None  # of a line with the header's keys and plain values
        self._row = ""

    def decode(self, data: bytes) -> Iterator[bytes]:
        return _converted(data, self._records, self._plain, self._line)

    def flush(self) -> bytes:
        return b"".join(map(self._line, self._records.rest()))

    def _plain(self, block: bytes) -> bytes | None:
        """Return the rows of a block as nearly all are, at once: the same ones, some four times as quick.

        None: it has other lines than objects with the header's keys in its order and values that need no quotes.
        """
        if self._form is None or len(block) > STEP_BYTES:
            return None
        try:
            rows, count = self._form.subn(self._row, block.decode())
        except UnicodeDecodeError:
            return None
        if count != block.count(b"\n"):
            return None
        self._records.passed(block, count)
        return rows.replace('"', "").encode()  # there are none but those around a text

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
        if len(self._places) <= _PLAIN_FIELDS:
            keys = (re.escape(_encode(name).decode()) for name in self._places)
            self._form = re.compile("^{" + ", ?".join(f"{key}: ?{_VALUE}" for key in keys) + "}\r?\n", re.MULTILINE)
            self._row = ",".join(rf"\g<{place + 1}>" for place in self._places.values()) + "\r\n"
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


def _converted(
    data: bytes, records: Records, plain: Callable[[bytes], bytes | None], line: Callable[[str], bytes]
) -> Iterator[bytes]:
    """Yield what the records are that ``data`` completes: a block of them by ``plain``, or each by ``line``."""
    for at in range(0, len(data), _SLICE_BYTES):
        block = records.take(data[at : at + _SLICE_BYTES])
        if (made := plain(block)) is not None:
            yield made
        else:
            yield from _steps(map(line, records.texts(block)))
        records.check()


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

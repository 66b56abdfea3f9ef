"""The rows of an export as an Arrow IPC stream, made of the database's lines of CSV (an extra: requirements-arrow.txt).

Rules:
- A block of lines is a record batch; the schema leaves first, before any row.
- The types are the columns': a value of another type (SQLite allows it) fails the stream, which is cut.
- Decimals have no bound in the database, so they are text, exact; blobs are binary, instants microseconds in UTC.
- An empty field in quotes is the empty string, and without them NULL.
"""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from stores.tables import ColumnType
from streaming.errors import StreamFailed
from streaming.events import Event

_TYPES: dict[str, Any] = {
    "integer": pa.int64(),
    "real": pa.float64(),
    "boolean": pa.bool_(),
    "blob": pa.binary(),
    "date": pa.date32(),
    "instant": pa.timestamp("us", "UTC"),
    "datetime": pa.timestamp("us"),
}
_TEXT = pa.string()


class Arrow:
    content_type = "application/vnd.apache.arrow.stream"
    headers: Mapping[str, str] = {}
    error = None
    drain = None

    def __init__(self, columns: Sequence[str], types: Sequence[ColumnType]) -> None:
        # The names stay out of the parser, which would refuse two that are the same.
        self._names = [f"c{at}" for at in range(len(columns))]
        self._types = [_TYPES.get(each, _TEXT) for each in types]
        self._schema = pa.schema(list(zip(columns, self._types, strict=True)))
        self._out = io.BytesIO()
        self._writer: Any = None

    def open(self) -> bytes:
        self._writer = pa.ipc.new_stream(self._out, self._schema)
        return self._taken()

    def encode(self, event: Event) -> bytes:
        try:
            self._writer.write_table(self._table(event.data))
        except (pa.ArrowException, ValueError) as error:
            raise StreamFailed("A value is not of its column's type, and Arrow has no place for it.") from error
        return self._taken()

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return data

    def _table(self, lines: bytes) -> Any:
        parsed = pa_csv.read_csv(
            pa.py_buffer(lines + b"\r\n"),
            # One block: the parser would refuse a line that is longer than its block.
            pa_csv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(lines) + 3),
            pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            pa_csv.ConvertOptions(
                column_types={
                    name: _TEXT if type == pa.binary() else type
                    for name, type in zip(self._names, self._types, strict=True)
                },
                null_values=[""],
                true_values=["true"],
                false_values=["false"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        arrays = [
            _decoded(column) if type == pa.binary() else column
            for column, type in zip(parsed.columns, self._types, strict=True)
        ]
        return pa.table(arrays, schema=self._schema)


def _decoded(column: Any) -> Any:
    texts = column.to_pylist()
    return pa.array([None if text is None else b64decode(text, validate=True) for text in texts], pa.binary())

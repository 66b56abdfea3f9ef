"""SQL expressions that show a column of PostgreSQL as the exports write it.

Rules:
- What SQLite can hold too is written as it is there, byte for byte: a real with its point, blobs in base64.
- Instants are ISO 8601 in UTC with Z, times without a zone have none; ``SETTINGS`` of the session do the rest.
- NDJSON: decimals are strings, NaN and the infinities null, ``json`` as it is, arrays and rows as JSON. In CSV these
  are their JSON text.
- COPY quotes the CSV; a row of NDJSON is one field in quotes that JSON cannot hold (\\x01), so COPY leaves it alone.
"""

from __future__ import annotations

from stores.postgres_schema import Column, Shape, quoted
from stores.tables import Query, Rows

SETTINGS = (
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'iso_8601'; "
    "SET LOCAL extra_float_digits = 1; SET LOCAL client_encoding = 'UTF8'; "
    # Compiling a query takes longer than its first rows; and one export is not to take every core.
    "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0; "
    # Rows of one key come in the same order again.
    "SET LOCAL synchronize_seqscans = off"
)
COPY_OPTIONS: dict[Rows, str] = {
    "csv": "FORMAT csv",
    "ndjson": "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'",
}
DELIMITERS: dict[Rows, bytes] = {"csv": b",", "ndjson": b"\x02"}

_FORMULA_STARTS = "'=', '+', '-', '@', E'\\t', E'\\r', E'\\n'"
_NUMBER = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"
# Of these a key is its JSON value as text; of the others JSON shows something else.
_KEYS_IN_JSON = ("integer", "decimal", "text", "instant", "datetime", "date", "time", "blob")


def line(form: Rows, shape: Shape, query: Query) -> str:
    """Return the select list of the rows: the key in hex first, where ``hides_key`` says so, then the line."""
    hidden = [f"encode(convert_to(({text(shape.key)})::text, 'UTF8'), 'hex')"] if hides_key(form, shape, query) else []
    columns = [shape.column(name) for name in query.columns]
    if form == "csv":
        return ", ".join([*hidden, *(_guarded(each) if query.guarded else text(each) for each in columns)])
    pairs = ", ".join(f"{_json(each)} AS {quoted(each.name)}" for each in columns)
    row = f"row_to_json((SELECT s FROM (SELECT {pairs}) AS s))::text"
    if any(each.nested or each.type == "json" for each in columns):
        row = f"translate({row}, E'\\n\\r', '  ')"  # json is kept as it was written, with its line ends
    return ", ".join([*hidden, row])


def hides_key(form: Rows, shape: Shape, query: Query) -> bool:
    """Whether a row's key cannot be read from its line."""
    key = shape.key
    if key.name not in query.columns:
        return True
    if form == "csv":
        return query.guarded and key.type in ("text", "json", "any")
    return key.type not in _KEYS_IN_JSON


def order(shape: Shape, descending: bool) -> str:
    """Return what the rows are ordered by, with NULL where PostgreSQL has it: at the end, which an index gives."""
    return f"{comparable(shape.key)}{' DESC' if descending else ''}"


def comparable(column: Column) -> str:
    """Return an expression of the column that every operator takes: itself, or its text where its type has none."""
    return text(column) if column.type in ("json", "any") else _column(column)


def text(column: Column) -> str:
    """Return the column as CSV shows it; NULL stays NULL."""
    c = _column(column)
    match column.type:
        case "real":
            # Whole numbers have their point, below the size from which the shortest form has an exponent.
            most = "1e6" if column.sql_type == "real" else "1e15"
            return f"CASE WHEN {c} = trunc({c}) AND abs({c}) < {most} THEN {c}::text || '.0' ELSE {c}::text END"
        case "boolean" | "date" | "time" | "json":
            return f"{c}::text"
        case "blob":
            return f"translate(encode({c}, 'base64'), E'\\n', '')"
        case "instant":
            since = f"{c} >= '0001-01-01 00:00:00+00'::timestamptz"
            return f"CASE WHEN {since} THEN replace(replace({c}::text, ' ', 'T'), '+00', 'Z') ELSE {c}::text END"
        case "datetime":
            return f"CASE WHEN {c} >= '0001-01-01'::timestamp THEN replace({c}::text, ' ', 'T') ELSE {c}::text END"
        case "any":
            # What the type itself writes, where a cast to text may write something else (inet).
            return f"CASE WHEN {c} IS NOT NULL THEN {_nested(column) + '::text' if column.nested else _plain(c)} END"
    return c


def _json(column: Column) -> str:
    c = _column(column)
    match column.type:
        case "real":
            whole = f"WHEN {c} = trunc({c}) AND abs({c}) < 1e15 THEN ({text(column)})::json"
            return f"CASE WHEN {c} IN ('NaN', 'Infinity', '-Infinity') THEN NULL {whole} ELSE to_json({c}) END"
        case "decimal":
            return f"{c}::text"
        case "json" | "boolean":
            return c
        case "any":
            return _nested(column)
    return text(column)


def _nested(column: Column) -> str:
    exact = "::text[]" if column.sql_type == "numeric[]" else ""
    return f"to_json({_column(column)}{exact})"


def _plain(c: str) -> str:
    return f"format('%s', {c})"


def _guarded(column: Column) -> str:
    shown = text(column)
    if column.type not in ("text", "json", "any"):
        return shown
    return (
        f"CASE WHEN left({shown}::text, 1) IN ({_FORMULA_STARTS}) AND {shown}::text !~ '{_NUMBER}' "
        f"THEN '''' || {shown}::text ELSE {shown}::text END"
    )


def _column(column: Column) -> str:
    return f"t.{quoted(column.name)}"

"""SQL expressions that make one line of CSV or NDJSON of a row, and the functions that SQLite lacks for them.

Rules:
- A type belongs to a value, not to a column: each expression is right for integer, real, text, blob and NULL.
- The common cases stay in SQL, out of Python's lock; a Python function is called only for a blob, and for a real
  that is no decimal of up to four places. SQLite 3.40 prints 15 digits of a real, which do not give 0.1 + 0.2 back.
- ``c < x''`` holds for every number and text and for no blob: SQLite sorts blobs last. It costs no function call.
- NDJSON: blobs base64, NULL and the infinities null, NUL ``\\u0000``.
- Reals are written as Python has them and as PostgreSQL's shortest form has its exponents: the two engines agree.
- CSV: RFC 4180, and of PostgreSQL's COPY the quotes: around what holds a comma, quote, CR or LF, around the empty
  string (NULL is the empty field), and around a ``\\.`` alone on its line. Infinities as COPY writes them.
"""

from __future__ import annotations

import base64
import math
import re
import sqlite3
from collections.abc import Sequence
from decimal import Decimal

from stores import csv_fields
from stores.sqlite_schema import Shape, quoted
from stores.tables import Rows

LINE_ENDS: dict[Rows, str] = {"csv": "\r\n", "ndjson": "\n"}

# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection"), and a number, which is none.
FORMULA_STARTS = "=+@\t\r\n-"
NUMBER = r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"

_NULL_FIELD = f"CAST(x'{csv_fields.NULL.hex()}' AS TEXT)"
_PAIRS = 60  # of json_object: SQLite 3.40 takes 127 arguments
_PARTS = 100  # of one chain of ||: SQLite takes expressions 1000 deep


def base64_text(blob: bytes) -> str:
    """Return RFC 4648 base64."""
    return base64.b64encode(blob).decode("ascii")


def install(connection: sqlite3.Connection) -> None:
    """Give ``connection`` the functions that the expressions below call."""
    for function in (base64_text, json_real, csv_real, guarded_field):
        connection.create_function(function.__name__, 1, function, deterministic=True)
    connection.execute("PRAGMA case_sensitive_like = ON")  # LIKE as PostgreSQL and the standard have it


def json_real(value: float) -> str:
    """Return the shortest JSON number that reads back as ``value``; JSON has no infinity."""
    return decimal_text(value) if math.isfinite(value) else "null"


def csv_real(value: float) -> str:
    """Return the shortest decimal that reads back as ``value``, and PostgreSQL's names of the infinities."""
    if math.isfinite(value):
        return decimal_text(value)
    return "Infinity" if value > 0 else "-Infinity"


def decimal_text(value: float) -> str:
    """Return the shortest decimal of a finite real as PostgreSQL has it, with ``.0`` behind a whole one.

    It differs from repr in two things. The exponent begins at 1e15, not at 1e16. And a decimal that lies exactly half
    way to the next real does not count, which round-half-even would read back: then there are more digits.
    """
    text = repr(value)
    if abs(value) >= 2**53 and _is_half_way(text, value):
        longer = (f"{value:.{places}e}" for places in range(17))
        return next(each for each in longer if float(each) == value and not _is_half_way(each, value))
    if 1e15 <= abs(value) < 1e16:
        sign, digits = ("-", text[1:]) if value < 0 else ("", text)
        digits = digits.replace(".", "").rstrip("0")
        return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e+15"
    return text


def _is_half_way(text: str, value: float) -> bool:
    """Whether the decimal ``text`` of a large real lies in the middle between it and its neighbour."""
    exact = int(abs(value))
    off = int(abs(Decimal(text))) - exact
    gap = int(math.ulp(value)) if off > 0 else exact - int(math.nextafter(abs(value), 0.0))
    return 2 * abs(off) == gap


def guarded_field(text: bytes) -> str:
    """Return the CSV field of a text that begins like a formula, with an apostrophe before what is no number."""
    field = text.decode(errors="replace")
    if re.fullmatch(NUMBER, field, re.ASCII) is None:
        field = "'" + field
    return '"' + field.replace('"', '""') + '"' if re.search('[",\r\n]', field) else field


def line(form: Rows, shape: Shape, columns: Sequence[str], careful: bool = False, guarded: bool = False) -> str:
    """Return an expression over the table ``t`` whose value is the row's line, without a line end, never NULL.

    ``careful``: right also for CSV of text with NUL, at which the faster GLOB stops. ``guarded``: see Query.
    """
    if form == "ndjson":
        return _json_line(shape, columns)
    alone = len(columns) == 1
    fields = [_csv_value(shape, name, careful, alone, guarded) for name in columns]
    return _concatenated([fields[0], *(part for each in fields[1:] for part in ("','", each))])


def _json_line(shape: Shape, columns: Sequence[str]) -> str:
    pairs = [f"{_literal(name)}, {_json_value(shape, name)}" for name in columns]
    objects = [f"json_object({', '.join(pairs[at : at + _PAIRS])})" for at in range(0, len(pairs), _PAIRS)]
    if len(objects) == 1:
        return objects[0]
    # No value here is an object, so exactly one brace stands at each end.
    inner = [f"trim({each}, '{{}}')" for each in objects]
    return _concatenated(["'{'", inner[0], *(part for each in inner[1:] for part in ("','", each)), "'}'"])


def _json_value(shape: Shape, name: str) -> str:
    c = _column(name)
    if _is_integer_key(shape, name):
        return c
    real = "" if name in shape.texts else f"WHEN {_is_long_real(c)} THEN json(json_real({c})) "
    return f"CASE {real}WHEN {c} < x'' THEN {c} WHEN {c} IS NOT NULL THEN base64_text({c}) END"


def _csv_value(shape: Shape, name: str, careful: bool, alone: bool, guarded: bool) -> str:
    c = _column(name)
    if _is_integer_key(shape, name):
        return c
    cases = [
        f"WHEN {c} >= x'' THEN CASE WHEN {c} = x'' THEN '\"\"' ELSE base64_text({c}) END",
        f"WHEN {_has_special(c, careful)} THEN '\"' || replace({c}, '\"', '\"\"') || '\"'",
        f"WHEN {c} = '' THEN '\"\"'",
    ]
    if name not in shape.texts:
        cases[1:1] = [f"WHEN typeof({c}) = 'integer' THEN {c}", f"WHEN {_is_long_real(c)} THEN csv_real({c})"]
    if guarded:
        formula = f"typeof({c}) = 'text' AND {c} GLOB '[{FORMULA_STARTS}]*'"
        cases[1:1] = [f"WHEN {formula} THEN guarded_field(CAST({c} AS BLOB))"]
    if alone:
        cases.append(f"WHEN {c} = '\\.' THEN '\"\\.\"'")
    return f"ifnull(CASE {' '.join(cases)} ELSE {c} END, '')"


def fields(shape: Shape, columns: Sequence[str]) -> str:
    """Return an expression over the table ``t`` whose value is the row for ``csv_fields``."""
    values = [_field(shape, name) for name in columns]
    between = f"'{csv_fields.FIELD.decode()}'"
    return _concatenated([values[0], *(part for each in values[1:] for part in (between, each))])


def _field(shape: Shape, name: str) -> str:
    c = _column(name)
    if _is_integer_key(shape, name):
        return c
    real = f"WHEN {_is_long_real(c)} THEN csv_real({c}) " if name not in shape.texts else ""
    value = f"t.{quoted(name)}"
    return f"CASE {real}WHEN {c} < x'' THEN {value} WHEN {value} IS NULL THEN {_NULL_FIELD} ELSE base64_text({c}) END"


def _has_special(c: str, careful: bool) -> str:
    # GLOB '*x*' looks for a plain x at the speed of strcspn (0.9 M rows/s, where instr gives 0.6), and stops at a NUL.
    characters = (",", '"', "\n", "\r")
    return " OR ".join(f"instr({c}, '{each}')" if careful else f"{c} GLOB '*{each}*'" for each in characters)


def _is_long_real(c: str) -> str:
    # m / 1e4 with an integer m below 2**53 is rounded once, so when it gives c the decimal with these four places reads
    # back as c, and SQLite's 15 digits are that decimal.
    return f"typeof({c}) = 'real' AND NOT (abs({c}) < 1e11 AND round({c} * 1e4) / 1e4 = {c})"


def _is_integer_key(shape: Shape, name: str) -> bool:
    return name == shape.key.name and shape.key.is_rowid


def _column(name: str) -> str:
    # Binary: 'A' = 'a' must not hold, nor a collation be asked for that only the operator's program knows. The plus
    # takes the affinity away: under TEXT, 0.1 + 0.2 would equal '0.3'.
    return f"(+t.{quoted(name)} COLLATE BINARY)"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _concatenated(parts: Sequence[str]) -> str:
    if len(parts) <= _PARTS:
        return "(" + " || ".join(parts) + ")"
    groups = [parts[at : at + _PARTS] for at in range(0, len(parts), _PARTS)]
    return _concatenated([_concatenated(each) for each in groups])

"""Conditions on the rows of a SQLite table: which come after a key, and which meet a filter.

Rules:
- What SQLite gets is the column's quoted name, an operator out of a table, and a question mark: values are bound.
- A value is what its column would hold: an integer column takes an integer, and anything else is refused in a sentence.
- A column without a type holds each value as it came, so each is compared as what it is.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from stores.errors import BadFilter, BadKey
from stores.sqlite_schema import Shape, quoted
from stores.tables import Filter

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_COMPARED = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "in": "="}

Parameters = tuple[Any, ...]


class _Unfit(Exception):
    """A value that its column cannot hold; its text completes "The column x "."""


def after_condition(shape: Shape, after: str, key: str, beyond: str = ">") -> tuple[str, Parameters]:
    """Return the condition on the expression ``key`` and its parameters for the rows after the key ``after``.

    ``after`` is the key as the export shows it: blobs are base64. Raises BadKey.
    """
    try:
        return _compared(key, beyond, shape.key.affinity, after)
    except _Unfit as error:
        raise BadKey(f"The key {shape.key.name} {error}") from None


def conditions(shape: Shape, filters: Sequence[Filter]) -> tuple[str, Parameters]:
    """Return `` AND …`` for the filters, over the table ``t``, and its parameters. Raises BadFilter."""
    sql = ""
    parameters: list[Any] = []
    for each in filters:
        try:
            condition, values = _condition(shape, each)
        except _Unfit as error:
            raise BadFilter(f"The column {each.column} {error}", each.column, each.operator) from None
        sql += f" AND ({condition})"
        parameters += values
    return sql, tuple(parameters)


def _condition(shape: Shape, wanted: Filter) -> tuple[str, Parameters]:
    c, affinity = f"t.{quoted(wanted.column)}", shape.affinity_of(wanted.column)
    match wanted.operator:
        case "null" | "notnull":
            return f"{c} IS {'NOT ' if wanted.operator == 'notnull' else ''}NULL", ()
        case "like":
            if affinity in ("INTEGER", "REAL"):
                raise _Unfit("holds no text, and like is for text.")
            return f"{c} LIKE ? ESCAPE '\\'", (like_pattern(wanted.values[0]),)
    each = [_compared(c, _COMPARED[wanted.operator], affinity, value) for value in wanted.values]
    return " OR ".join(sql for sql, _ in each), tuple(value for _, values in each for value in values)


def like_pattern(pattern: str) -> str:
    """Return ``pattern`` if it is one: ``%`` is any text, ``_`` any character, a backslash takes away their meaning."""
    if re.fullmatch(r"(?s)([^\\]|\\.)*", pattern) is None:
        raise _Unfit("takes no pattern that ends with a backslash, which escapes what follows.")
    return _text(pattern)


def _compared(c: str, operator: str, affinity: str, value: str) -> tuple[str, Parameters]:
    text, number = _text(value), _number(value)
    match affinity:
        case "INTEGER":
            if not isinstance(number, int):
                raise _Unfit(f"must be an integer, and {value!r} is not.")
            return f"{c} {operator} ?", (number,)
        case "REAL":
            if number is None:
                raise _Unfit(f"must be a number, and {value!r} is not.")
            return f"{c} {operator} ?", (number,)
        case "TEXT":
            return f"{c} {operator} ?", (text,)
        case "NUMERIC":
            return f"{c} {operator} ?", (text if number is None else number,)
    # Without an index, but once only.
    kinds = f"CASE typeof({c}) WHEN 'text' THEN {c} {operator} ? WHEN 'blob' THEN {c} {operator} ?"
    return f"{kinds} ELSE {c} {operator} ? END", (text, _blob(value), number)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unfit("holds text, and this is no Unicode text.") from None
    return value


def _number(text: str) -> int | float | None:
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def _blob(text: str) -> bytes | None:
    with suppress(ValueError):
        return b64decode(text, validate=True)
    return None

"""Conditions on the rows of a PostgreSQL table: which come after a key, and which meet a filter.

Rules:
- COPY takes no parameters. So each value is bound to a setting of the transaction (``set_config``), and the statement
  reads it back: what a caller sends never stands in SQL, not even quoted.
- Each is read in a sub-select of its own, once for the whole statement and not once a row.
- A value is checked before the first byte, by this module and by PostgreSQL's own cast to the column's type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import Connection, sql

from stores.errors import BadFilter, BadKey
from stores.postgres_lines import comparable
from stores.postgres_schema import Column, Shape, quoted
from stores.tables import Filter, Query

_COMPARED = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
# PostgreSQL's own casts take more: 0x10, 1_000, " 1", yes, and a date called tomorrow.
_RULES = {
    "integer": (r"[+-]?[0-9]{1,19}", "an integer"),
    "real": (r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity", "a number"),
    "decimal": (r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?|NaN|-?Infinity", "a number"),
    "boolean": (r"true|false", "true or false"),
    "date": (r"-?[0-9]{4,6}-[0-9].*|-?infinity", "a date"),
    "instant": (r"-?[0-9]{4,6}-[0-9].*|-?infinity", "a time in ISO 8601"),
    "datetime": (r"-?[0-9]{4,6}-[0-9].*|-?infinity", "a time in ISO 8601"),
    "blob": (r"[A-Za-z0-9+/]*={0,2}", "base64"),
}


class _Unfit(Exception):
    """A value that its column cannot hold; its text completes "The column x "."""


class Conditions:
    """What stands after WHERE for a query, and the values that belong to it.

    ``settings``: name and value of each. The names are ours; the values go through ``set_config``.
    """

    def __init__(self, shape: Shape, query: Query) -> None:
        self.settings: list[tuple[str, str | list[str]]] = []
        parts = [self._after(shape.key, query.after, query.descending)] if query.after is not None else []
        parts += [self._filter(shape.column(each.column), each) for each in query.filters]
        self.sql = " AND ".join(parts) or "TRUE"

    def bind(self, connection: Connection[Any]) -> None:
        """Give the values to the transaction of ``connection``. Raises psycopg.Error."""
        for name, value in self.settings:
            cast = "::text[]" if isinstance(value, list) else ""
            statement = sql.SQL("SELECT set_config({}, %s{}::text, true)").format(sql.Literal(name), sql.SQL(cast))
            connection.execute(statement, (value,))

    def _after(self, key: Column, after: str, descending: bool) -> str:
        condition = f"{comparable(key)} {'<' if descending else '>'} {self._value(key, after)}"
        # NULL is behind every key; against the order it comes first.
        return condition if descending or key.required else f"({condition} OR t.{quoted(key.name)} IS NULL)"

    def _filter(self, column: Column, wanted: Filter) -> str:
        c = comparable(column)
        match wanted.operator:
            case "null" | "notnull":
                return f"t.{quoted(column.name)} IS {'NOT ' if wanted.operator == 'notnull' else ''}NULL"
            case "like":
                return f"{c}::text LIKE {self._setting(wanted.values[0], 'text')}"
            case "in":
                array = self._setting(list(wanted.values), f"{_type(column)}[]")
                return f"{c} = ANY ({array}::{_type(column)}[])"
        return f"{c} {_COMPARED[wanted.operator]} {self._value(column, wanted.values[0])}"

    def _value(self, column: Column, value: str) -> str:
        return self._setting(value, _type(column))

    def _setting(self, value: str | list[str], type: str) -> str:
        name = f"perennial.v{len(self.settings)}"
        self.settings.append((name, value))
        if type == "bytea":
            return f"(SELECT decode(current_setting('{name}'), 'base64'))"
        return f"(SELECT current_setting('{name}')::{type})"


def check(connection: Connection[Any], shape: Shape, query: Query) -> None:
    """Raise BadKey or BadFilter where a value cannot be one of its column; else return."""
    if query.after is not None:
        try:
            _check(connection, shape.key, [query.after])
        except _Unfit as error:
            raise BadKey(f"The key {shape.key.name} {error}") from None
    for each in query.filters:
        column = shape.column(each.column)
        try:
            _check_filter(connection, column, each)
        except _Unfit as error:
            raise BadFilter(f"The column {each.column} {error}", each.column, each.operator) from None


def _check_filter(connection: Connection[Any], column: Column, wanted: Filter) -> None:
    if wanted.operator == "like":
        if column.type not in ("text", "json", "any"):
            raise _Unfit("holds no text, and like is for text.")
        _check_text(wanted.values[0])
        if re.fullmatch(r"(?s)([^\\]|\\.)*", wanted.values[0]) is None:
            raise _Unfit("takes no pattern that ends with a backslash, which escapes what follows.")
    elif wanted.operator == "in" and column.type == "blob":
        raise _Unfit("holds bytes, and in is not for those.")
    elif wanted.values:
        _check(connection, column, wanted.values)


def _check(connection: Connection[Any], column: Column, values: Sequence[str]) -> None:
    pattern, rule = _RULES.get(column.type, (r"(?s).*", "text"))
    for value in values:
        _check_text(value)
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise _Unfit(f"must be {rule}, and {value!r} is not.")
    cast = sql.SQL("SELECT decode(%s, 'base64')" if column.type == "blob" else f"SELECT %s::text[]::{_type(column)}[]")
    try:
        connection.execute(cast, (values[0] if column.type == "blob" else list(values),))
    except psycopg.DataError:
        shown = ", ".join(map(repr, values[:3]))
        raise _Unfit(f"must be of the type {column.sql_type}, and {shown} is not.") from None


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Unfit("holds text, and this is no Unicode text.") from None
    if "\0" in value:
        raise _Unfit("takes no value with NUL, which PostgreSQL cannot hold.")


def _type(column: Column) -> str:
    """The type that ``comparable`` gives."""
    return "text" if column.type in ("json", "any") else column.sql_type

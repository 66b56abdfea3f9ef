"""What a request asks of the operator's tables: the parameters of an export as a checked ``Query``.

Rules:
- A condition is a parameter ``<column>.<operator>``; several hold together. Names are checked against the schema,
  values against their column's type, and a refusal is a 400 that names the parameter.
"""

from __future__ import annotations

import re

from flask import request

from stores.errors import BadFilter, BadKey, UnknownColumn, UnknownTable
from stores.tables import Filter, Operator, Query, Tables
from streaming.cursors import Parameters
from streaming.errors import BadRequest, NotFound

NAMES = ("table", "columns", "after", "limit", "order")
_OPERATORS: tuple[Operator, ...] = ("eq", "ne", "gt", "ge", "lt", "le", "like", "in")
# Longer ones first: ``.is.null`` also ends with ``.null``.
ENDINGS = (*(f".{each}" for each in _OPERATORS), ".is.null", ".is")
_MOST_FILTERS = 32
_MOST_VALUES = 1000


def read_query(asked: Parameters, tables: Tables, table: str = "", guarded: bool = False) -> Query:
    """Return the query of the current request; ``table`` where the path names it. Raises NotFound, BadRequest."""
    table = table or asked.text("table", "users", r"(?s).{1,128}", "1 to 128 characters")
    columns = asked.text("columns", "", r"(?s).{1,4096}", "names of columns, comma-separated")
    after = asked.text("after", "", r"(?s).{0,1024}", "at most 1,024 characters") if asked.has("after") else None
    limit = asked.optional_integer("limit", 0, 10**9)
    order = asked.text("order", "asc", r"(?s).{1,140}", "asc, desc, or the key with .asc or .desc")
    names = columns.split(",") if columns else ()
    filters = _filters()
    try:
        descending = order == "desc" or order.endswith(".desc")
        query = tables.select(table, names, after, limit, filters=filters, descending=descending, guarded=guarded)
    except UnknownTable as error:
        raise NotFound(str(error), parameter="table") from error
    except UnknownColumn as error:
        unknown = [each for each in filters if f"{each.column!r}" in str(error) and each.column not in names]
        raise BadRequest(str(error), parameter=_parameter(unknown[0]) if unknown else "columns") from error
    except BadKey as error:
        raise BadRequest(str(error), parameter="after") from error
    except BadFilter as error:
        raise BadRequest(str(error), parameter=f"{error.column}.{error.operator}") from error
    key = query.table.key
    if order not in ("asc", "desc", key, f"{key}.asc", f"{key}.desc"):
        raise BadRequest(f"order must be asc, desc, {key}, {key}.asc or {key}.desc: the key's.", parameter="order")
    return query


def _filters() -> list[Filter]:
    found = [
        _filter(name, value)
        for name in request.args
        if name not in NAMES and name.endswith(ENDINGS)
        for value in request.args.getlist(name)
    ]
    if len(found) > _MOST_FILTERS:
        raise BadRequest(f"At most {_MOST_FILTERS} conditions may be given, and {len(found)} came.")
    return found


def _filter(name: str, value: str) -> Filter:
    ending = next(each for each in ENDINGS if name.endswith(each))
    column = name.removesuffix(ending)
    if len(value) > 65536:
        raise BadRequest(f"{name} may have at most 65,536 characters.", parameter=name)
    match ending:
        case ".is.null" | ".is":
            return Filter(column, _null(name, ending, value))
        case ".in":
            values = tuple(value.split(","))
            if len(values) > _MOST_VALUES:
                raise BadRequest(f"{name} may name at most {_MOST_VALUES} values.", parameter=name)
            return Filter(column, "in", values)
    operator = next(each for each in _OPERATORS if ending == f".{each}")
    return Filter(column, operator, (value,))


def _null(name: str, ending: str, value: str) -> Operator:
    null = {"": "null", "1": "null", "0": "notnull"} if ending == ".is.null" else {"null": "null", "notnull": "notnull"}
    if value not in null:
        raise BadRequest(f"{name} must be {' or '.join(filter(None, null))}.", parameter=name)
    return "null" if null[value] == "null" else "notnull"


def _parameter(wanted: Filter) -> str:
    """The name under which the request gave the condition."""
    return next((name for name in request.args if re.match(re.escape(wanted.column) + r"\.", name)), wanted.column)

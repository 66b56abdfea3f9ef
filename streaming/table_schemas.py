"""What is told of the operator's tables: the list of them, and of one its schema as CSV on the Web has it.

``listing`` is what ``GET /api/export`` answers; ``csvw`` is the metadata document of one export (W3C, Metadata
Vocabulary for Tabular Data, 5), found by a client that looks beside ``users.csv`` for ``users.csv-metadata.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from stores.tables import ColumnType, Table

CSVW_TYPE = "application/csvm+json"
METADATA_ENDING = ".csv-metadata.json"
_CSVW: dict[ColumnType, str] = {
    "integer": "integer",
    "real": "double",
    "decimal": "decimal",
    "boolean": "boolean",
    "text": "string",
    "blob": "base64Binary",
    "date": "date",
    "time": "time",
    "instant": "dateTimeStamp",
    "datetime": "dateTime",
    "json": "json",
    "any": "anyAtomicType",
}


def listing(tables: Iterable[Table], formats: Sequence[str]) -> dict[str, Any]:
    return {"tables": [_listed(table) for table in tables], "formats": list(formats)}


def _listed(table: Table) -> dict[str, Any]:
    name = quote(table.name, safe="")
    return {
        "name": table.name,
        "key": table.key,
        "unique": table.ordered,
        "rows": table.estimate,
        "columns": [{"name": name, "type": type} for name, type in zip(table.columns, table.types, strict=True)],
        "url": f"/api/export/{name}.csv",
        "schema": f"/api/export/{name}{METADATA_ENDING}",
    }


def csvw(table: Table, columns: Sequence[str], url: str) -> Mapping[str, Any]:
    """Return the metadata of the CSV at ``url``. A key that is among the columns and unique is its primary key."""
    schema: dict[str, Any] = {"columns": [_column(table, name) for name in columns]}
    if table.ordered and table.key in columns:
        schema["primaryKey"] = table.key
    return {
        "@context": "http://www.w3.org/ns/csvw",
        "url": url,
        "dialect": {"encoding": "utf-8", "lineTerminators": ["\r\n"], "header": True, "doubleQuote": True},
        "tableSchema": schema,
    }


def _column(table: Table, name: str) -> dict[str, Any]:
    type = table.types[table.columns.index(name)]
    # A percent sign in a name would begin an escape in CSV on the Web's own names.
    return {"name": quote(name, safe=""), "titles": name, "datatype": _CSVW[type], "required": False}

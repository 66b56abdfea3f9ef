"""What a PostgreSQL catalogue says of a table: its columns with their types, its key, and about how many rows it has.

Rules:
- A name is the table's own, looked up in the ``search_path``, or ``schema.table``.
- Tables, partitioned and foreign tables, views and materialized views can be read; of those only what SELECT shows and
  this role may read.
- The key is the primary key of one column, else a NOT NULL unique column; else the column ``id``, else the first one,
  of which nothing is known: then ``ordered`` is False.
- A domain is what lies below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from stores.tables import ColumnType, Table

# A regclass is found by text that is bound, never by SQL that is built; to_regclass is NULL for what does not exist.
_TABLES = """
SELECT n.asked, c.oid::bigint, c.relkind::text, CASE WHEN c.relkind IN ('v', 'f') THEN -1 ELSE c.reltuples::bigint END,
       quote_ident(s.nspname) || '.' || quote_ident(c.relname)
FROM unnest(%s::text[]) WITH ORDINALITY AS n(asked, at)
CROSS JOIN LATERAL (
    SELECT coalesce(
        to_regclass(quote_ident(n.asked)),
        CASE WHEN position('.' IN n.asked) > 0 THEN to_regclass(
            quote_ident(split_part(n.asked, '.', 1)) || '.' ||
            quote_ident(substr(n.asked, position('.' IN n.asked) + 1))) END
    ) AS found
) AS r
JOIN pg_class AS c ON c.oid = r.found
JOIN pg_namespace AS s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY n.at
"""
_COLUMNS = """
WITH RECURSIVE base(relation, at, name, required, type, mod) AS (
    SELECT attrelid, attnum, attname, attnotnull, atttypid, atttypmod FROM pg_attribute
    WHERE attrelid = ANY(%s::bigint[]) AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT b.relation, b.at, b.name, b.required OR t.typnotnull, t.typbasetype, t.typtypmod
    FROM base AS b JOIN pg_type AS t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT b.relation::bigint, b.name::text, b.required, format_type(b.type, -1), t.typtype::text, t.typcategory::text
FROM base AS b JOIN pg_type AS t ON t.oid = b.type WHERE t.typtype <> 'd' ORDER BY b.relation, b.at
"""
_KEYS = """
SELECT i.indrelid::bigint, a.attname::text, i.indisprimary
FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = ANY(%s::bigint[]) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indnkeyatts = 1
  AND i.indpred IS NULL AND i.indexprs IS NULL AND a.attnotnull
ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid
"""

_TYPES: dict[str, ColumnType] = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "real": "real",
    "double precision": "real",
    "numeric": "decimal",
    "boolean": "boolean",
    "text": "text",
    "character varying": "text",
    "bpchar": "text",
    "name": "text",
    "uuid": "text",
    "bytea": "blob",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "datetime",
    "timestamp with time zone": "instant",
    "json": "json",
    "jsonb": "json",
}


@dataclass(frozen=True, slots=True)
class Column:
    """``type``: in the words of every store; ``sql_type``: PostgreSQL's own name of it, which may stand in SQL.

    ``nested``: an array, a range of rows or another value that only its JSON form tells whole.
    """

    name: str
    type: ColumnType
    sql_type: str
    required: bool
    nested: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as it stands in the catalogue; ``relation`` is its quoted name with its schema."""

    table: Table
    relation: str
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        return self.columns[self.table.columns.index(name)]

    @property
    def key(self) -> Column:
        return self.column(self.table.key)


def read_shapes(connection: Connection[Any], allowed: Sequence[str]) -> dict[str, Shape]:
    """Return the tables of ``allowed`` that exist and may be read, in that order. Raises psycopg.Error."""
    # Prepared: to plan the three takes four times as long as to run them.
    found = connection.execute(_TABLES, (list(allowed),), prepare=True).fetchall()
    oids = [row[1] for row in found]
    columns: dict[int, list[Column]] = {oid: [] for oid in oids}
    for oid, *column in connection.execute(_COLUMNS, (oids,), prepare=True).fetchall():
        columns[oid].append(_column(*column))
    keys: dict[int, str] = {}
    for oid, name, _ in connection.execute(_KEYS, (oids,), prepare=True).fetchall():
        keys.setdefault(oid, name)
    shapes = {}
    for name, oid, _, rows, relation in found:
        if columns[oid]:
            shapes[name] = _shape(name, relation, tuple(columns[oid]), keys.get(oid), None if rows < 0 else rows)
    return shapes


def _column(name: str, required: bool, sql_type: str, kind: str, category: str) -> Column:
    type = _TYPES.get(sql_type, "text" if kind == "e" else "any")
    return Column(name, type, sql_type, required, nested=category == "A" or kind in ("c", "m"))


def _shape(name: str, relation: str, columns: tuple[Column, ...], key: str | None, estimate: int | None) -> Shape:
    names = tuple(each.name for each in columns)
    chosen = key or next((each for each in names if each.lower() == "id"), names[0])
    types = tuple(each.type for each in columns)
    return Shape(Table(name, names, chosen, types, estimate, ordered=key is not None), relation, columns)


def quoted(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'

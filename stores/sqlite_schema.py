"""What a SQLite schema says of a table: its columns, its key, and how far both can be relied upon.

Rules:
- A column's declared type promises little: only TEXT affinity in a real table excludes numbers (they are stored as
  text), and only the integer primary key excludes everything but integers.
- A key pages only if it is unique under the collation it is sorted by: an index's collation, not the column's, says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stores.tables import ColumnType, Table

_COLLATIONS = ("BINARY", "NOCASE", "RTRIM")  # others exist only in the program that defined them
_ROWIDS = ("rowid", "_rowid_", "oid")
# What a declared type makes likely; SQLite holds a column to it in a STRICT table only.
_TYPES: dict[str, ColumnType] = {"INTEGER": "integer", "REAL": "real", "TEXT": "text"}


@dataclass(frozen=True, slots=True)
class Key:
    """The column that orders a table's rows.

    ``affinity``: INTEGER, REAL, TEXT, NUMERIC or BLOB (which also stands for "none").
    ``collation``: what it is sorted by; "" leaves it to the column. ``unique``: among its rows that are not NULL.
    """

    name: str
    affinity: str
    collation: str = ""
    unique: bool = False
    nullable: bool = True

    @property
    def is_rowid(self) -> bool:
        """Whether it is the table's rowid: always an integer, never NULL, without an index of its own."""
        return self.unique and not self.collation


@dataclass(frozen=True, slots=True)
class Shape:
    """A table or view as it stands in the schema; ``texts`` are the columns that hold text, blobs and NULL only.

    ``affinities``: of each column, in their order.
    """

    table: Table
    key: Key
    texts: frozenset[str]
    affinities: tuple[str, ...] = ()

    def affinity_of(self, name: str) -> str:
        return self.affinities[self.table.columns.index(name)]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    notnull: int
    pk: int


@dataclass(frozen=True, slots=True)
class _Index:
    origin: str
    column: str
    collation: str


def quoted(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def read_shapes(connection: sqlite3.Connection, allowed: Sequence[str]) -> dict[str, Shape]:
    """Return the tables and views of ``allowed`` that exist and can be read, in that order."""
    found = {
        name: (kind, bool(without_rowid))
        for name, kind, without_rowid in connection.execute(
            "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'"
        )
    }
    shapes = {}
    for name in allowed:
        if name in found and (shape := _shape(connection, name, *found[name])) is not None:
            shapes[name] = shape
    return shapes


def affinity(declared: str) -> str:
    """Return the affinity of a declared type (sqlite.org/datatype3.html, section 3.1)."""
    upper = declared.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in upper or not upper:
        return "BLOB"
    return "REAL" if any(part in upper for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _shape(connection: sqlite3.Connection, name: str, kind: str, without_rowid: bool) -> Shape | None:
    try:
        rows = connection.execute(
            'SELECT name, type, "notnull", pk FROM pragma_table_xinfo(?) WHERE hidden <> 1', (name,)
        ).fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        rows = []  # a view over a table that is gone
    columns = [_Column(*row) for row in rows]
    if not columns:
        return None
    real = kind == "table"
    key = _table_key(connection, name, without_rowid, columns) if real else _view_key(columns)
    affinities = tuple(affinity(each.type) for each in columns)
    texts = frozenset(each.name for each in columns if real and affinity(each.type) == "TEXT")
    table = Table(
        name,
        tuple(each.name for each in columns),
        key.name,
        tuple(_type(each.type) for each in columns),
        _estimate(connection, name, columns) if real and not without_rowid else None,
        key.unique,
    )
    return Shape(table, key, texts, affinities)


def _type(declared: str) -> ColumnType:
    if "BLOB" in declared.upper():
        return "blob"
    return _TYPES.get(affinity(declared), "any")


def _estimate(connection: sqlite3.Connection, name: str, columns: Sequence[_Column]) -> int | None:
    """The span of the rowids: two steps in the table's tree, and exact where nothing was deleted."""
    if (rowid := _free_rowid(columns)) is None:
        return None
    # Each for itself: SQLite looks both up in one statement by reading the whole table.
    ends = [connection.execute(f"SELECT {end}({rowid}) FROM {quoted(name)}").fetchone()[0] for end in ("min", "max")]
    return int(ends[1] - ends[0] + 1) if None not in ends else 0


def _view_key(columns: Sequence[_Column]) -> Key:
    """The column named id, else the first one; nothing is known of it."""
    chosen = next((each for each in columns if each.name.lower() == "id"), columns[0])
    return Key(chosen.name, affinity(chosen.type))


def _table_key(connection: sqlite3.Connection, name: str, without_rowid: bool, columns: Sequence[_Column]) -> Key:
    """The integer primary key, else a primary key of one column, else a NOT NULL unique column, else the rowid."""
    indexes = list(_unique_columns(connection, name))
    primary = [each for each in columns if each.pk]
    by_name = {each.name: each for each in columns}
    if len(primary) == 1 and not without_rowid and _is_rowid(connection, name):
        return Key(primary[0].name, "INTEGER", unique=True, nullable=False)
    for index in sorted(indexes, key=lambda each: each.origin != "pk"):
        column = by_name[index.column]
        if index.origin == "pk" or column.notnull:
            nullable = not column.notnull and not without_rowid
            return Key(column.name, affinity(column.type), index.collation, unique=True, nullable=nullable)
    free = _free_rowid(columns)
    if free is None or without_rowid:
        return _view_key(columns)
    return Key(free, "INTEGER", unique=True, nullable=False)


def _free_rowid(columns: Sequence[_Column]) -> str | None:
    """A name of the rowid that no column has taken."""
    taken = {each.name.lower() for each in columns}
    return next((each for each in _ROWIDS if each not in taken), None)


def _is_rowid(connection: sqlite3.Connection, name: str) -> bool:
    # Such a primary key has no index of its own; "INT PRIMARY KEY" and "INTEGER PRIMARY KEY DESC" have one.
    origins = connection.execute("SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk'", (name,))
    return origins.fetchone() is None


def _unique_columns(connection: sqlite3.Connection, name: str) -> Iterator[_Index]:
    """The unique indexes over exactly one column, without a condition, in an order that every SQLite knows."""
    indexes = connection.execute(
        'SELECT name, origin FROM pragma_index_list(?) WHERE "unique" AND NOT partial ORDER BY name', (name,)
    ).fetchall()
    for index, origin in indexes:
        parts = connection.execute("SELECT cid, name, coll FROM pragma_index_xinfo(?) WHERE key", (index,)).fetchall()
        if len(parts) == 1 and parts[0][0] >= 0 and parts[0][2].upper() in _COLLATIONS:
            yield _Index(origin, parts[0][1], parts[0][2])

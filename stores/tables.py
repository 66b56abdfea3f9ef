"""The operator's tables, as Protocols: what may be read of them, and cursors over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Rows = Literal["csv", "ndjson"]
# What a column holds, in one vocabulary for every database. "any": values of several types, or one not listed here.
ColumnType = Literal[
    "integer", "real", "decimal", "boolean", "text", "blob", "date", "time", "instant", "datetime", "json", "any"
]
Operator = Literal["eq", "ne", "gt", "ge", "lt", "le", "like", "in", "null", "notnull"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that may be read: its columns in order, and the column of its key.

    ``types``: of each column, one of TYPES. ``estimate``: about how many rows it has, None when nobody knows.
    ``ordered``: no two rows have the same key, so that every read has the same order and can be continued anywhere.
    """

    name: str
    columns: tuple[str, ...]
    key: str
    types: tuple[ColumnType, ...] = ()
    estimate: int | None = field(default=None, compare=False)
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on a column. ``values`` as the export shows them: one, several for ``in``, none for ``null``."""

    column: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows: those of ``table`` that meet all ``filters`` and come after the key ``after`` (None: all).

    At most ``limit`` (None: no bound), in the order of the key, or against it. ``guarded``: a text that a spreadsheet
    would run as a formula gets an apostrophe before it, in CSV.
    """

    table: Table
    columns: tuple[str, ...]
    after: str | None = None
    limit: int | None = None
    filters: tuple[Filter, ...] = ()
    descending: bool = False
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows as whole lines joined by the format's line end, without the last one.

    ``id``: the key of its last row, after which an export continues; "" where none can.
    ``first``: the key of its first row; only the first block of a read has it.
    """

    data: bytes
    id: str
    rows: int
    first: str = ""


class Snapshot(Protocol):
    """One moment of the database: whatever is read through it is of that moment.

    ``name``: two snapshots of the same name show the same data.
    """

    name: str

    def rows(self, query: Query, form: Rows, last: bool = True) -> Iterator[Block | None]:
        """Yield the rows as blocks of about 64 KiB; None first, before each wait and at every tick.

        ``last``: nothing more is read through this snapshot, and what it holds is given back as soon as it can be.
        Closing the iterator ends the query. Raises StoreError, also in mid-stream.
        """
        ...

    def close(self) -> None:
        """Give back what it holds, once or often; a query that still runs is ended."""
        ...


class Tables(Protocol):
    """Cursors over the operator's tables. The database formats the rows."""

    def tables(self) -> Mapping[str, Table]:
        """The tables that may be read, by name."""
        ...

    def select(
        self,
        table: str,
        columns: Sequence[str] = (),
        after: str | None = None,
        limit: int | None = None,
        *,
        filters: Sequence[Filter] = (),
        descending: bool = False,
        guarded: bool = False,
    ) -> Query:
        """Check every name and value against the schema and return the query; no columns means all of them.

        Raises UnknownTable, UnknownColumn, BadKey, BadFilter.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Return the database as it is now. The caller closes it. Raises StoreBusy when as many are open as may."""
        ...

    def rows(self, query: Query, form: Rows) -> Iterator[Block | None]:
        """Yield the rows out of a snapshot of their own, made when the iterator is first asked."""
        ...

    def ping(self) -> None: ...

    def dispose(self) -> None: ...

"""Cursors over the tables of a SQLite database, which formats the rows itself.

Rules:
- Names come out of the schema and are quoted, values are bound: nothing of a caller becomes SQL.
- A key is the integer primary key, else the primary key of one column, else a NOT NULL unique column, else the rowid
  (which the rows do not show: only a block's id has it); in views and virtual tables the column ``id``, else the first
  one. A view's key ought to be unique: the export is whole in any case, but ``after`` skips all rows of that key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from stores.errors import StoreError, UnknownTable
from stores.selection import check_room, chosen_columns
from stores.sqlite_conditions import after_condition, conditions
from stores.sqlite_moment import Moments
from stores.sqlite_schema import Shape, read_shapes
from stores.sqlite_snapshot import Snapshot, connected, held, sentences
from stores.tables import Block, Filter, Query, Rows, Table
from stores.turns import Turns


class SQLiteTables:
    """The tables and views of the database file ``path`` whose names are in ``allowed``, exactly so written.

    At most ``most`` snapshots are open at once, since each may have a thread; so many of those threads have a turn.
    """

    def __init__(self, path: str | os.PathLike[str], allowed: Sequence[str], most: int = 64, turns: int = 1) -> None:
        self._most = most
        self._path = Path(path).absolute()
        self._uri = f"file:{quote(str(self._path))}?mode=ro"
        self._allowed = tuple(allowed)
        self._open: set[Snapshot] = set()
        self._turns = Turns(turns)
        self._moments = Moments(self._path, lambda: connected(self._uri))

    def tables(self) -> Mapping[str, Table]:
        """The tables that may be read and exist, by name. Raises StoreError."""
        return {name: shape.table for name, shape in self._shapes(self._allowed).items()}

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

        Raises UnknownTable, UnknownColumn (also for a column that is named twice), BadKey, BadFilter, StoreError, and
        StoreBusy when as many snapshots are open as may.
        """
        shape = self._shapes([table]).get(table) if table in self._allowed else None
        if shape is None:
            raise UnknownTable(f"There is no table {table!r} that may be read.")
        chosen = chosen_columns(shape.table, columns, filters)
        if after is not None:
            after_condition(shape, after, "key")
        conditions(shape, filters)
        check_room(self._open, self._most)
        return Query(shape.table, chosen, after, limit, tuple(filters), descending, guarded)

    def snapshot(self) -> Snapshot:
        """Return the database as it is now; waits cooperatively for a lock. Raises StoreBusy, StoreError."""
        check_room(self._open, self._most)
        snapshot = Snapshot(self._uri, self._open, self._turns)
        with sentences():
            snapshot.begin(lambda: None, time.sleep, self._moments)
        return snapshot

    def rows(self, query: Query, form: Rows) -> Iterator[Block | None]:
        """Yield the rows in key order as blocks, None before each wait and at every tick.

        Closing the iterator returns at once and ends the query. Raises StoreError, also in mid-stream.
        """
        return Snapshot(self._uri, self._open, self._turns).rows(query, form)

    def ping(self) -> None:
        """Return when the database answers. Raises StoreError."""
        self._shapes(())

    def dispose(self) -> None:
        """End the running queries; whoever reads them gets a StoreError."""
        for snapshot in tuple(self._open):
            snapshot.close(StoreError("The database is being closed."))
        self._moments.dispose()

    def _shapes(self, allowed: Sequence[str]) -> dict[str, Shape]:
        with sentences(), closing(connected(self._uri)) as connection:
            held(connection, lambda: None, time.sleep).close()
            return read_shapes(connection, allowed)

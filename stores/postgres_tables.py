"""Cursors over the tables of a PostgreSQL database, which formats the rows itself.

Rules:
- An export is one transaction, REPEATABLE READ and READ ONLY, on a connection of its own; no thread, no greenlet.
- Names come out of the catalogue and are quoted, values are bound: nothing of a caller becomes SQL.
- Closing an export cancels its query, also before the first row, and closes its connection.
- A text key is in the order of its own collation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address

from psycopg import OperationalError, sql

from stores.errors import StoreError, UnknownTable
from stores.postgres_conditions import Conditions, check
from stores.postgres_connections import Connection, Connections, sentences
from stores.postgres_copy import Reading
from stores.postgres_lines import COPY_OPTIONS, SETTINGS, line, order
from stores.postgres_schema import Shape, read_shapes
from stores.reading_turns import ReadingTurns
from stores.selection import check_room, chosen_columns
from stores.tables import Block, Filter, Query, Rows, Table

_MOST_SHAPES = 1000
_BEGIN = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {SETTINGS}; SELECT pg_current_snapshot()::text"


class PostgresTables:
    """The tables and views of the database at ``url`` whose names are in ``allowed``: ``name`` or ``schema.name``.

    At most ``most`` snapshots are open at once, since each has a connection; so many of them have a turn to be read.
    """

    def __init__(self, url: str, allowed: Sequence[str], most: int = 64, turns: int = 1) -> None:
        self._most = most
        self._allowed = tuple(allowed)
        self._connections = Connections(url, self._warm)
        self._open: set[_Snapshot] = set()
        self._turns = ReadingTurns(turns)
        # As they were when a query was checked: reading them again would cost its first row three round trips.
        self._shapes: dict[Table, Shape] = {}

    def tables(self) -> Mapping[str, Table]:
        """The tables that may be read and exist, by name. Raises StoreError."""
        with self._connection() as connection:
            return {name: shape.table for name, shape in read_shapes(connection, self._allowed).items()}

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
        check_room(self._open, self._most)
        with self._connection() as connection:
            known = table in self._allowed and "\0" not in table
            shape = read_shapes(connection, [table]).get(table) if known else None
            if shape is None:
                raise UnknownTable(f"There is no table {table!r} that may be read.")
            chosen = chosen_columns(shape.table, columns, filters)
            query = Query(shape.table, chosen, after, limit, tuple(filters), descending, guarded)
            check(connection, shape, query)
            if len(self._shapes) > _MOST_SHAPES:
                self._shapes.clear()
            self._shapes[shape.table] = shape
            return query

    def snapshot(self) -> _Snapshot:
        """Return the database as it is now. Raises StoreBusy, StoreError."""
        check_room(self._open, self._most)
        return _Snapshot(self._connections, self._open, self._shapes, self._turns)

    def rows(self, query: Query, form: Rows) -> Iterator[Block | None]:
        """Yield the rows in key order as blocks, None before each wait and at every tick.

        Closing the iterator ends the query within milliseconds. Raises StoreError, also in mid-stream.
        """
        yield None
        snapshot = self.snapshot()
        try:
            yield from snapshot.rows(query, form)
        finally:
            snapshot.close()

    def ping(self) -> None:
        """Return when the database answers. Raises StoreError."""
        with self._connection() as connection:
            connection.execute("SELECT 1")

    def dispose(self) -> None:
        """End the running queries; whoever reads them gets a StoreError."""
        for snapshot in tuple(self._open):
            snapshot.close()
        self._connections.dispose()

    def _warm(self, connection: Connection) -> None:
        # Else PostgreSQL plans a prepared statement anew for the first five times.
        connection.execute("SET plan_cache_mode = force_generic_plan")
        read_shapes(connection, self._allowed)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with sentences():
            connection = self._connections.take()
            try:
                yield connection
            finally:
                self._connections.give_back(connection)


class _Snapshot:
    """A transaction that has its moment already."""

    def __init__(
        self, connections: Connections, open: set[_Snapshot], shapes: Mapping[Table, Shape], turns: ReadingTurns
    ) -> None:
        self._connections = connections
        self._turns = turns
        self._shapes = shapes
        self._siblings = open
        self._connection: Connection | None = None
        self._beside = False
        with sentences():
            self.name = self._begun()
        open.add(self)

    def rows(self, query: Query, form: Rows, last: bool = True) -> Iterator[Block | None]:
        """See ``Snapshot`` of stores.tables."""
        whole = False
        try:
            with sentences():
                if query.limit != 0:
                    blocks = self._reading(query, form).blocks()
                    yield from self._turns.each(blocks) if self._beside else blocks
            whole = True
        finally:
            if last or not whole:
                self.close()

    def close(self) -> None:
        self._siblings.discard(self)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if connection.info.transaction_status.name == "INTRANS":
                connection.execute("COMMIT")
        except OperationalError:
            self._connections.end(connection)
        else:
            self._connections.give_back(connection)

    def _begun(self) -> str:
        """Begin, and return the moment's name: two snapshots of the same transactions show the same rows."""
        connection = self._connections.take()
        try:
            cursor = connection.execute(_BEGIN)
            while cursor.nextset():
                pass
            row = cursor.fetchone()
        except BaseException:
            self._connections.end(connection)
            raise
        self._connection = connection
        self._beside = is_beside(connection.info.host, connection.info.hostaddr)
        return str(row[0]) if row else ""

    def _reading(self, query: Query, form: Rows) -> Reading:
        connection = self._connection
        if connection is None:
            raise StoreError("The database is being closed.")
        shape = self._shapes.get(query.table)
        if shape is None:
            raise StoreError(f"The table {query.table.name} has changed.")
        conditions = Conditions(shape, query)
        conditions.bind(connection)
        if not query.filters:
            # The key's index gives the first row at once, where a sort would give it last.
            connection.execute(sql.SQL("SET LOCAL enable_sort = off"))
        return Reading(connection.pgconn, _copy(shape, query, form, conditions.sql), shape, query, form)


def is_beside(host: str, address: str) -> bool:
    """Whether a database there, by a folder's socket or at an ``address``, has the same processors as this process."""
    return host.startswith(("/", "@")) or (bool(address) and ip_address(address.partition("%")[0]).is_loopback)


def _copy(shape: Shape, query: Query, form: Rows, where: str) -> str:
    limit = "" if query.limit is None else f" LIMIT {int(query.limit)}"
    select = f"SELECT {line(form, shape, query)} FROM {shape.relation} AS t WHERE {where}"
    return f"COPY ({select} ORDER BY {order(shape, query.descending)}{limit}) TO STDOUT ({COPY_OPTIONS[form]})"

"""PostgreSQL's tables: the contract of every store, and what only PostgreSQL has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from stores.postgres_tables import PostgresTables
from tests.contract_tables import Column, TablesContract, Value
from tests.postgres_server import PostgresServer, programs

pytestmark = pytest.mark.skipif(programs() is None, reason="there is no PostgreSQL for this machine")
TYPES = {"integer": "bigint", "real": "double precision", "text": "text", "blob": "bytea"}


def name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class Database:
    """One of the server's databases, made anew."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.open: list[PostgresTables] = []

    def execute(self, *statements: str) -> None:
        self.server.execute(*statements)

    def create(self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> None:
        described = [f"{name(each.name)} {TYPES[each.kind]}" for each in columns]
        described[0] += " PRIMARY KEY"
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {name(table)}; CREATE TABLE {name(table)} ({', '.join(described)})")  # type: ignore[call-overload]
            with cursor.copy(f"COPY {name(table)} FROM STDIN") as copy:  # type: ignore[call-overload]
                for row in rows:
                    copy.write_row(row)

    def tables(self, *allowed: str) -> PostgresTables:
        tables = PostgresTables(self.server.url(), allowed)
        self.open.append(tables)
        return tables


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    database = Database(postgres)
    yield database
    for tables in database.open:
        tables.dispose()
    postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


class TestPostgresTables(TablesContract):
    """The contract."""

    @pytest.fixture
    def database(self, postgres: PostgresServer) -> Iterator[Database]:  # type: ignore[override]
        database = Database(postgres)
        yield database
        for tables in database.open:
            tables.dispose()
        postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

"""PostgreSQL's tables: the contract of every store, the same bytes as SQLite's, and what only PostgreSQL has."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import DivisionByZero

from stores.errors import BadFilter, StoreBusy, StoreError
from stores.postgres_conditions import Conditions
from stores.postgres_copy import Reading
from stores.postgres_lines import COPY_OPTIONS
from stores.postgres_schema import Column as PGColumn
from stores.postgres_schema import Shape, read_shapes
from stores.postgres_tables import PostgresTables, is_beside
from stores.seed import users
from stores.sqlite_conditions import after_condition, conditions
from stores.sqlite_schema import Key
from stores.sqlite_schema import Shape as SQLiteShape
from stores.tables import Filter, Operator, Query, Rows, Table, Tables
from tests.contract_queries import QueriesContract
from tests.contract_tables import (
    AMOUNTS,
    ID,
    INTEGERS,
    TEXTS,
    Column,
    TablesContract,
    Value,
    blocks,
    parsed_ndjson,
    read,
)
from tests.harness import eventually
from tests.postgres_server import PostgresServer, programs
from tests.test_sqlite_tables import Database as SQLiteDatabase

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
    def database(self, database: Database) -> Database:  # type: ignore[override]
        return database


class TestPostgresQueries(QueriesContract):
    """Conditions, order and moments."""

    @pytest.fixture
    def database(self, database: Database) -> Database:  # type: ignore[override]
        return database


# The same bytes from both engines

SAME = (ID, Column("n", "integer"), Column("r", "real"), Column("t", "text"), Column("b", "blob"))
ANY_REAL = st.floats(allow_nan=False).map(lambda value: value + 0.0) | st.integers(-(10**17), 10**17).map(float)


@pytest.mark.parametrize("guarded", [False, True])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.none() | INTEGERS, st.none() | ANY_REAL | AMOUNTS, st.none() | TEXTS, st.none() | st.binary(max_size=90)
        ),
        min_size=1,
        max_size=30,
    )
)
def test_both_engines_write_the_same_bytes(
    tmp_path: Path, database: Database, guarded: bool, rows: list[tuple[Value, ...]]
) -> None:
    """CSV and NDJSON of the same rows are the same, byte for byte: all of them, some columns, and in reverse."""
    numbered = [(at, *row) for at, row in enumerate(rows)]
    (tmp_path / "same.db").unlink(missing_ok=True)
    twin = SQLiteDatabase(tmp_path / "same.db", "delete")
    for each in (database, twin):
        each.create("same", SAME, numbered)
    ours, theirs = database.tables("same"), twin.tables("same")
    for columns in ([each.name for each in SAME], ["t"], ["r", "b"]):
        for form in ("csv", "ndjson"):
            asked = {"columns": columns, "guarded": guarded, "descending": guarded}
            one = read(ours, ours.select("same", **asked), form)  # type: ignore[arg-type]
            assert one == read(theirs, theirs.select("same", **asked), form)  # type: ignore[arg-type]
    ours.dispose()


def test_the_sample_database_is_the_same_from_both(tmp_path: Path, database: Database) -> None:
    """Users with everything in their fields that breaks an export come out the same."""
    columns = [
        Column(name, kind)  # type: ignore[arg-type]
        for name, kind in zip(
            ("id", "name", "email", "city", "balance", "note", "created_at"),
            ("integer", "text", "text", "text", "real", "text", "text"),
            strict=True,
        )
    ]
    twin = SQLiteDatabase(tmp_path / "same.db", "delete")
    for each in (database, twin):
        each.create("users", columns, list(users(4200)))  # type: ignore[arg-type]
    ours, theirs = database.tables("users"), twin.tables("users")
    for form in ("csv", "ndjson"):
        assert read(ours, ours.select("users"), form) == read(theirs, theirs.select("users"), form)  # type: ignore[arg-type]


# Types that only PostgreSQL has

TYPED: list[tuple[str, str, bytes, bytes]] = [
    ("numeric", "1234567890123456789.0123456789", b"1234567890123456789.0123456789",
     b'"1234567890123456789.0123456789"'),
    ("numeric(10,2)", "1.5", b"1.50", b'"1.50"'),
    ("numeric", "'NaN'", b"NaN", b'"NaN"'),
    ("double precision", "'NaN'", b"NaN", b"null"),
    ("double precision", "'-Infinity'", b"-Infinity", b"null"),
    ("double precision", "7", b"7.0", b"7.0"),
    ("double precision", "1e15", b"1e+15", b"1e+15"),
    ("real", "0.1", b"0.1", b"0.1"),
    ("real", "1e6", b"1e+06", b"1e+06"),
    ("boolean", "true", b"true", b"true"),
    ("timestamptz", "'2026-11-23 12:00:00.5+02'", b"2026-11-23T10:00:00.5Z", b'"2026-11-23T10:00:00.5Z"'),
    ("timestamptz", "'infinity'", b"infinity", b'"infinity"'),
    ("timestamptz", "'0044-03-15 12:00:00+00 BC'", b"0044-03-15 12:00:00+00 BC", b'"0044-03-15 12:00:00+00 BC"'),
    ("timestamp", "'2026-11-23 12:00:00'", b"2026-11-23T12:00:00", b'"2026-11-23T12:00:00"'),
    ("date", "'2026-11-23'", b"2026-11-23", b'"2026-11-23"'),
    ("time", "'12:00:01.25'", b"12:00:01.25", b'"12:00:01.25"'),
    ("interval", "'1 day 2 hours'", b"P1DT2H", b'"P1DT2H"'),
    ("uuid", "'00000000-0000-0000-0000-000000000001'", b"00000000-0000-0000-0000-000000000001",
     b'"00000000-0000-0000-0000-000000000001"'),
    ("char(3)", "'a'", b"a  ", b'"a  "'),
    ("json", "E'{\"a\":\n [1, 1e400]}'", b'"{""a"":\n [1, 1e400]}"', b'{"a":  [1, 1e400]}'),
    ("jsonb", "'{\"a\": 12345678901234567890}'", b'"{""a"": 12345678901234567890}"', b'{"a": 12345678901234567890}'),
    ("int[]", "'{1,NULL,3}'", b'"[1,null,3]"', b"[1,null,3]"),
    ("numeric[]", "'{1.10}'", b'"[""1.10""]"', b'["1.10"]'),
    ("text[]", "'{}'", b"[]", b"[]"),
    ("inet", "'::1'", b"::1", b'"::1"'),
    ("mood", "'so, so'", b'"so, so"', b'"so, so"'),
    ("positive", "5", b"5", b"5"),
    ("bytea", "decode(repeat('00', 100), 'hex')", b"A" * 134 + b"==", b'"' + b"A" * 134 + b'=="'),
]  # fmt: skip


@pytest.mark.parametrize(("type", "value", "field", "text"), TYPED)
def test_a_type(database: Database, type: str, value: str, field: bytes, text: bytes) -> None:
    """Each type as the contract of exports has it, in CSV and as JSON."""
    database.execute(
        "CREATE TYPE mood AS ENUM ('so, so', 'well')",
        "CREATE DOMAIN positive AS bigint CHECK (value > 0)",
        f"CREATE TABLE t (id int PRIMARY KEY, v {type}, w {type})",
        f"INSERT INTO t VALUES (1, {value})",
    )
    tables = database.tables("t")
    query = tables.select("t")
    assert read(tables, query, "csv") == b"1," + field + b","
    assert read(tables, query, "ndjson") == b'{"id":1,"v":' + text + b',"w":null}'


@pytest.mark.parametrize(
    ("type", "values"),
    [
        ("timestamptz", "now() + n * interval '1 second'"),
        ("numeric", "n * 1.5"),
        ("double precision", "n / 7.0"),
        ("uuid", "lpad(to_hex(n), 32, '0')::uuid"),
        ("bytea", "decode(lpad(to_hex(n), 8, '0'), 'hex')"),
        ("date", "date '2026-01-01' + n"),
        ("text", "'key, \"' || lpad(n::text, 5, '0')"),
        ("boolean", "n > 1"),
        ("positive", "n"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_any_type_can_be_the_key(database: Database, type: str, values: str, form: Rows) -> None:
    """A block's id continues behind it, whatever the key's type, whether or not the key is among the columns."""
    count = 2 if type == "boolean" else 300
    database.execute(
        "CREATE DOMAIN positive AS bigint CHECK (value > 0)",
        f"CREATE TABLE t (k {type} PRIMARY KEY, v int)",
        f"INSERT INTO t SELECT {values}, n FROM generate_series(1, {count}) AS n",
    )
    tables = database.tables("t")
    end = {"csv": b"\r\n", "ndjson": b"\n"}[form]
    for columns in (["v"], ["v", "k"]):
        whole = list(blocks(tables, tables.select("t", columns), form))
        rest = read(tables, tables.select("t", columns, after=whole[0].id), form)
        assert end.join(filter(None, [whole[0].data, rest])) == end.join(block.data for block in whole)
        assert sum(block.rows for block in whole) == count


def test_the_key_of_a_table(database: Database) -> None:
    """The primary key of one column, else a NOT NULL unique one, else id, else the first; a partial index is none."""
    database.execute(
        "CREATE TABLE a (x int NOT NULL UNIQUE, y text PRIMARY KEY)",
        "CREATE TABLE b (x int UNIQUE, y int NOT NULL UNIQUE)",
        "CREATE TABLE c (x int, y int, id int, PRIMARY KEY (x, y))",
        "CREATE TABLE d (x int NOT NULL, y int); CREATE UNIQUE INDEX ON d (x) WHERE y > 0",
        "CREATE VIEW e AS SELECT y, x FROM a",
        "CREATE TABLE f (x int NOT NULL, y int); CREATE UNIQUE INDEX ON f (abs(x))",
    )
    found = database.tables(*"abcdef").tables()
    assert {name: (table.key, table.ordered) for name, table in found.items()} == {
        "a": ("y", True), "b": ("y", True), "c": ("id", False),
        "d": ("x", False), "e": ("y", False), "f": ("x", False),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_view_is_whole_whatever_its_key_holds(database: Database, form: Rows) -> None:
    """NULL keys come last and equal ones stay together; a block that ends between rows of one key has no id."""
    database.execute(
        "CREATE VIEW v AS SELECT n, CASE WHEN n % 5 > 0 THEN n / 300 END AS id, repeat('x', 1000) AS pad "
        "FROM generate_series(1, 3000) AS n"
    )
    tables = database.tables("v")
    whole = list(blocks(tables, tables.select("v"), "ndjson"))
    lines = parsed_ndjson(b"\n".join(block.data for block in whole))
    assert sorted(line["n"] for line in lines) == list(range(1, 3001))
    keys = [line["id"] for line in lines]
    assert keys == sorted(keys, key=lambda key: 99 if key is None else key)
    assert max(len(block.data) for block in whole) < 1_200_000
    for block in whole[:-1]:
        if block.id:
            rest = parsed_ndjson(read(tables, tables.select("v", ["n"], after=block.id), "ndjson"))
            at = lines.index(parsed_ndjson(block.data)[-1]) + 1
            assert {line["n"] for line in rest} == {line["n"] for line in lines[at:]}


def test_other_schemas_and_foreign_rights(database: Database) -> None:
    """A table of another schema is named with it; one that the role may not read is unknown."""
    database.execute(
        "CREATE SCHEMA garden",
        'CREATE TABLE garden."The Beds" (id int PRIMARY KEY)',
        'INSERT INTO garden."The Beds" VALUES (1)',
        "CREATE TABLE secret (id int)",
        "CREATE ROLE visitor LOGIN",
        "GRANT USAGE ON SCHEMA garden, public TO visitor",
        'GRANT SELECT ON garden."The Beds" TO visitor',
    )
    try:
        url = database.server.url().replace("postgres@", "visitor@")
        tables = PostgresTables(url, ["garden.The Beds", "secret", "garden.nothing"])
        assert list(tables.tables()) == ["garden.The Beds"]
        assert read(tables, tables.select("garden.The Beds"), "csv") == b"1"
        tables.dispose()
    finally:
        database.execute("DROP SCHEMA garden CASCADE", "DROP OWNED BY visitor", "DROP ROLE visitor")


# What reaches SQL


@given(
    values=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2),
    operator=st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "like", "in"]),
    column=st.sampled_from(["k", "n", "t", "b"]),
)
def test_no_value_reaches_sql(values: list[str], operator: Operator, column: str) -> None:
    """Two queries that differ in a value are the same SQL, in either engine: values are bound."""
    names, types = ("k", "n", "t", "b"), ("text", "real", "text", "any")
    table = Table("t", names, "k", types)  # type: ignore[arg-type]
    shape = Shape(table, '"t"', tuple(PGColumn(*each, False, False) for each in zip(names, types, types, strict=True)))  # type: ignore[arg-type]
    asked = [Query(table, names, value, filters=(Filter(column, operator, (value,)),)) for value in values]
    first, second = (Conditions(shape, query).sql for query in asked)
    assert first == second
    lite = SQLiteShape(table, Key("k", "TEXT"), frozenset("t"), ("TEXT", "TEXT", "TEXT", "BLOB"))
    try:
        sql = [
            conditions(lite, query.filters)[0] + after_condition(lite, query.after or "", "key")[0] for query in asked
        ]
    except BadFilter:
        return  # a pattern that is none
    assert sql[0] == sql[1]


def test_the_server_sees_no_value(database: Database) -> None:
    """In PostgreSQL's own log of statements a value never stands, and what could close a quote does nothing."""
    database.create("t", (ID, Column("v", "text")), [(1, "x")])
    log = database.server.folder / "log"
    begin = log.stat().st_size
    url = database.server.url(log_statement="all", log_parameter_max_length="0", log_parameter_max_length_on_error="0")
    tables = PostgresTables(url, ["t"])
    value = "Xyzzy' OR $tag$ \" -- Plugh"
    filters = [Filter("v", "eq", (value,)), Filter("v", "in", (value, value)), Filter("v", "like", (f"%{value}%",))]
    assert read(tables, tables.select("t", filters=filters, after="0"), "csv") == b""
    tables.dispose()
    told = log.read_bytes()[begin:]
    assert b"COPY (SELECT" in told
    assert b"Xyzzy" not in told


# Failures, and clients that leave

ENDLESS = "CREATE VIEW endless AS SELECT count(*) AS id FROM generate_series(1, 1000000000000) AS n"


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_an_endless_query_ends_at_once(database: Database, pause_s: float) -> None:
    """Closing, before the first row, ends the query in the server, not only here."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    for _ in range(3):
        rows = tables.rows(tables.select("endless"), "csv")
        assert [next(rows), next(rows)] == [None, None]
        gevent.sleep(pause_s)
        began = time.perf_counter()
        rows.close()  # type: ignore[attr-defined]
        eventually(lambda: database.server.backends() == 0, 2.0)
        assert time.perf_counter() - began < 2.0  # some milliseconds, and room for a busy machine


def test_a_reader_that_stops_ends_the_query(database: Database) -> None:
    """Closed after a block, while the server waits for somebody to read, nothing goes on there."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) AS n")
    tables = database.tables("t")
    rows = tables.rows(tables.select("t"), "ndjson")
    assert next(row for row in rows if row is not None).rows < 50
    assert database.server.backends() == 1
    del rows  # what is forgotten is closed too
    eventually(lambda: database.server.backends() == 0, 2.0)


def test_ticks_come_while_the_database_works(database: Database) -> None:
    """A query that gives nothing yields None at every tick, and the loop is free meanwhile."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    turns = []

    def count() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0.005)

    counter = gevent.spawn(count)
    with contextlib.closing(tables.rows(tables.select("endless"), "csv")) as rows:  # type: ignore[type-var]
        began = time.perf_counter()
        assert [next(rows) for _ in range(5)] == [None] * 5
        assert 0.9 < time.perf_counter() - began < 4
    counter.kill()
    assert len(turns) > 50


def big(database: Database, extra: str = "n") -> PostgresTables:
    database.execute(
        "CREATE TABLE u (id int PRIMARY KEY, v text)",
        "INSERT INTO u SELECT n, repeat('x', 1000) FROM generate_series(1, 30000) AS n",
        f"CREATE VIEW t AS SELECT id, v, {extra} AS extra FROM u, LATERAL (SELECT id AS n) AS s",
    )
    return database.tables("t")


@pytest.mark.parametrize("name", ["t", "u"])
def test_a_killed_backend_is_an_error(database: Database, name: str) -> None:
    """Of a view, whose rows libpq reads, and of a table, whose rows are read past it: rows before it come, then a
    StoreError, and the store goes on with another connection."""
    big(database)
    tables = database.tables(name)
    rows = tables.rows(tables.select(name), "csv")
    assert next(row for row in rows if row is not None)
    database.server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'"
    )
    with pytest.raises(StoreError, match=r"^The database [^\n]*\.$"):
        list(rows)
    assert read(tables, tables.select(name, ["id"], limit=1), "csv") == b"1"


def copied(database: Database, select: str, form: Rows = "csv") -> Iterator[bytes]:
    """The lines of the statement, read as those of a table whose key is its first column, ``id``; twice."""
    database.create("keyed", (ID,), [])
    with database.server.connect() as connection:
        shape = read_shapes(connection, ["keyed"])["keyed"]
        query = Query(shape.table, ("id",))
        statement = f"COPY ({select}) TO STDOUT ({COPY_OPTIONS[form]})"
        for _ in range(2):  # the second time, what libpq was lent has been given back
            with connection.transaction():
                for block in Reading(connection.pgconn, statement, shape, query, form).blocks():
                    if block is not None:
                        yield block.data
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_notices_between_rows(database: Database) -> None:
    """What a function says while rows are read goes to libpq, and no row is lost by it."""
    database.execute(
        "CREATE OR REPLACE FUNCTION noisy(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " IF n % 100 = 0 THEN RAISE WARNING 'at % of the rows: %', n, repeat('d', n); END IF; RETURN n; END $$"
    )
    rows = b"\r\n".join(b"%d" % n for n in range(1, 5001))
    assert b"\r\n".join(copied(database, "SELECT noisy(n) FROM generate_series(1, 5000) AS n")) == b"\r\n".join(
        [rows, rows]
    )


def test_rows_of_every_size(database: Database) -> None:
    """Rows of a byte and of megabytes, with line ends, quotes and what looks like a message inside."""
    select = (
        "SELECT n AS id,"
        " CASE n % 7 WHEN 0 THEN repeat(E'\\nd\"x', 400000) WHEN 3 THEN repeat('y', 70000) ELSE E'\\nd' END"
        " FROM generate_series(1, 30) AS n ORDER BY 1"
    )
    values = {0: b'\nd""x' * 400_000, 3: b"y" * 70_000}
    rows = [(n, values.get(n % 7, b"\nd")) for n in range(1, 31)]
    expected = b"\r\n".join(b"%d," % n + (b'"%b"' % value if b"\n" in value else value) for n, value in rows)
    assert b"\r\n".join(copied(database, select)) == b"\r\n".join([expected, expected])


@pytest.mark.parametrize(("at", "least"), [(1, 0), (2, 1), (20_000, 10_000)])
def test_an_error_between_rows(database: Database, at: int, least: int) -> None:
    """Before the first row and after any other, the server's error is raised, and the rows before it have come."""
    got: list[bytes] = []
    with pytest.raises(DivisionByZero):
        got.extend(copied(database, f"SELECT n, 1 / (n - {at}), repeat('x', 50) FROM generate_series(1, 30000) AS n"))
    rows = b"\r\n".join(got).splitlines()
    assert len(rows) >= least
    assert all(row.startswith(b"%d," % (n + 1)) and row.endswith(b"x" * 50) for n, row in enumerate(rows))


def test_a_connection_that_was_ended_is_replaced_ahead(database: Database) -> None:
    """After an export that was left the next one finds a connection whose server process knows the tables."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    rows = tables.rows(tables.select("endless"), "csv")
    assert [next(rows) for _ in range(3)] == [None] * 3
    rows.close()  # type: ignore[attr-defined]
    gevent.wait([tables._connections._replacing], 10)
    ready = _pids(database)
    assert len(ready) == 2
    assert _pid(tables) in ready


def test_what_replaces_a_connection_ends_with_the_tables(database: Database) -> None:
    """Disposed while it is being made, it is not kept."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    rows = tables.rows(tables.select("endless"), "csv")
    assert [next(rows) for _ in range(3)] == [None] * 3
    rows.close()  # type: ignore[attr-defined]
    gevent.sleep(0)
    tables.dispose()
    eventually(lambda: _pids(database) == [])
    assert tables._connections._idle == []


def _pids(database: Database) -> list[int]:
    """The server processes that no query keeps busy."""
    statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'perennial' AND state = 'idle'"
    return [pid for (pid,) in database.server.query(statement)]


def _pid(tables: PostgresTables) -> int:
    """Of the server process that the next snapshot gets."""
    snapshot = tables.snapshot()
    try:
        assert snapshot._connection is not None
        return snapshot._connection.info.backend_pid
    finally:
        snapshot.close()


def test_an_idle_connection_that_was_killed_is_replaced(database: Database) -> None:
    """The server may be restarted between two exports."""
    database.create("t", (ID,), [(1,)])
    tables = database.tables("t")
    tables.ping()
    database.server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perennial'")
    eventually(
        lambda: not database.server.query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'perennial'"), 5.0
    )
    tables.ping()


def test_connections_are_kept(database: Database) -> None:
    """A hundred small reads use one connection."""
    database.create("t", (ID,), [(1,)])
    tables = database.tables("t")
    pids = set()
    for _ in range(20):
        assert read(tables, tables.select("t"), "csv") == b"1"
        pids |= {
            row[0]
            for row in database.server.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'perennial'")
        }
    assert len(pids) == 1


def test_a_statement_time_out_is_an_error(database: Database) -> None:
    """What the operator's statement_timeout ends is said to have taken too long."""
    database.execute(ENDLESS)
    tables = PostgresTables(database.server.url(statement_timeout="300"), ["endless"])
    with pytest.raises(StoreError, match="took too long"):
        list(tables.rows(tables.select("endless"), "csv"))
    tables.dispose()


def test_a_row_that_cannot_be_computed_is_an_error(database: Database) -> None:
    """Rows before it come; the sentence shows no SQL."""
    tables = big(database, "1 / (n - 20000)")
    got = []
    with pytest.raises(StoreError, match=r"^The database could not compute a row\.$"):
        got.extend(tables.rows(tables.select("t"), "csv"))
    assert sum(block.rows for block in got if block is not None) > 10_000


def test_bytes_that_are_no_text_are_an_error(postgres: PostgresServer) -> None:
    """A database without an encoding may hold anything in a text; what is no UTF-8 is not sent as if it were."""
    postgres.execute("CREATE DATABASE odd ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        with postgres.connect("odd") as connection:
            connection.execute("SET client_encoding = 'SQL_ASCII'")
            connection.execute("CREATE TABLE t AS SELECT n AS id, 'fine'::text AS v FROM generate_series(1, 5000) AS n")
            connection.execute("UPDATE t SET v = convert_from('\\xff'::bytea, 'SQL_ASCII') WHERE id = 4000")
        tables = PostgresTables(postgres.url("odd"), ["t"])
        with pytest.raises(StoreError, match="no Unicode"):
            list(tables.rows(tables.select("t"), "csv"))
        tables.dispose()
    finally:
        postgres.execute("DROP DATABASE odd WITH (FORCE)")


def test_a_table_that_changes_meanwhile_is_an_error(database: Database) -> None:
    """A query whose table has lost a column does not export something else."""
    database.create("t", (ID, Column("v", "text")), [(1, "x")])
    tables = database.tables("t")
    query = tables.select("t")
    database.execute("ALTER TABLE t DROP COLUMN v")
    with pytest.raises(StoreError, match="has changed"):
        list(tables.rows(query, "csv"))


def test_no_database_is_said(tmp_path: Path) -> None:
    """Every call says it in one sentence, without the address."""
    tables: Tables = PostgresTables(f"postgresql://nobody@/none?host={tmp_path}", ["t"])
    for call in (tables.ping, tables.tables, tables.snapshot, lambda: tables.select("t")):
        with pytest.raises(StoreError, match=r"^The database cannot be reached[^/]*\.$"):
            call()


def test_as_many_as_may(database: Database) -> None:
    """Beyond its bound the store is busy; a snapshot that was closed makes room."""
    database.create("t", (ID,), [(1,)])
    tables = PostgresTables(database.server.url(), ["t"], most=2)
    first, second = tables.snapshot(), tables.snapshot()
    for call in (tables.snapshot, lambda: tables.select("t")):
        with pytest.raises(StoreBusy):
            call()
    first.close()
    assert read(tables, tables.select("t"), "csv") == b"1"
    second.close()
    tables.dispose()


def test_dispose_ends_running_queries(database: Database) -> None:
    """An export that its store cuts short does not look whole."""
    tables = big(database)
    rows = tables.rows(tables.select("t"), "csv")
    assert next(row for row in rows if row is not None)
    tables.dispose()
    with pytest.raises(StoreError):
        list(rows)


@pytest.mark.parametrize(
    ("host", "address", "beside"),
    [
        ("/run/postgresql", "", True),
        ("@abstract", "", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("db", "10.0.0.7", False),
        ("db", "fe80::1%eth0", False),
        ("db", "", False),
    ],
)
def test_a_database_on_this_machine_is_told_from_others(host: str, address: str, beside: bool) -> None:
    """Its processes take of the same processors, and so its exports take turns."""
    assert is_beside(host, address) is beside

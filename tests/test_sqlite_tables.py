"""SQLite's tables: the contract of every store, and what only SQLite allows in a table."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.errors import BadKey, StoreBusy, StoreError
from stores.sqlite_lines import csv_real
from stores.sqlite_tables import SQLiteTables
from stores.tables import Rows, Tables
from tests.contract_queries import QueriesContract
from tests.contract_tables import Column, TablesContract, Value, blocks, parsed_csv, parsed_ndjson, read
from tests.harness import eventually

ROOT = Path(__file__).resolve().parent.parent
MODES = ("wal", "delete", "truncate", "persist")
# One row that takes for ever; nothing is stored meanwhile, so nothing but an interrupt ends it.
ENDLESS = (
    "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) AS id FROM n"
)


def name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class Database:
    """A database file in the journal mode given."""

    def __init__(self, path: Path, mode: str = "wal") -> None:
        self.path = path
        self.mode = mode
        self.opened: list[SQLiteTables] = []
        self.execute(f"PRAGMA journal_mode = {mode}")

    def execute(self, *statements: str, timeout_s: float = 5.0) -> None:
        with contextlib.closing(sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            if len(statements) > 1:
                statements = ("BEGIN", *statements, "COMMIT")
            for each in statements:
                connection.execute(each)

    def fill(self, table: str, rows: Sequence[Sequence[Value]]) -> None:
        if not rows:
            return
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            places = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {name(table)} VALUES ({places})", rows)

    def create(self, table: str, columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> None:
        described = [f"{name(each.name)} {each.kind}" for each in columns]
        described[0] += " PRIMARY KEY"
        self.execute(f"DROP TABLE IF EXISTS {name(table)}", f"CREATE TABLE {name(table)} ({', '.join(described)})")
        self.fill(table, rows)

    def tables(self, *allowed: str) -> SQLiteTables:
        self.opened.append(SQLiteTables(self.path, allowed))
        return self.opened[-1]

    def open_files(self) -> int:
        """How many descriptors of this process show the database or what lies beside it."""
        return sum(target.startswith(str(self.path)) for target in _descriptors())


def _descriptors() -> Iterator[str]:
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{entry}")


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(params=["wal", "delete"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return Database(tmp_path / "a %23 strange?name#.db", request.param)


class TestSQLiteTables(TablesContract):
    """The contract, in a mode that never blocks a writer and in one that does."""

    @pytest.fixture(params=["wal", "delete"])
    def database(self, request: pytest.FixtureRequest, tmp_path: Path) -> Database:  # type: ignore[override]
        return Database(tmp_path / "app.db", request.param)


class TestSQLiteQueries(QueriesContract):
    """Conditions, order and moments, in the same two modes."""

    @pytest.fixture(params=["wal", "delete"])
    def database(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:  # type: ignore[override]
        database = Database(tmp_path / "app.db", request.param)
        yield database
        for tables in database.opened:
            tables.dispose()

    def test_a_snapshot_is_one_moment(self, database: Database, things: Tables) -> None:
        """In WAL mode as everywhere; a rollback journal lets nobody write while a snapshot stands."""
        if database.mode == "wal":
            super().test_a_snapshot_is_one_moment(database, things)
            return
        snapshot = things.snapshot()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.execute("UPDATE things SET name = 'new'", timeout_s=0)
        snapshot.close()
        database.execute("UPDATE things SET name = 'new'", timeout_s=0)


# Keys


@pytest.mark.parametrize(
    ("ddl", "key"),
    [
        ("CREATE TABLE t (a, ID INTEGER PRIMARY KEY)", "ID"),
        ("CREATE TABLE t (a TEXT NOT NULL UNIQUE, b INTEGER, PRIMARY KEY (b))", "b"),
        ("CREATE TABLE t (a TEXT NOT NULL UNIQUE, b TEXT PRIMARY KEY)", "b"),
        ("CREATE TABLE t (a TEXT, b TEXT NOT NULL, UNIQUE (a), UNIQUE (b))", "b"),
        ("CREATE TABLE t (a TEXT UNIQUE, b TEXT)", "rowid"),
        ("CREATE TABLE t (a, rowid, b)", "_rowid_"),
        ("CREATE TABLE t (a NOT NULL, b NOT NULL, UNIQUE (a, b))", "rowid"),
        ("CREATE TABLE t (a NOT NULL); CREATE UNIQUE INDEX i ON t (a) WHERE a > 0", "rowid"),
        ("CREATE TABLE t (a NOT NULL); CREATE UNIQUE INDEX i ON t (abs(a))", "rowid"),
        ("CREATE TABLE t (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID", "a"),
        ("CREATE TABLE u (a, Id); CREATE VIEW t AS SELECT * FROM u", "Id"),
        ("CREATE TABLE u (a, b); CREATE VIEW t AS SELECT * FROM u", "a"),
    ],
)
def test_the_key_of_a_table(database: Database, ddl: str, key: str) -> None:
    """The integer primary key, else a primary key of one column, else a NOT NULL unique column, else the rowid."""
    database.execute(*ddl.split("; "))
    assert database.tables("t").tables()["t"].key == key


MIXED = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text("aAbB1 é\0") | st.binary()
KEYS = {
    "an integer primary key": ("(k INTEGER PRIMARY KEY)", st.integers(-(2**63), 2**63 - 1)),
    "a descending one, which is no rowid": ("(k INTEGER PRIMARY KEY DESC)", st.none() | st.integers(-9, 9)),
    "text, and SQLite lets NULL in": ("(k TEXT PRIMARY KEY)", MIXED),
    "text in any case": ("(k TEXT PRIMARY KEY COLLATE NOCASE)", MIXED),
    "text without a rowid": ("(k TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID, STRICT", st.text("aAbB\0")),
    "text that ignores trailing spaces": ("(k TEXT NOT NULL COLLATE RTRIM UNIQUE)", st.text("a b")),
    "an index of another collation": ("(k TEXT NOT NULL COLLATE NOCASE, UNIQUE (k COLLATE BINARY))", st.text("aAbB")),
    "no type at all": ("(k PRIMARY KEY)", MIXED),
    "numeric, holding anything": ("(k NUMERIC PRIMARY KEY)", MIXED),
    "reals": ("(k REAL NOT NULL UNIQUE)", st.floats(allow_nan=False) | st.integers(-5, 5)),
    "blobs": ("(k BLOB PRIMARY KEY)", MIXED),
    "none but the rowid": ("(k)", MIXED),
}


@pytest.mark.parametrize("kind", KEYS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pages_neither_lose_nor_double_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, data: st.DataObject
) -> None:
    """Whatever its key holds, a table comes as ORDER BY the key gives it, each row once."""
    monkeypatch.setattr("stores.sqlite_cursor._FIRST_ROWS", 2)
    monkeypatch.setattr("stores.sqlite_cursor._MAX_ROWS", 3)
    ddl, values = KEYS[kind]
    path = tmp_path / "keys.db"
    path.unlink(missing_ok=True)
    database = Database(path, "delete")
    database.execute(f"CREATE TABLE t {ddl}")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for value in data.draw(st.lists(values, max_size=20)):
            connection.execute("INSERT OR IGNORE INTO t VALUES (?)", (value,))
        tables = database.tables("t")
        key = tables.tables()["t"].key
        collate = " COLLATE BINARY" if "UNIQUE (k COLLATE BINARY)" in ddl else ""
        connection.commit()
        expected = [row for (row,) in connection.execute(f"SELECT k FROM t ORDER BY {key}{collate}")]
    lines = parsed_ndjson(read(tables, tables.select("t"), "ndjson"))
    assert len(lines) == len(expected)
    for line, value in zip(lines, expected, strict=True):
        if isinstance(value, int | str | None):
            assert line["k"] == value
        elif isinstance(value, float):
            assert line["k"] == (value if abs(value) != float("inf") else None)


@pytest.mark.parametrize(
    ("ddl", "values"),
    [
        ("k TEXT PRIMARY KEY", [f"{n:04}" for n in range(400)]),
        ("k PRIMARY KEY", [*range(0, 300, 2), *(n / 4 for n in range(1, 300, 4)), *(f"{n:04}" for n in range(200))]),
        ("k NUMERIC PRIMARY KEY", [*range(200), *(f"2026-{n}" for n in range(200))]),
        ("k REAL NOT NULL UNIQUE", [n / 7 for n in range(400)]),
        ("k BLOB PRIMARY KEY", [bytes([n // 256, n % 256]) for n in range(400)]),
    ],
)
def test_any_key_can_be_continued(database: Database, ddl: str, values: list[Value]) -> None:
    """A block's id is the key as the export shows it, and continues after it; each value is compared as what it is."""
    database.execute(f"CREATE TABLE t ({ddl})")
    database.fill("t", [(value,) for value in values])
    tables = database.tables("t")
    kinds = len({type(value) for value in values})
    first, *rest = blocks(tables, tables.select("t"), "csv")
    assert parsed_csv(first.data)[-1] == [first.id]
    continued = b"\r\n".join(event.data for event in blocks(tables, tables.select("t", after=first.id), "csv"))
    if kinds == 1:
        assert continued == b"\r\n".join(event.data for event in rest)
    else:
        assert set(continued.split(b"\r\n")) <= {line for event in rest for line in event.data.split(b"\r\n")}


def test_a_real_key_takes_a_number(database: Database) -> None:
    """What is no number cannot be the key of such a table."""
    database.execute("CREATE TABLE t (k REAL NOT NULL UNIQUE)")
    tables = database.tables("t")
    assert tables.select("t", after="1.5e3").after == "1.5e3"
    for after in ("abc", "nan", "1_0", "٣"):
        with pytest.raises(BadKey):
            tables.select("t", after=after)


@pytest.mark.parametrize("rows", [1, 49, 50, 51, 999])
def test_a_view_is_whole_whatever_its_key_holds(database: Database, rows: int) -> None:
    """Duplicates and NULLs among a view's keys lose and double nothing, and leave no cursor between equal keys."""
    database.execute("CREATE TABLE u (n, id, pad)", "CREATE VIEW v AS SELECT n, id, pad FROM u")
    database.fill("u", [(n, None if n % 5 == 0 else n // 300, "x" * 1000) for n in range(rows)])
    tables = database.tables("v")
    whole = list(blocks(tables, tables.select("v", ["n", "id"])))
    lines = parsed_ndjson(b"\n".join(event.data for event in whole))
    assert sorted(line["n"] for line in lines) == list(range(rows))
    keys = [line["id"] for line in lines]
    assert keys == sorted(keys, key=lambda key: -1 if key is None else key)
    for event in whole[:-1]:
        if event.id:
            rest = parsed_ndjson(read(tables, tables.select("v", ["n", "id"], after=event.id), "ndjson"))
            assert {line["n"] for line in rest}.isdisjoint(line["n"] for line in parsed_ndjson(event.data))


def test_a_view_in_which_nothing_differs_is_still_cut(database: Database) -> None:
    """Rows of one single key do not become one block of any size."""
    database.execute("CREATE TABLE u (id, pad)", "CREATE VIEW v AS SELECT * FROM u")
    database.fill("u", [(1, "x" * 50_000) for _ in range(100)])
    tables = database.tables("v")
    whole = list(blocks(tables, tables.select("v")))
    assert max(len(event.data) for event in whole) < 1_200_000
    assert [event.id for event in whole[:-1]] == [""] * (len(whole) - 1)


def test_a_broken_view_hides_only_itself(database: Database) -> None:
    """A view over a table that is gone is not described; the others are."""
    database.execute("CREATE TABLE u (id)", "CREATE TABLE t (id)", "CREATE VIEW v AS SELECT * FROM u", "DROP TABLE u")
    assert list(database.tables("v", "t").tables()) == ["t"]


# Values that only SQLite holds


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_types_may_change_from_row_to_row(database: Database, form: Rows) -> None:
    """A value is written as what it is, not as what its column was declared."""
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, n, r REAL)")
    database.fill("t", [(1, "a,b", "x", "y"), (2, 0.1 + 0.2, 2**60 + 1, 7), (3, b"\xff", b"\xff", b"\xff")])
    tables = database.tables("t")
    expected = {
        "csv": b'1,"a,b",x,y\r\n2,0.30000000000000004,1152921504606846977,7.0\r\n3,/w==,/w==,/w==',
        "ndjson": b'{"id":1,"i":"a,b","n":"x","r":"y"}\n'
        b'{"id":2,"i":0.30000000000000004,"n":1152921504606846977,"r":7.0}\n'
        b'{"id":3,"i":"/w==","n":"/w==","r":"/w=="}',
    }
    assert read(tables, tables.select("t"), form) == expected[form]


def test_a_view_may_hold_other_types_than_it_declares(database: Database) -> None:
    """The second half of a compound view is not converted to the types of the first."""
    database.create("t", (Column("id", "integer"), Column("v", "text")), [(1, "x")])
    database.execute("CREATE VIEW u AS SELECT id, v FROM t UNION ALL SELECT 2, 0.1 + 0.2 UNION ALL SELECT 3, 4")
    tables = database.tables("u")
    assert read(tables, tables.select("u"), "csv") == b"1,x\r\n2,0.30000000000000004\r\n3,4"
    assert b'"v":0.30000000000000004}\n{"id":3,"v":4}' in read(tables, tables.select("u"), "ndjson")


def test_nul_and_broken_utf8_stay_inside_their_field(database: Database) -> None:
    """NUL is \\u0000 in JSON and itself in CSV, where it hides no quote; what is no UTF-8 becomes U+FFFD."""
    database.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'a' || char(0) || ',\"'), (2, CAST(x'61ff2c62c3' AS TEXT)), (3, CAST(x'00' AS TEXT)),"
        " (4, CAST(x'eda080' AS TEXT)), (5, CAST(x'f09f2262' AS TEXT))",
    )
    tables = database.tables("t")
    values = ['a\0,"', "a\ufffd,b\ufffd", "\0", "\ufffd\ufffd\ufffd", '\ufffd"b']
    assert [row[1] for row in parsed_csv(read(tables, tables.select("t"), "csv"))] == values
    data = read(tables, tables.select("t"), "ndjson")
    assert b'"a\\u0000,\\""' in data
    assert [row["v"] for row in parsed_ndjson(data)] == values


def test_a_large_block_is_utf8_throughout(database: Database) -> None:
    """Characters of two to four bytes lie across every place of a block; a broken one stays the only one."""
    rows = [(n, "x" * (n % 4) + "é€🙂" * 5, "ü") for n in range(2000)]
    database.create("t", (Column("id", "integer"), Column("v", "text"), Column("w", "text")), rows)
    tables = database.tables("t")
    expected = [{"id": n, "v": v, "w": w} for n, v, w in rows]
    assert parsed_ndjson(read(tables, tables.select("t"), "ndjson")) == expected
    database.execute("UPDATE t SET w = CAST(x'c3' AS TEXT) WHERE id = 1998")
    expected[1998]["w"] = "\ufffd"
    assert parsed_ndjson(read(tables, tables.select("t"), "ndjson")) == expected
    assert parsed_csv(read(tables, tables.select("t"), "csv"))[1998:] == [
        ["1998", *rows[1998][1:2], "\ufffd"],
        ["1999", rows[1999][1], "ü"],
    ]


def test_keys_that_are_no_utf8_page_and_give_no_cursor(database: Database) -> None:
    """A text key that is no UTF-8 loses no row; it has no text form, so its block has no id."""
    database.execute("CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL)")
    database.execute(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) "
        "SELECT CAST(x'ff' AS TEXT) || i FROM n"
    )
    tables = database.tables("t")
    whole = list(blocks(tables, tables.select("t"), "csv"))
    fields = [field for (field,) in parsed_csv(b"\r\n".join(event.data for event in whole))]
    assert sorted(fields) == sorted(f"\ufffd{n}" for n in range(1, 201))
    assert {event.id for event in whole} == {""}


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_utf16_database_comes_as_utf8(tmp_path: Path, encoding: str) -> None:
    """The database's own encoding does not show, in values or in keys."""
    path = tmp_path / "wide.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(f"ключ {n:03}", f"字😀,{n}") for n in range(120)])
    tables = SQLiteTables(path, ["t"])
    rows = parsed_csv(read(tables, tables.select("t"), "csv"))
    assert rows == [[f"ключ {n:03}", f"字😀,{n}"] for n in range(120)]
    assert len(parsed_csv(read(tables, tables.select("t", after="ключ 099"), "csv"))) == 20


@pytest.mark.parametrize("count", [60, 61, 200, 1500])
def test_a_table_may_have_many_columns(tmp_path: Path, count: int) -> None:
    """Neither SQLite's bound on arguments nor that on the depth of an expression shows."""
    database = Database(tmp_path / "wide.db")
    columns = [f"c{n}" for n in range(count)]
    database.execute(f"CREATE TABLE t ({', '.join(columns)})")
    values = [(None, "}{", "", 1.5, n)[n % 5] for n in range(count)]
    database.fill("t", [values])
    tables = database.tables("t")
    assert json.loads(read(tables, tables.select("t"), "ndjson")) == dict(zip(columns, values, strict=True))
    expected = [None if value is None else str(value) for value in values]
    assert parsed_csv(read(tables, tables.select("t"), "csv")) == [expected]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_real_is_the_shortest_decimal_that_reads_back(value: float) -> None:
    """What the slow path writes is a number of JSON, and reads back to the last bit."""
    assert json.loads(csv_real(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e15, "1e+15"),
        (-1234567890123456.0, "-1.234567890123456e+15"),
        (999999999999999.0, "999999999999999.0"),
        (1e16, "1e+16"),
        (39631670617849664.0, "3.9631670617849664e+16"),
        (9.45718187737742e16, "9.457181877377421e+16"),
        (-3846560590918315.5, "-3.8465605909183155e+15"),
        (1e22, "1e+22"),
        (1e-5, "1e-05"),
        (0.0001, "0.0001"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (9007199254740993.0, "9.007199254740992e+15"),
    ],
)
def test_a_real_is_written_as_postgresql_does(value: float, text: str) -> None:
    """What SELECT v::text of PostgreSQL 12 and later gives, and a whole number its point."""
    assert csv_real(value) == text


def test_very_long_rows_come_in_blocks_of_their_own_size(database: Database) -> None:
    """Long rows among short ones are not gathered into one huge value."""
    sizes = [3_000_000 if n in (60, 61, 400) else 40_000 if n > 450 else 10 for n in range(600)]
    database.create("t", (Column("id", "integer"), Column("v", "text")), [(n, "x" * s) for n, s in enumerate(sizes)])
    tables = database.tables("t")
    got = list(blocks(tables, tables.select("t")))
    assert [len(line["v"]) for line in parsed_ndjson(b"\n".join(event.data for event in got))] == sizes
    assert max(len(event.data) for event in got) < 4_200_000
    assert sorted(len(event.data) for event in got)[-5] < 1_100_000


def test_generated_columns_are_columns_and_hidden_ones_are_not(database: Database) -> None:
    """What SELECT * shows is what the export shows; a virtual table's columns for commands are not there."""
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, twice AS (id * 2))", "INSERT INTO t VALUES (4)")
    database.execute("CREATE VIRTUAL TABLE f USING fts5(words)")
    database.fill("f", [("some, words",)])
    tables = database.tables("t", "f")
    assert read(tables, tables.select("t"), "csv") == b"4,8"
    assert read(tables, tables.select("f"), "csv") == b'"some, words"'


# Threads, locks and failures


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_an_endless_query_ends_at_once(database: Database, pause_s: float) -> None:
    """Closing, before the query has begun or in its middle, frees thread and descriptors at once."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    threads = native_threads()
    for _ in range(5):
        rows = tables.rows(tables.select("endless"), "csv")
        assert next(rows) is None
        gevent.sleep(pause_s)
        began = time.perf_counter()
        rows.close()  # type: ignore[attr-defined]
        eventually(lambda: native_threads() <= threads and not database.open_files(), 1.0)
        assert time.perf_counter() - began < 0.5  # some milliseconds, and room for a busy machine


def test_a_reader_that_stops_leaves_nothing(database: Database) -> None:
    """Closed after a block, while the writer waits for a place, an export leaves no thread and no descriptor."""
    database.create("t", (Column("id", "integer"), Column("v", "text")), [(n, "x" * 1000) for n in range(3000)])
    tables = database.tables("t")
    threads = native_threads()
    for _ in range(20):
        rows = tables.rows(tables.select("t"), "ndjson")
        assert any(event is not None for event in rows)
        del rows  # what is forgotten is closed too
    eventually(lambda: native_threads() <= threads and not database.open_files(), 1.0)


def test_ticks_come_while_the_database_works(database: Database) -> None:
    """A query that gives nothing yields None at every tick, and the loop is free meanwhile."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    turns = []

    def count() -> None:
        while True:
            turns.append(time.perf_counter())
            gevent.sleep(0.005)

    counter = gevent.spawn(count)
    with contextlib.closing(tables.rows(tables.select("endless"), "csv")) as rows:  # type: ignore[type-var]
        began = time.perf_counter()
        assert [next(rows) for _ in range(3)] == [None] * 3
        assert 0.9 < time.perf_counter() - began < 2
    counter.kill()
    assert len(turns) > 50


def test_dispose_ends_running_queries_with_an_error(database: Database) -> None:
    """An export that its store cuts short does not look whole."""
    database.execute(ENDLESS)
    tables = database.tables("endless")
    rows = tables.rows(tables.select("endless"), "csv")
    next(rows)
    tables.dispose()
    with pytest.raises(StoreError):
        list(rows)


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_reader_holds_up_no_writer(tmp_path: Path, mode: str) -> None:
    """A client that reads one block and pauses stops no commit, in any journal mode, and gets the old rows."""
    database = Database(tmp_path / "app.db", mode)
    database.create("t", (Column("id", "integer"), Column("v", "text")), [(n, "x" * 1000) for n in range(5000)])
    tables = database.tables("t")
    rows = tables.rows(tables.select("t"), "ndjson")
    first = next(event for event in rows if event is not None)

    def committed() -> bool:
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("UPDATE t SET v = 'new'", timeout_s=0)
            return True
        return False

    eventually(committed, 5.0)
    lines = parsed_ndjson(b"\n".join([first.data, *(event.data for event in rows if event is not None)]))
    assert [line["id"] for line in lines] == list(range(5000))
    assert {line["v"] for line in lines} == {"x" * 1000}


def test_a_locked_database_is_waited_for_without_stalling(tmp_path: Path) -> None:
    """A commit in progress delays the first row; while it lasts, the source ticks and can be closed."""
    database = Database(tmp_path / "app.db", "delete")
    database.create("t", (Column("id", "integer"),), [(1,)])
    tables = database.tables("t")
    query = tables.select("t")
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        closed = tables.rows(query, "csv")
        assert [next(closed), next(closed)] == [None, None]
        closed.close()  # type: ignore[attr-defined]
        waiting = tables.rows(query, "csv")
        assert next(waiting) is None
        writer.execute("COMMIT")
    assert [event.data for event in waiting if event is not None] == [b"1"]


def test_a_database_locked_for_too_long_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded wait a locked database is said to be busy."""
    monkeypatch.setattr("stores.sqlite_snapshot._BUSY_S", 0.05)
    database = Database(tmp_path / "app.db", "delete")
    database.create("t", (Column("id", "integer"),), [(1,)])
    tables = database.tables("t")
    query = tables.select("t")
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy):
            tables.ping()
        with pytest.raises(StoreBusy):
            list(tables.rows(query, "csv"))


def test_a_failure_in_the_middle_is_an_error(database: Database) -> None:
    """Rows before the failure come, then a StoreError whose sentence shows no SQL; nothing is left open."""
    database.create("t", (Column("id", "integer"),), [(n,) for n in range(9000)])
    # abs() of the smallest integer is SQLite's "integer overflow".
    view = "SELECT id, CASE id WHEN 8000 THEN abs(-9223372036854775807 - 1) ELSE id END AS v FROM t"
    database.execute(f"CREATE VIEW failing AS {view}")
    tables = database.tables("failing")
    got = []
    with pytest.raises(StoreError, match=r"^The database could not answer\.$") as caught:
        got.extend(tables.rows(tables.select("failing"), "csv"))
    assert any(got)
    eventually(lambda: not database.open_files(), 1.0)
    assert "SELECT" not in str(caught.value)


def test_a_table_that_changes_meanwhile_is_an_error(database: Database) -> None:
    """A query whose table has lost a column does not export something else."""
    database.create("t", (Column("id", "integer"), Column("v", "text")), [(1, "x")])
    tables = database.tables("t")
    query = tables.select("t")
    database.execute("ALTER TABLE t DROP COLUMN v")
    with pytest.raises(StoreError, match="has changed"):
        list(tables.rows(query, "csv"))


@pytest.mark.parametrize("content", [None, b"this is no database, " * 100])
def test_a_missing_or_damaged_database_is_said(tmp_path: Path, content: bytes | None) -> None:
    """Every call says it in one sentence, without the path; a missing file is not made."""
    path = tmp_path / "absent.db"
    if content:
        path.write_bytes(content)
    tables: Tables = SQLiteTables(path, ["t"])
    for call in (tables.ping, tables.tables, lambda: tables.select("t")):
        with pytest.raises(StoreError, match=r"^The database [a-z ]+\.$"):
            call()
    assert path.exists() == bool(content)


def test_the_database_cannot_be_written_through_the_store(database: Database) -> None:
    """Reading an export changes neither the database nor, in a rollback mode, what lies beside it."""
    database.create("t", (Column("id", "integer"),), [(n,) for n in range(500)])
    before = database.path.read_bytes()
    tables = database.tables("t")
    read(tables, tables.select("t"), "csv")
    assert database.path.read_bytes() == before


PATCHED = """
from gevent import monkey
monkey.patch_all()
import os, sys, time, gevent
from stores.sqlite_tables import SQLiteTables

tables = SQLiteTables(sys.argv[1], ["t", "endless"])
stalls = [0.0]
def measure():
    while True:
        began = time.thread_time()  # the loop's own work: what other processes take from it is no stall of ours
        gevent.sleep(0.001)
        stalls.append(time.thread_time() - began)

gevent.spawn(measure)
gevent.sleep(0.01)
threads = len(os.listdir("/proc/self/task"))
rows = sum(event.data.count(b"\\n") + 1 for event in tables.rows(tables.select("t"), "ndjson") if event)
endless = tables.rows(tables.select("endless"), "csv")
assert [next(endless), next(endless)] == [None, None]
endless.close()
gevent.sleep(0.1)
assert len(os.listdir("/proc/self/task")) <= threads
print(rows, max(stalls))
"""


@pytest.mark.slow
def test_under_monkey_patching_nothing_stalls(database: Database) -> None:
    """In a patched process the same code reads in a native thread: other greenlets go on meanwhile."""
    database.create("t", (Column("id", "integer"), Column("v", "text")), [(n, "x" * 100) for n in range(100_000)])
    database.execute(ENDLESS)
    command = [sys.executable, "-c", PATCHED, str(database.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rows, stall = done.stdout.split()
    assert int(rows) == 100_000
    # Some milliseconds; the bound is far below the half second of a query.
    assert float(stall) < 0.1

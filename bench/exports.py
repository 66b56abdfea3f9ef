"""Exports from SQLite and PostgreSQL, beside ``psql \\copy``, Datasette and SQLite alone, in the same run.

Rules:
- Whole processes in turn, so that a machine that changes its speed changes all.
- psql comes with the PostgreSQL of the tests, and writes into a pipe, as our server into a socket.
- Datasette is installed into an environment of its own (bench/environment.py); where that fails, its row says so.
- It pages by key, so its rate is that of any part of the table: it is asked for a tenth, and its time is told for all.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from bench import environment, export_floors, limits, processes
from bench.ground import Ground
from bench.limits import Limit
from bench.load import Probe, first_byte_ms, seconds, together, watched
from bench.report import NotMeasured
from bench.turns import in_turn, ratio
from stores.seed import users
from tests.harness import LiveServer, eventually, free_port
from tests.postgres_server import PostgresServer, programs

FIRST_BYTES = 20
_REST_S = 0.1
# Rows a second; of PostgreSQL, or 1.0 times psql, whichever is less.
ASKED = {
    "SQLite, csv": "≥ 800,000, 10 times Datasette",
    "SQLite, ndjson": "≥ 1,000,000",
    "PostgreSQL, csv": "≥ 1,800,000, or 1.00 times psql",
}
_COLUMNS = "id, name, email, created_at"
_FORMATS = ("csv", "ndjson", "json")
_PSQL, _DATASETTE, _ALONE = (
    "psql \\copy to a pipe",
    "Datasette, streamed CSV of a tenth",
    "SQLite alone: each column read, no line made",
)
_GROUPED = {
    form: f"SQLite alone: {form} of known types, by group_concat in blocks of 600 rows" for form in ("csv", "ndjson")
}


def exports(ground: Ground) -> None:
    """Fill both databases, serve them, and report."""
    folder = ground.folder("exports")
    database = folder / "people.db"
    fill(database, ground.rows // 10, 10)
    with contextlib.ExitStack() as stack:
        sqlite = stack.enter_context(served(folder / "sqlite", f"sqlite:///{database}"))
        postgres = stack.enter_context(_postgres(ground.rows))
        elephant = stack.enter_context(served(folder / "postgres", postgres.url())) if postgres else None
        runners, workers = _runners(sqlite, elephant)
        runners[_ALONE] = lambda: stepped_s(database, ground.rows)
        for form, name in _GROUPED.items():
            runners[name] = partial(export_floors.grouped_s, database, ground.rows, form)
        missing: dict[str, Exception] = {}
        if postgres is not None:
            runners[_PSQL] = lambda: _psql(postgres)
        else:
            missing["PostgreSQL, and psql"] = NotMeasured("there is no PostgreSQL")
        try:
            url = stack.enter_context(_datasette(database))
            tenth = f"{url}&id__lte={ground.rows // 10}"
            runners[_DATASETTE] = lambda: 10 * seconds(tenth)
        except (NotMeasured, OSError, AssertionError) as error:
            missing[_DATASETTE] = error
        _company(ground, {"SQLite": sqlite, "PostgreSQL": elephant})  # first: it warms them
        _speed(ground, runners, workers, missing)


def _speed(
    ground: Ground, runners: dict[str, Callable[[], float]], workers: dict[str, int], missing: dict[str, Exception]
) -> None:
    """Memory is told of each worker over all of its exports: what one leaves behind is none of the next one's start."""
    pids = {name.partition(",")[0]: pid for name, pid in workers.items()}
    with contextlib.ExitStack() as watching:
        growths = {name: watching.enter_context(watched(pid)) for name, pid in pids.items()}
        times = in_turn(runners, ground.runs, warm=False)
    columns = ("what", f"rows a second (median of {ground.runs})", "times psql", "times Datasette", "asked for")
    ground.report.table(f"{ground.rows:,} rows ({_COLUMNS})", *columns)
    for name, taken in times.items():
        rows = f"**{ground.rows / statistics.median(taken):,.0f}**"
        bases = (
            str(ratio(times[base], taken)) if base in times and base != name else "" for base in (_PSQL, _DATASETTE)
        )
        ground.report.row(name, rows, *bases, ASKED.get(name, ""))
    for name, error in missing.items():
        ground.report.missing(name, error)
    grown = ", ".join(f"**{growth.mib:.1f} MiB** ({name})" for name, growth in growths.items())
    ground.report.say("", f"Growth of the worker's memory over all of these exports: {grown} (asked for: < 16 MiB).")
    found = [_limit(ground, times, f"SQLite, {format}", _ALONE) for format in _FORMATS]
    found += [_limit(ground, times, f"SQLite, {format}", name) for format, name in _GROUPED.items()]
    if _PSQL in times:
        found.append(_limit(ground, times, "PostgreSQL, csv", _PSQL))
    limits.tell(ground.report, *found)


def _limit(ground: Ground, times: dict[str, list[float]], name: str, bare: str) -> Limit:
    """A row's time."""
    ours, base = ([s / ground.rows * 1e6 for s in times[each]] for each in (name, bare))
    return Limit(f"{name}: a row", bare, ours, base, "µs")


def _runners(sqlite: LiveServer, elephant: LiveServer | None) -> tuple[dict[str, Callable[[], float]], dict[str, int]]:
    """Return by name what exports everything once and takes so many seconds, and which worker does it."""
    runners: dict[str, Callable[[], float]] = {}
    workers: dict[str, int] = {}
    for name, server in (("SQLite", sqlite), ("PostgreSQL", elephant)):
        for format in _FORMATS if server else ():
            assert server is not None
            url = f"{server.url}/api/export/people.{format}"
            runners[f"{name}, {format}"] = partial(seconds, url)
            workers[f"{name}, {format}"] = server.pids()[0]
        if server is not None:
            url = f"{server.url}/api/export/people.csv"
            for coding in ("zstd", "gzip"):
                runners[f"{name}, csv, {coding}"] = partial(seconds, "-H", f"Accept-Encoding: {coding}", url)
                workers[f"{name}, csv, {coding}"] = server.pids()[0]
    return runners, workers


def _company(ground: Ground, servers: dict[str, LiveServer | None]) -> None:
    columns = (
        "tables in",
        f"first byte, clients {_REST_S} s apart: median",
        "max",
        "asked for",
        "beside four: p99",
        "max",
        "asked for",
        "requests",
    )
    ground.report.table("First byte of an export, and `/healthz` beside four of them", *columns)
    request = b"GET /api/export/people.csv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for name, server in servers.items():
        if server is None:
            continue
        first = [_first_byte_ms(server.port, request) for _ in range(FIRST_BYTES)]
        with Probe(server.port) as probe:
            together([[f"{server.url}/api/export/people.{_FORMATS[n % 2]}"] for n in range(4)])
        ground.report.row(
            name, f"**{statistics.median(first):.1f} ms**", f"{max(first):.1f} ms", "< 15 ms",
            f"**{probe.p99_ms:.1f} ms**", f"{probe.max_ms:.1f} ms", "p99 < 10 ms, max < 60 ms", len(probe.times_ms),
        )  # fmt: skip
    floor = export_floors.crowded(ground.server.port, 4)
    ground.report.row(
        "an empty WSGI application beside four processes that take all CPU", "", "", "",
        f"**{floor.p99_ms:.1f} ms**", f"{floor.max_ms:.1f} ms", "", len(floor.times_ms),
    )  # fmt: skip


def _first_byte_ms(port: int, request: bytes) -> float:
    """On an idle server: each of these clients leaves, and the query of the last one is being ended for a moment."""
    time.sleep(_REST_S)
    return first_byte_ms(port, request)


def _psql(postgres: PostgresServer) -> float:
    found = programs()
    assert found is not None
    copy = f"\\copy (SELECT {_COLUMNS} FROM people ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"
    command = [str(found / "psql"), postgres.url(), "-c", copy]
    return _piped(command)


def _piped(command: list[str]) -> float:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while process.stdout.read(1 << 20):
        pass
    if process.wait():
        raise RuntimeError(f"{command[0]} failed")
    return time.perf_counter() - began


def stepped_s(database: Path, rows: int) -> float:
    """Seconds of SQLite alone: it steps through the rows and reads their columns, and Python sees none of them."""
    read = " + ".join(f"length({name})" for name in _COLUMNS.split(", "))
    query = f"SELECT sum({read}) FROM (SELECT {_COLUMNS} FROM people ORDER BY id LIMIT ?)"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        began = time.perf_counter()
        connection.execute(query, (rows,)).fetchone()
        return time.perf_counter() - began


def _people(rows: int) -> Iterator[tuple[object, ...]]:
    for id, name, email, _, _, _, created_at in users(rows):
        yield id, name, email, created_at


def fill(path: Path, rows: int, times: int = 1) -> None:
    """Make a database of the table ``people``: ``rows`` made by Python, and copies of them up to ``times`` as many."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, created_at TEXT)"
        )
        database.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", _people(rows))
        copy = f"INSERT INTO people SELECT id + ?, name, email, created_at FROM people WHERE id <= {rows}"
        for number in range(1, times):
            database.execute(copy, (number * rows,))


@contextmanager
def _postgres(rows: int) -> Iterator[PostgresServer | None]:
    if programs() is None:
        yield None
        return
    server = PostgresServer("shared_buffers=512MB")
    try:
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE people (id bigint PRIMARY KEY, name text, email text, created_at text)")
            with cursor.copy("COPY people FROM STDIN") as copy:
                for row in _people(rows):
                    copy.write_row(row)
        server.execute("VACUUM ANALYZE people")
        yield server
    finally:
        server.stop()


def served(folder: Path, url: str) -> AbstractContextManager[LiveServer]:
    return processes.ours(folder, {"DATABASE_URL": url, "EXPORT_TABLES": "people"})


@contextmanager
def _datasette(database: Path) -> Iterator[str]:
    """The address of the table's streamed CSV."""
    port = free_port()
    options = ["--setting", "max_csv_mb", "0", "--setting", "sql_time_limit_ms", "300000"]
    python = str(environment.python())
    command = [python, "-m", "datasette", "serve", str(database), "--port", str(port), *options]
    with processes.serving(command, port):
        url = f"http://127.0.0.1:{port}/people/people.csv"
        eventually(lambda: processes.answers(port, "/people/people.csv?_size=1"), 60)
        yield f"{url}?_stream=on&_size=max"

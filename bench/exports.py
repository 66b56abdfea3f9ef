"""Exports of a million rows: from SQLite and PostgreSQL, beside ``psql \\copy`` and Datasette in the same run.

Rules:
- Whole processes in turn, A B A B, so that a machine that changes its speed changes all.
- psql comes with the PostgreSQL of the tests, and writes into a pipe, as our server into a socket.
- Datasette is installed into an environment of its own (requirements-bench.txt); where that fails, it is not measured.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Probe, curl, first_byte_ms, percentile, seconds, watched
from bench.report import Report
from settings import ROOT
from stores.seed import users
from tests.harness import LiveServer, eventually, free_port
from tests.postgres_server import PostgresServer, programs

ROWS = 1_000_000
RUNS = 3
FIRST_BYTES = 20
_COLUMNS = "id, name, email, created_at"
_FORMATS = ("csv", "ndjson", "json")


def measure(report: Report, folder: Path) -> None:
    """Fill both databases below ``folder``, serve them, and report."""
    database = folder / "people.db"
    _fill_sqlite(database)
    with contextlib.ExitStack() as stack:
        sqlite = stack.enter_context(_served(folder / "sqlite", f"sqlite:///{database}"))
        postgres = stack.enter_context(_postgres())
        elephant = stack.enter_context(_served(folder / "postgres", postgres.url())) if postgres else None
        datasette = stack.enter_context(_datasette(folder, database))
        _speed(report, sqlite, elephant, postgres, datasette)
        _company(report, {"SQLite": sqlite, "PostgreSQL": elephant})


def _speed(
    report: Report, sqlite: LiveServer, elephant: LiveServer | None, postgres: PostgresServer | None, datasette: str
) -> None:
    runners, workers = _runners(sqlite, elephant)
    if postgres is not None:
        runners["psql \\copy to a pipe"] = lambda: _psql(postgres)
    for run in runners.values():
        run()  # files come into the cache, connections into the pool
    if datasette:
        runners["Datasette, streamed CSV"] = lambda: seconds(datasette)
    grown = dict.fromkeys(workers, 0.0)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(RUNS):
        for name, run in runners.items():
            with watched(workers.get(name, os.getpid())) as growth:
                times[name].append(run())
            grown[name] = max(grown.get(name, 0.0), growth.mib)
    report.table(
        f"Exports of {ROWS:,} rows ({_COLUMNS})", "what", f"rows a second (median of {RUNS})", "to psql",
        "to Datasette", "growth of memory",
    )  # fmt: skip
    for name, taken in times.items():
        report.row(
            name,
            f"**{ROWS / statistics.median(taken):,.0f}**",
            _ratio(times, "psql \\copy to a pipe", name),
            _ratio(times, "Datasette, streamed CSV", name),
            f"{grown[name]:.1f} MiB" if name in workers else "",
        )


def _runners(sqlite: LiveServer, elephant: LiveServer | None) -> tuple[dict[str, Callable[[], float]], dict[str, int]]:
    """Return by name what exports everything once and takes so many seconds, and which worker does it."""
    runners: dict[str, Callable[[], float]] = {}
    workers: dict[str, int] = {}
    for name, server in (("SQLite", sqlite), ("PostgreSQL", elephant)):
        for format in _FORMATS if server else ():
            assert server is not None
            url = f"{server.url}/api/export/people.{format}"
            runners[f"{name}, {format}"] = lambda url=url: seconds(url)
            workers[f"{name}, {format}"] = server.pids()[0]
        if server is not None:
            url = f"{server.url}/api/export/people.csv"
            for coding in ("zstd", "gzip"):
                runners[f"{name}, csv, {coding}"] = lambda url=url, coding=coding: seconds(
                    "-H", f"Accept-Encoding: {coding}", url
                )
                workers[f"{name}, csv, {coding}"] = server.pids()[0]
    return runners, workers


def _ratio(times: dict[str, list[float]], base: str, name: str) -> str:
    """How many times as fast as ``base``: the median of pairs."""
    if base not in times or base == name:
        return ""
    return f"{statistics.median(b / a for a, b in zip(times[name], times[base], strict=True)):.2f}"


def _company(report: Report, servers: dict[str, LiveServer | None]) -> None:
    report.table(
        "First byte of an export, and `/healthz` beside four of them", "tables in", "first byte: median", "max",
        "beside four: p99", "max", "requests",
    )  # fmt: skip
    for name, server in servers.items():
        if server is None:
            continue
        request = b"GET /api/export/people.csv?limit=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        first = [first_byte_ms(server.port, request) for _ in range(FIRST_BYTES)]
        with Probe(server.port) as probe:
            processes = [curl(f"{server.url}/api/export/people.{_FORMATS[n % 2]}") for n in range(4)]
            ended = [process.wait() for process in processes]
            if any(ended):
                raise RuntimeError("an export failed")
        report.row(
            name, f"**{statistics.median(first):.1f} ms**", f"{max(first):.1f} ms",
            f"**{percentile(probe.times_ms, 0.99):.1f} ms**", f"{probe.max_ms:.1f} ms", len(probe.times_ms),
        )  # fmt: skip


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


def _people() -> Iterator[tuple[object, ...]]:
    for id, name, email, _, _, _, created_at in users(ROWS):
        yield id, name, email, created_at


def _fill_sqlite(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, created_at TEXT)"
        )
        database.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", _people())


@contextmanager
def _postgres() -> Iterator[PostgresServer | None]:
    if programs() is None:
        yield None
        return
    server = PostgresServer("shared_buffers=512MB")
    try:
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE people (id bigint PRIMARY KEY, name text, email text, created_at text)")
            with cursor.copy("COPY people FROM STDIN") as copy:
                for row in _people():
                    copy.write_row(row)
        server.execute("VACUUM ANALYZE people")
        yield server
    finally:
        server.stop()


@contextmanager
def _served(folder: Path, url: str) -> Iterator[LiveServer]:
    environment = {"DATABASE_URL": url, "EXPORT_TABLES": "people", "LOG_LEVEL": "WARNING"}
    server = LiveServer(folder, environment)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def _datasette(folder: Path, database: Path) -> Iterator[str]:
    """The address of the table's streamed CSV, or "" where Datasette cannot be installed."""
    python = folder / "datasette" / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", folder / "datasette"], check=True, capture_output=True)
        install = [python, "-m", "pip", "install", "-q", "-r", ROOT / "requirements-bench.txt"]
        subprocess.run(install, check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError):
        yield ""
        return
    port = free_port()
    options = ["--setting", "max_csv_mb", "0", "--setting", "sql_time_limit_ms", "300000"]
    command = [str(python), "-m", "datasette", "serve", str(database), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/people/people.csv"
        eventually(lambda: subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=False).returncode == 0, 60)
        yield f"{url}?_stream=on&_size=max"
    finally:
        process.terminate()
        process.wait(30)

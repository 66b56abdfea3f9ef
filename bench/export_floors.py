"""What the machine allows an export: lines made by the least that can make them, and a worker that has no CPU left.

Rules:
- The prototype has no schema to look at, no types to tell apart and no connection: what SQLite makes of four columns
  whose types are known, in one thread.
- Whoever takes CPU ends by itself, also when the bench is killed.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Probe

_BLOCK_ROWS = 600
_HUNGRY_S = 10
_QUOTED = "'\"' || replace({0}, '\"', '\"\"') || '\"'"
_LINES = {
    "csv": f"id || ',' || {_QUOTED.format('name')} || ',' || {_QUOTED.format('email')} || ',' || created_at",
    "ndjson": "json_object('id', id, 'name', name, 'email', email, 'created_at', created_at)",
}
_ENDS = {"csv": "\r\n", "ndjson": "\n"}


def grouped_s(database: Path, rows: int, form: str) -> float:
    """Seconds of SQLite alone: the first ``rows`` of ``people`` as lines, by ``group_concat``, in blocks by key."""
    statement = (
        f"SELECT group_concat(line, '{_ENDS[form]}'), max(id), count(*) FROM "
        f"(SELECT id, {_LINES[form]} AS line FROM people WHERE id > ? ORDER BY id LIMIT {_BLOCK_ROWS})"
    )
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        began = time.perf_counter()
        last, done = 0, 0
        while done < rows:
            _, last, count = connection.execute(statement, (last,)).fetchone()
            done += count
        return time.perf_counter() - began


@contextmanager
def hungry(count: int) -> Iterator[None]:
    """Let so many processes take all the CPU that they get, while the block runs."""
    code = f"import time\nend = time.monotonic() + {_HUNGRY_S}\nwhile time.monotonic() < end: pass"
    processes = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def crowded(port: int, processes: int, for_s: float = 3.0) -> Probe:
    """Round trips of an empty WSGI application (bench/empty.py), beside so many that take all CPU."""
    with hungry(processes), Probe(port, "/bare") as probe:
        time.sleep(for_s)
    return probe

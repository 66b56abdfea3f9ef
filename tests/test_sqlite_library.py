"""The SQLite library as a server's processes have it."""

from __future__ import annotations

import subprocess
import sys

from settings import ROOT
from stores import sqlite_library


def _used_bytes(first: str) -> str:
    code = f"""
import sqlite3
from stores import sqlite_library
{first}
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE t (x)")
database.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * 100)
assert database.execute("SELECT count(*), sum(length(x)) FROM t").fetchone() == (100, 10_000)
print(sqlite_library.used_bytes())
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_it_does_not_count_its_memory() -> None:
    """Once it is set up, and it works on; before that it counted, as SQLite does by default."""
    if sqlite_library.used_bytes() is None:
        assert _used_bytes("sqlite_library.set_up()") == "None"  # and nothing else happens
        return
    assert int(_used_bytes("")) > 10_000
    assert _used_bytes("sqlite_library.set_up()") == "0"


def test_no_process_of_a_server_counts_it() -> None:
    """Workers are forked from the master, which has set it up when it has read its settings."""
    configured = "import runpy\nrunpy.run_path('gunicorn.conf.py')\nfrom streaming import metrics_folder"
    assert _used_bytes(f"{configured}\nmetrics_folder.remove()") in ("0", "None")

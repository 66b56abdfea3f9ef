"""Plain Flask behind gunicorn's gevent worker: what bench/peer.py serves, as a process for the bench."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import first_byte_ms
from settings import ROOT
from tests.harness import eventually, free_port


@contextmanager
def serving(folder: Path, file: Path, database: Path) -> Iterator[tuple[int, int]]:
    """Yield its port and its worker's process id. Its own folder: gunicorn would take our gunicorn.conf.py."""
    port = free_port()
    environ = os.environ | {"PEER_FILE": str(file), "PEER_DATABASE": str(database), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    command += ["--timeout", "300", "--worker-connections", "6000", "--graceful-timeout", "2"]
    process = subprocess.Popen([*command, "bench.peer:app"], cwd=folder, env=environ)
    try:
        eventually(lambda: _answers(port), 20)
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=True)
        yield port, int(found.stdout.split()[0])
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        return first_byte_ms(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") > 0
    except OSError:
        return False

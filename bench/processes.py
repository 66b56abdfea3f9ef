"""Servers of the bench as processes: started, waited for, looked at from outside, and ended by their own id."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from settings import ROOT
from tests.harness import LiveServer, eventually, listens

START_S = 30
# Whoever calls the bench may have them for a server of ours; a peer would take them for its own.
_NOT_FOR_PEERS = ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")
_SCHED = 2


@contextmanager
def ours(folder: Path, env: Mapping[str, str] | None = None, application: str = "wsgi:app") -> Iterator[LiveServer]:
    """Run our own server in ``folder`` until the block ends; it begins once it is ready."""
    server = LiveServer(folder, {"LOG_LEVEL": "WARNING"} | dict(env or {}), application=application)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def serving(
    command: Sequence[str | Path], port: int, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command``, whose modules may be ours, until the block ends; it begins once the port is listened on.

    Raises AssertionError when nobody listens, with the last line that the process wrote.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_PEERS}
    environ = {**inherited, "PYTHONPATH": str(ROOT), **(env or {})}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*map(str, command)], cwd=cwd, env=environ, stdout=said, stderr=said)
        try:
            eventually(lambda: process.poll() is not None or listens(port), START_S, f"{command[0]} listens")
            assert process.poll() is None, f"{Path(command[0]).name} ended with {process.returncode}: {_last(said)}"
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def _last(said: BinaryIO) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def answers(port: int, path: str = "/") -> bool:
    """Whether there is an answer, whatever it is: a server may listen before it serves."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status > 0
    return False


def answer_of(stream: BinaryIO) -> tuple[int, bytes]:
    """Read one answer of HTTP/1.1 from a connection that goes on; return its status and its body."""
    if not (line := stream.readline()).startswith(b"HTTP/1.1 "):
        raise RuntimeError(f"the server closed: {line!r}")
    fields = {}
    while field := stream.readline().strip():
        name, _, value = field.partition(b":")
        fields[name.lower()] = value.strip()
    if fields.get(b"transfer-encoding") != b"chunked":
        return int(line.split()[1]), stream.read(int(fields.get(b"content-length", b"0")))
    body = b""
    while size := int(stream.readline().partition(b";")[0], 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return int(line.split()[1]), body


def child_of(pid: int) -> int:
    """The process's only child, such as gunicorn's or nginx's one worker, once it is there."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(eventually(lambda: children.read_text().split(), START_S)[0])


def cpu_s(pid: int) -> float:
    """User and system seconds of all threads of the process until now, to the nanosecond.

    Its own clock, as clock_getcpuclockid(3) names it; /proc/<pid>/stat counts in hundredths.
    """
    return time.clock_gettime((~pid << 3) | _SCHED)

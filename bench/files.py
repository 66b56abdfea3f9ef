"""Files beside nginx and beside sendfile(2) alone: whole processes in turn, on the same file of the same disk.

Rules:
- nginx is Debian's, one worker, ``sendfile on``, no access log; Perennial is one worker, its access log to /dev/null.
- A time is that of one client on one connection, from the request's first byte to the answer's last.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bench import bare, limits, processes
from bench.ground import Ground
from bench.limits import Limit
from bench.load import MIB, Probe, watched
from bench.report import NotMeasured
from bench.turns import in_turn, ratio, spread
from tests.harness import LiveServer
from tests.nginx import PROGRAM, nginx

RANGES = 64 * 1024
SLOW_READERS = 50
# What is asked for, its Range, and how many times nginx's time it may take.
TRANSFERS = (("bytes=1-", 1.3), ("bytes=-1048576", 3.0))


def downloads(ground: Ground) -> None:
    """Add the tables; without nginx only those that need none."""
    folder = ground.folder("files")
    path = f"/api/download/{ground.file.name}"
    with ExitStack() as ends:
        server = ends.enter_context(served(folder, ground.file.parent))
        alone = ends.enter_context(bare.serving("send", ground.file))
        server.get(path, headers={"Range": "bytes=0-0"})
        with ground.report.attempt("files beside nginx"):
            if PROGRAM is None:
                raise NotMeasured("nginx is not installed")
            with _peer(folder, ground.file) as peer:
                _transfers(ground, server.port, peer, path)
        with processes.ours(folder / "as-it-is", _environ(ground.file.parent)) as as_it_is:
            _slow_readers(ground, as_it_is, path)
        _limits(ground, server.port, alone, path)


def _transfers(ground: Ground, ours: int, theirs: int, path: str) -> None:
    columns = ("asked for", "Perennial", "nginx", "ratio", "allowed", "another request's p99 beside ours", "allowed")
    ground.report.table(f"Beside nginx, {ground.pairs} pairs", *columns)
    for asked, most in (("", 1.05), *TRANSFERS):
        ways = {
            "Perennial": lambda asked=asked: get_s(ours, path, asked) * 1000,
            "nginx": lambda asked=asked: get_s(theirs, path, asked) * 1000,
        }
        a, b = in_turn(ways, ground.pairs).values()
        with Probe(ours, every_s=0.002) as probe:
            probe.fill("-r", asked.removeprefix("bytes=") or "0-", f"http://127.0.0.1:{ours}{path}")
        name = f"`{asked}`" if asked else f"GET of {ground.size}"
        ground.report.row(
            name, spread(a, "ms"), spread(b, "ms"), ratio(a, b), f"{most:g}", f"**{probe.p99_ms:.1f} ms**", "10 ms"
        )
    _ranges(ground, ours, theirs, path)


def _ranges(ground: Ground, ours: int, theirs: int, path: str) -> None:
    asked = f"bytes={MIB}-{MIB + RANGES - 1}"
    columns = (
        "Perennial", "an empty Flask view on the same worker", "ratio", "asked for", "nginx (or the client's bound)",
        "another request's p99 beside ours", "allowed",
    )  # fmt: skip
    ground.report.table(f"Ranges of 64 KiB, answers a second over eight connections, {ground.pairs} pairs", *columns)
    ways = {"Perennial": lambda: answers_per_s(ours, path, asked), "empty": lambda: answers_per_s(ours, "/empty")}
    a, b = in_turn(ways, ground.pairs).values()
    nginx_too = statistics.median(answers_per_s(theirs, path, asked) for _ in range(ground.runs))
    with Probe(ours, every_s=0.002) as probe:
        answers_per_s(ours, path, asked)
    ground.report.row(
        spread(a, "", 0), spread(b, "", 0), ratio(a, b), "at least 0.8", f"{nginx_too:,.0f}",
        f"**{probe.p99_ms:.1f} ms**", "10 ms",
    )  # fmt: skip


def _slow_readers(ground: Ground, server: LiveServer, path: str) -> None:
    """Each takes some 64 KiB a second for five seconds, of a large file that is there at once."""
    columns = ("readers", "growth of resident memory", "allowed", "a further request's p99")
    ground.report.table("Memory with slow readers", *columns)
    with ExitStack() as stack:
        growth = stack.enter_context(watched(server.pids()[0]))
        probe = stack.enter_context(Probe(server.port))
        readers = [stack.enter_context(_reader(server.port, path)) for _ in range(SLOW_READERS)]
        for _ in range(5 if ground.quick else 50):
            for reader in readers:
                reader.recv(6554)
            time.sleep(0.1)
    ground.report.row(SLOW_READERS, f"**{growth.mib:.1f} MiB**", "16 MiB", f"{probe.p99_ms:.1f} ms")


def _limits(ground: Ground, ours: int, alone: int, path: str) -> None:
    asked = f"bytes={MIB}-{MIB + RANGES - 1}"
    whole = in_turn({"ours": lambda: get_s(ours, path) * 1000, "bare": lambda: get_s(alone, path) * 1000}, ground.pairs)
    each = in_turn(
        {"ours": lambda: 1e6 / answers_per_s(ours, path, asked), "bare": lambda: 1e6 / answers_per_s(ours, "/bare")},
        ground.pairs,
    )
    limits.tell(
        ground.report,
        Limit(f"a GET of {ground.size}", "`sendfile(2)` alone", whole["ours"], whole["bare"], "ms"),
        Limit("a range of 64 KiB", "an empty WSGI application on the same worker", each["ours"], each["bare"], "µs"),
    )


def get_s(port: int, path: str, asked: str = "", size: int = 0) -> float:
    """Seconds of a GET on a connection of its own, from the request's first byte to the answer's last.

    Raises RuntimeError where it is refused, or fewer than ``size`` bytes came.
    """
    fields = f"Range: {asked}\r\n" if asked else ""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n".encode()
    buffer = memoryview(bytearray(MIB))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        began = time.perf_counter()
        connection.sendall(request)
        received = connection.recv_into(buffer)
        status = bytes(buffer[:12])
        while count := connection.recv_into(buffer):
            received += count
        took = time.perf_counter() - began
    if status[:11] != b"HTTP/1.1 20" or received < size:
        raise RuntimeError(f"refused, or cut: {status!r} and {received} bytes")
    return took


def answers_per_s(port: int, path: str, asked: str = "") -> float:
    """What bench/asking.py gets, in a process of its own."""
    command = [sys.executable, "-m", "bench.asking", str(port), path, asked]
    return float(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@contextmanager
def _reader(port: int, path: str) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        yield connection


def served(folder: Path, files: Path) -> AbstractContextManager[LiveServer]:
    """With bench/empty.py's answers, which take memory of their own."""
    return processes.ours(folder, _environ(files), "bench.empty:app")


def _environ(files: Path) -> dict[str, str]:
    return {"FILES_DIR": str(files), "GUNICORN_CMD_ARGS": "--access-logfile /dev/null"}


@contextmanager
def _peer(folder: Path, file: Path) -> Iterator[int]:
    with nginx(folder / "nginx", f"location /api/download/ {{ alias {file.parent}/; }}") as port:
        yield port

"""Files beside nginx: whole processes in turn, A B A B, on the same file of the same disk.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.load import MIB, Probe, seconds, watched
from tests.harness import LiveServer
from tests.nginx import PROGRAM, nginx

PAIRS = 5
RANGES = 64 * 1024
SLOW_READERS = 50
# What is asked for, its Range, and how many times nginx's time it may take.
TRANSFERS = (("GET of 1 GiB", "", 1.05), ("`bytes=1-`", "bytes=1-", 1.3), ("the last MiB", "bytes=-1048576", 3.0))


def downloads(bench: Any) -> None:
    """Add the tables to ``bench``, whose ``file`` is the 1 GiB file; see the rules above."""
    if PROGRAM is None:
        bench.report.say("", "## Files beside nginx", "", "Not measured: nginx is not installed.")
        return
    folder = bench.server.folder / "beside-nginx"
    with _served(folder, bench.file) as server, _peer(folder, bench.file) as peer:
        path = f"/api/download/{bench.file.name}"
        server.get(f"{path}?", headers={"Range": "bytes=0-0"})
        _transfers(bench, server.port, peer, path)
        _ranges(bench, server.port, peer, path)
        _slow_readers(bench, server, path)


def _transfers(bench: Any, ours: int, theirs: int, path: str) -> None:
    bench.report.table(
        f"Files beside nginx (median of {PAIRS} pairs)",
        "asked for", "Perennial", "nginx", "ratio", "allowed", "another request's p99 beside ours", "allowed",
    )  # fmt: skip
    for name, asked, most in TRANSFERS:
        pairs = list(
            _pairs(lambda asked=asked: _seconds(ours, path, asked), lambda asked=asked: _seconds(theirs, path, asked))
        )
        a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(x / y for x, y in pairs)
        with Probe(ours, every_s=0.002) as probe:
            _until(["-r", asked.removeprefix("bytes=") or "0-", f"http://127.0.0.1:{ours}{path}"], probe, 200)
        bench.report.row(
            name, f"{a * 1000:.1f} ms", f"{b * 1000:.1f} ms", f"**{ratio:.2f}**", f"{most:g}",
            f"**{probe.p99_ms:.1f} ms**", "10 ms",
        )  # fmt: skip


def _ranges(bench: Any, ours: int, theirs: int, path: str) -> None:
    asked = f"bytes={MIB}-{MIB + RANGES - 1}"
    bench.report.table(
        f"Ranges of 64 KiB, answers a second over eight connections (median of {PAIRS})",
        "Perennial", "an empty Flask view on the same worker", "ratio", "asked for", "nginx (or the client's bound)",
        "another request's p99 beside ours", "allowed",
    )  # fmt: skip
    pairs = list(_pairs(lambda: _answers(ours, path, asked), lambda: _answers(ours, "/empty", "")))
    nginx_too = statistics.median(_answers(theirs, path, asked) for _ in range(3))
    ratio = statistics.median(x / y for x, y in pairs)
    with Probe(ours, every_s=0.002) as probe:
        _answers(ours, path, asked)
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    bench.report.row(
        f"{a:,.0f}", f"{b:,.0f}", f"**{ratio:.2f}**", "at least 0.8", f"{nginx_too:,.0f}", f"**{probe.p99_ms:.1f} ms**",
        "10 ms",
    )  # fmt: skip


def _slow_readers(bench: Any, server: LiveServer, path: str) -> None:
    """Each takes some 64 KiB a second for five seconds, of 1 GiB that is there at once."""
    bench.report.table(
        "Memory with slow readers", "readers", "growth of resident memory", "allowed", "a further request's p99"
    )
    with ExitStack() as stack:
        growth = stack.enter_context(watched(server.pids()[0]))
        probe = stack.enter_context(Probe(server.port))
        readers = [stack.enter_context(_reader(server.port, path)) for _ in range(SLOW_READERS)]
        for _ in range(50):
            for reader in readers:
                reader.recv(6554)
            time.sleep(0.1)
    bench.report.row(SLOW_READERS, f"**{growth.mib:.1f} MiB**", "16 MiB", f"{probe.p99_ms:.1f} ms")


def _pairs(a: Callable[[], float], b: Callable[[], float]) -> Iterator[tuple[float, float]]:
    """Yield what both return, in turn, each first in every second pair; a first pair warms up and does not count."""
    a(), b()
    for number in range(PAIRS):
        if number % 2:
            second = b()
            yield a(), second
        else:
            yield a(), b()


def _until(arguments: list[str], probe: Probe, samples: int) -> None:
    """Let curls, which share no interpreter with the probe, fetch one after the other until it has so many times."""
    deadline = time.monotonic() + 20
    while len(probe.times_ms) < samples and time.monotonic() < deadline:
        seconds(*arguments)


def _seconds(port: int, path: str, asked: str) -> float:
    fields = f"Range: {asked}\r\n" if asked else ""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n".encode()
    buffer, received = memoryview(bytearray(MIB)), 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        began = time.perf_counter()
        connection.sendall(request)
        while count := connection.recv_into(buffer):
            received += count
        took = time.perf_counter() - began
    if received < MIB:
        raise RuntimeError(f"refused: {bytes(buffer[:received])!r}")
    return took


def _answers(port: int, path: str, asked: str) -> float:
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


@contextmanager
def _served(folder: Path, file: Path) -> Iterator[LiveServer]:
    env = {"FILES_DIR": str(file.parent), "LOG_LEVEL": "WARNING", "GUNICORN_CMD_ARGS": "--access-logfile /dev/null"}
    server = LiveServer(folder, env, application="bench.empty:app")
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def _peer(folder: Path, file: Path) -> Iterator[int]:
    with nginx(folder / "nginx", f"location /api/download/ {{ alias {file.parent}/; }}") as port:
        yield port

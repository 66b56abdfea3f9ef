"""What a model's token costs on its way: 200 to each of 100 chats at once, beside typed chunks through plain Flask.

``python -m bench.chat`` prints it alone. The model's server and the readers are processes of their own, so what is
measured is the server: its CPU a token, and what it adds to a token's time and to the first one's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.fanout import cpu_s
from bench.load import percentile
from settings import ROOT
from tests.harness import LiveServer, eventually, free_port

TOKENS, GAP_S = 200, 0.02
CHATS, CROWD = 100, 500
# One after the other on an idle server, for the time to the first token.
ALONE = 20
LIMIT_S = 150


@dataclass(frozen=True)
class Outcome:
    cpu_us: float
    p50_ms: float
    p99_ms: float
    first_ms: float
    tokens: int
    whole: int


@contextmanager
def model(tokens: int = TOKENS, gap_s: float = GAP_S) -> Iterator[str]:
    """The base URL of a model's server."""
    port = free_port()
    command = [sys.executable, "-m", "bench.model", str(port), str(tokens), str(gap_s)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        eventually(lambda: _listens(port), 10)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def read(port: int, pid: int, path: str, chats: int, apart_s: float = 0.0) -> Outcome:
    """Let ``chats`` readers ask the server whose worker is ``pid``."""
    before = cpu_s(pid)
    command = [sys.executable, "-m", "bench.chat_readers", str(port), path, str(chats), str(apart_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=LIMIT_S)
    seen = json.loads(done.stdout)
    cpu_us = (cpu_s(pid) - before) / max(seen["tokens"], 1) * 1e6
    times = seen["times"] or [0.0]
    firsts = seen["firsts"] or [0.0]
    return Outcome(
        cpu_us, percentile(times, 0.5), percentile(times, 0.99), statistics.median(firsts), len(times), seen["whole"]
    )


@contextmanager
def perennial(folder: Path, url: str) -> Iterator[LiveServer]:
    environ = {"OPENAI_BASE_URL": url, "CHAT_MODEL": "bench", "LOG_LEVEL": "WARNING"}
    environ |= {"CHAT_RUNS_PER_CALLER": "1000", "GUNICORN_CMD_ARGS": "--access-logfile /dev/null"}
    server = LiveServer(folder / "chat", environ)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def typed_chunks(folder: Path, url: str) -> Iterator[tuple[int, int]]:
    """The port and the worker of a plain Flask application that iterates over the client's typed chunks."""
    port = free_port()
    environ = os.environ | {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    command += ["--worker-connections", "2000", "--graceful-timeout", "2", "bench.chat_peer:app"]
    process = subprocess.Popen(command, cwd=folder, env=environ)
    try:
        eventually(lambda: _listens(port), 20)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        worker = eventually(lambda: children.read_text().split(), 20)[0]
        yield port, int(worker)
    finally:
        process.terminate()
        process.wait(30)


def rows(folder: Path) -> Iterator[tuple[str, int, Outcome]]:
    """Yield what was measured: the name, how many chats, and the outcome; whole processes in turn, A B A B."""
    with model() as url:
        for _ in range(2):
            with perennial(folder, url) as server:
                worker = server.pids()[0]
                read(server.port, worker, "/api/chat?protocol=ui", 2)
                for protocol in ("text", "ui", "openai"):
                    yield (
                        f"**Perennial**, {protocol}",
                        CHATS,
                        read(server.port, worker, f"/api/chat?protocol={protocol}", CHATS, GAP_S / CHATS),
                    )
            with typed_chunks(folder, url) as (port, worker):
                read(port, worker, "/chat", 2)
                yield "typed chunks, plain Flask", CHATS, read(port, worker, "/chat", CHATS, GAP_S / CHATS)
        with perennial(folder, url) as server:
            yield "**Perennial**, ui", CROWD, read(server.port, server.pids()[0], "/api/chat?protocol=ui", CROWD, 0.005)
    with model(1) as url, perennial(folder, url) as server, typed_chunks(folder, url) as (port, worker):
        yield (
            "**Perennial**, one token, alone",
            ALONE,
            read(server.port, server.pids()[0], "/api/chat?protocol=ui", ALONE, 0.1),
        )
        yield "typed chunks, one token, alone", ALONE, read(port, worker, "/chat", ALONE, 0.1)


COLUMNS = ("server", "chats", "CPU a token", "added to a token, p50", "p99", "first token", "tokens", "whole answers")
TITLE = f"Chat: {TOKENS} tokens to each chat, one every {GAP_S * 1000:.0f} ms, on one worker"


def cells(name: str, chats: int, outcome: Outcome) -> tuple[str, ...]:
    return (
        name,
        str(chats),
        f"**{outcome.cpu_us:.0f} µs**",
        f"{outcome.p50_ms:.2f} ms",
        f"{outcome.p99_ms:.1f} ms",
        f"{outcome.first_ms:.1f} ms",
        f"{outcome.tokens:,}",
        f"{outcome.whole} of {chats}",
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder)):
            print(*cells(*row), sep=" | ", flush=True)


if __name__ == "__main__":
    main()

"""``python -m bench``: measure, print, and write docs/performance.md (``--print`` leaves the file alone).

``python -m bench chat files`` measures these parts only, and writes their sections anew.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bench import chat, exports, fanout, files, transforms, uploads
from bench.load import MIB, Probe, curl, first_byte_ms, percentile, seconds, watched
from settings import ROOT
from stores.seed import make_sample_database
from tests import redis_server
from tests.harness import LiveServer, eventually, free_port
from tests.redis_server import RedisServer

ROWS = 1_000_000
FILE_BYTES = 2**30
RUNS = 3
FIRST_BYTES = 20
# Subscribers, rounds, events a round, and how many do not read.
CROWDS = (
    (1000, 100, 1, 0),
    (1000, 10, 100, 0),
    (1000, 10, 100, 50),
    (5000, 40, 1, 0),
    (5000, 4, 100, 50),
    (10_000, 20, 1, 0),
)
PEER_CROWDS = ((1000, 30, 1, 0), (1000, 3, 100, 0), (5000, 10, 1, 0))
IDLE, IDLE_S = 10_000, 60

_CHAT = b'{"messages":[{"role":"user","content":"Hello"}]}'


class Bench:
    """One server with one worker, a file of 1 GiB and a table of a million rows, and the rows of the report."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "million.db"
        make_sample_database(self.database, rows=ROWS)
        self.server = LiveServer(
            folder / "server", {"DATABASE_URL": f"sqlite:///{self.database}", "LOG_LEVEL": "WARNING"}
        )
        self.server.start()
        self.file = self.server.files / "gigabyte.bin"
        _write(self.file, FILE_BYTES)
        self.text = folder / "gigabyte.txt"
        _write(self.text, FILE_BYTES, b"The quick brown fox jumps over the lazy dog.\n" * 23302)
        self.lines: list[str] = []

    @property
    def worker(self) -> int:
        return self.server.pids()[0]

    def url(self, path: str) -> str:
        return self.server.url + path

    def table(self, title: str, *columns: str) -> None:
        self.say("", f"## {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|")

    def row(self, *cells: object) -> None:
        self.say("| " + " | ".join(map(str, cells)) + " |")

    def say(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)


def big_streams(bench: Bench) -> dict[str, list[str]]:
    """What one client asks for, by name: curl's arguments."""
    return {
        "download of 1 GiB": [bench.url("/api/download/gigabyte.bin")],
        "upload of 1 GiB": ["-T", str(bench.file), "-X", "POST", bench.url("/api/upload-progress")],
        f"export of {ROWS:,} rows, CSV": [bench.url("/api/export?table=users")],
        f"export of {ROWS:,} rows, NDJSON": [bench.url("/api/stream-json")],
        "transform of 1 GiB": ["-T", str(bench.text), "-X", "POST", bench.url("/api/transform")],
    }


def memory(bench: Bench) -> None:
    bench.table(
        "Memory", "one client, one worker", "growth of resident memory", "asked for", f"time (median of {RUNS})"
    )
    for name, arguments in big_streams(bench).items():
        with watched(bench.worker) as growth:
            times = [seconds(*arguments) for _ in range(RUNS)]
        _clear(bench.server.files / "uploads")
        bench.row(name, f"**{growth.mib:.1f} MiB**", "< 32 MiB", f"{statistics.median(times):.2f} s")


def company(bench: Bench) -> None:
    bench.table("In company: `/healthz` on the same worker", "beside", "p50", "p99", "max", "asked for", "requests")
    with Probe(bench.server.port) as idle:
        eventually(lambda: len(idle.times_ms) >= 500, 30)
    bench.row("nothing", *_figures(idle), "", len(idle.times_ms))
    for name, arguments in big_streams(bench).items():
        with Probe(bench.server.port) as probe:
            seconds(*arguments)
        bench.row(name, *_figures(probe), "", len(probe.times_ms))
    exports = [[bench.url("/api/export?table=users")]] * 4
    with Probe(bench.server.port) as probe:
        processes = [curl(*arguments) for arguments in [*exports, *list(big_streams(bench).values())[:2]]]
        for process in processes:
            if process.wait():
                raise RuntimeError("a transfer failed")
    _clear(bench.server.files / "uploads")
    bench.row(
        "**four exports, an upload and a download at once**", *_figures(probe), "p99 < 10 ms", len(probe.times_ms)
    )


def first_bytes(bench: Bench) -> None:
    bench.table(
        f"First byte, on the idle server ({FIRST_BYTES} new connections each)", "stream", "median", "max", "asked for"
    )
    requests = {
        "/api/stream": _get("/api/stream?chunks=2&interval=0.1"),
        "/api/stream-json": _get("/api/stream-json?table=users"),
        "/api/sse": _get("/api/sse?count=2&interval=0.1"),
        "/api/events": _get("/api/events"),
        "/events": _get("/events"),
        "/api/chat": _post("/api/chat", "application/json", _CHAT),
        "/api/chat?protocol=ui": _post("/api/chat?protocol=ui", "application/json", _CHAT),
        "/api/download": _get("/api/download/gigabyte.bin"),
        "/api/video": _get("/api/video/sample"),
        "/api/upload-progress": _get("/api/upload-progress/nobody"),
        "/api/export": _get("/api/export?table=users"),
        "/api/stream-safe": _get("/api/stream-safe?count=2&interval=0.1"),
        "/api/transform": _post("/api/transform", "text/plain", b"hello"),
    }
    for path, request in requests.items():
        times = [first_byte_ms(bench.server.port, request) for _ in range(FIRST_BYTES)]
        bench.row(f"`{path}`", f"**{statistics.median(times):.1f} ms**", f"{max(times):.1f} ms", "< 50 ms")


def against_plain_flask(bench: Bench) -> None:
    """Whole processes in turn, A B A B, so that a machine that changes its speed changes both."""
    bench.table(
        "Beside plain Flask (`send_file`, `request.stream`, `csv.writer`; gunicorn's gevent worker)",
        "stream", "Perennial", "plain Flask", "ratio (median of pairs)", "another request's p99 beside ours",
        "beside plain Flask's",
    )  # fmt: skip
    ours = big_streams(bench)
    with _peer(bench) as port:
        peer = f"http://127.0.0.1:{port}"
        pairs = {
            "download of 1 GiB": [f"{peer}/file"],
            "upload of 1 GiB": ["-T", str(bench.file), "-X", "POST", f"{peer}/upload"],
            f"export of {ROWS:,} rows, CSV": [f"{peer}/export"],
        }
        for name, theirs in pairs.items():
            times = [(*_timed(bench.server.port, ours[name]), *_timed(port, theirs, "/readyz")) for _ in range(RUNS)]
            _clear(bench.server.files / "uploads")
            a, a99, b, b99 = ([row[n] for row in times] for n in range(4))
            ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
            bench.row(
                name, f"{statistics.median(a):.2f} s", f"{statistics.median(b):.2f} s", f"**{ratio:.2f}**",
                f"{statistics.median(a99):.1f} ms", f"{statistics.median(b99):.1f} ms",
            )  # fmt: skip


def fan_out(bench: Bench) -> None:
    """A queue per client in the same run, and send(2) alone: what no server can go below on this machine."""
    if not fanout.available():
        bench.say("", "## Fan-out", "", "Not measured: there is no C compiler for the load client.")
        return
    folder = bench.server.folder
    fanout.build(folder)
    title = "Fan-out: subscribers of one topic on one worker, SQLite, one event at a time and in bursts"
    columns = ("subscribers", "events", "CPU a delivery", "p50", "p99", "memory each", "connects/s", "lost, doubled")
    bench.table(title, "server", *columns)
    with _crowd(bench) as server:
        fanout.warm(folder, server.port, "/api/events?topic=warm&follow=1")
        for number, (count, rounds, burst, stalled) in enumerate(CROWDS):
            topic = f"topic=bench{number}"
            paths = f"/api/events?{topic}&follow=1", f"/api/notifications?{topic}"
            told = fanout.deliver(folder, server.port, server.pids()[0], *paths, count, rounds, burst, stalled)
            _told(bench, "**Perennial**", count, rounds, burst, stalled, told)
            fanout.drained(server.port)
        share, kib = fanout.idle(folder, server.port, server.pids()[0], "/api/events?topic=idle&follow=1", IDLE, IDLE_S)
    for count, rounds, burst, stalled in PEER_CROWDS:
        with _peer(bench) as port:  # a new one: a silent queue's client is noticed by nobody, and takes a place
            worker = int(
                subprocess.run(["pgrep", "-P", str(_peer_pid(port))], capture_output=True, check=True).stdout.split()[0]
            )
            fanout.warm(folder, port, "/events")
            told = fanout.deliver(
                folder, port, worker, "/events", "/publish", count, rounds, burst, stalled, pipelined=False
            )
            _told(bench, "queue per client", count, rounds, burst, stalled, told)
    for count in (1000, 5000, 10_000):
        us = fanout.bare(folder, free_port(), count, 40, 110)
        bench.row("bare `send` in C", f"{count:,}", "40 × 1", f"{us:.1f} µs", "", "", "", "", "")
    _wake_ups(bench)
    bench.say(
        "",
        f"{IDLE:,} idle subscribers, held for {IDLE_S} s with heartbeats: {share:.1%} of a core, {kib:.1f} KiB each.",
    )


def _wake_ups(bench: Bench) -> None:
    """From the publish on one worker to the reader on the other, each on a connection of its own."""
    bench.table("Publish to receive, through two workers of one machine", "log", "p50", "p99", "asked for", "events")
    redis = RedisServer(bench.server.folder) if redis_server.program() else None
    for name, url in {"SQLite": "", "Redis": redis.start().url if redis else None}.items():
        if url is None:
            continue
        environ = {"WEB_CONCURRENCY": "2", "LOG_LEVEL": "WARNING", "DATABASE_URL": f"sqlite:///{bench.database}"}
        server = LiveServer(bench.server.folder / f"two-{name}", environ | ({"STREAMS_URL": url} if url else {}))
        try:
            times = fanout.wake_ups(server.start().port)
        finally:
            server.stop()
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        bench.row(name, f"{p50:.1f} ms", f"**{p99:.1f} ms**", "p99 < 10 ms", len(times))
    if redis:
        redis.stop()


def _told(bench: Bench, name: str, count: int, rounds: int, burst: int, stalled: int, told: fanout.Outcome) -> None:
    who = f"{count:,}" + (f", {stalled} of them do not read" if stalled else "")
    bench.row(
        name, who, f"{rounds} × {burst}", f"**{told.cpu_us:.1f} µs**", f"{told.p50_ms:.1f} ms", f"{told.p99_ms:.1f} ms",
        f"{told.kib:.1f} KiB", f"{told.connects:,.0f}", f"{told.lost}, {told.doubled}",
    )  # fmt: skip


@contextmanager
def _crowd(bench: Bench) -> Iterator[LiveServer]:
    """A server that takes more than 10,000 connections."""
    environ = {"LOG_LEVEL": "WARNING", "MAX_STREAMS": "12000", "DATABASE_URL": f"sqlite:///{bench.database}"}
    environ["GUNICORN_CMD_ARGS"] = "--worker-connections 13000 --backlog 4096 --access-logfile /dev/null"
    server = LiveServer(bench.server.folder / "crowd", environ)
    try:
        yield server.start()
    finally:
        server.stop()


def _peer_pid(port: int) -> int:
    """The master that listens on ``port``."""
    found = subprocess.run(["pgrep", "-f", f"127.0.0.1:{port} "], capture_output=True, check=True, text=True)
    return min(map(int, found.stdout.split()))


def _timed(port: int, arguments: list[str], path: str = "/healthz") -> tuple[float, float]:
    with Probe(port, path) as probe:
        taken = seconds(*arguments)
    return taken, probe.p99_ms if probe.times_ms else taken * 1000


@contextmanager
def _peer(bench: Bench) -> Iterator[int]:
    port = free_port()
    environ = os.environ | {"PEER_FILE": str(bench.file), "PEER_DATABASE": str(bench.database)}
    environ["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    # Not in our own folder: gunicorn would take our gunicorn.conf.py.
    command += ["--timeout", "300", "--worker-connections", "6000", "--graceful-timeout", "2"]
    process = subprocess.Popen([*command, "bench.peer:app"], cwd=bench.server.folder, env=environ)
    try:
        eventually(lambda: _answers(port), 20)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        return first_byte_ms(port, _get("/readyz")) > 0
    except OSError:
        return False


def _figures(probe: Probe) -> tuple[str, str, str]:
    return f"{probe.p50_ms:.1f} ms", f"**{percentile(probe.times_ms, 0.99):.1f} ms**", f"{probe.max_ms:.1f} ms"


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def _post(path: str, content_type: str, body: bytes) -> bytes:
    fields = f"Host: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body


def _write(path: Path, size: int, block: bytes = b"") -> None:
    block = block or os.urandom(MIB)
    with path.open("wb") as out:
        while (left := size - out.tell()) > 0:
            out.write(block[:left])


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _machine() -> list[str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if "model name" in line), "?")
    packages = ", ".join(f"{name} {version(name)}" for name in ("flask", "gunicorn", "gevent", "openai", "msgspec"))
    return [
        "# Performance",
        "",
        "Made by `make bench`. Absolute figures are those of one shared machine on one day; trust the ratios.",
        "",
        f"- Machine: {os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}",
        f"- Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}",
        f"- Commit {commit.stdout.strip() or 'none yet'}, one worker, logs at WARNING, clients on the same machine",
    ]


def uploading(bench: Bench) -> None:
    folder = bench.server.folder / "uploading"
    folder.mkdir()
    uploads.uploads(bench, folder)


def exporting(bench: Bench) -> None:
    folder = bench.server.folder / "exporting"
    folder.mkdir()
    exports.measure(bench, folder)


def transforming(bench: Bench) -> None:
    transforms.report(bench, bench.text)


def chatting(bench: Bench) -> None:
    folder = bench.server.folder / "chatting"
    folder.mkdir()
    bench.table(chat.TITLE, *chat.COLUMNS)
    for row in chat.rows(folder):
        bench.row(*chat.cells(*row))


PARTS: dict[str, Callable[[Bench], None]] = {
    "first-bytes": first_bytes,
    "memory": memory,
    "company": company,
    "flask": against_plain_flask,
    "files": files.downloads,
    "uploads": uploading,
    "exports": exporting,
    "transforms": transforming,
    "chat": chatting,
    "fanout": fan_out,
}


def merged(before: str, made: str) -> str:
    """Return the document ``before`` with the sections of ``made`` in the place of their namesakes, or at its end."""
    sections = {part.partition("\n")[0]: part for text in (before, made) for part in text.split("\n## ")}
    return "\n## ".join(part.strip("\n") + "\n" for part in sections.values())


def main() -> None:
    arguments = argparse.ArgumentParser(prog="bench", description=__doc__)
    arguments.add_argument("--print", action="store_true", help="do not write docs/performance.md")
    arguments.add_argument("parts", nargs="*", help=f"only these: {', '.join(PARTS)}")
    asked = arguments.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        arguments.error(f"{', '.join(unknown)} is no part")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            bench.say(*_machine())
            for name in asked.parts or PARTS:
                PARTS[name](bench)
        finally:
            bench.server.stop()
    if not asked.print:
        report = ROOT / "docs" / "performance.md"
        made = "\n".join(bench.lines) + "\n"
        report.write_text(merged(report.read_text(), made) if asked.parts else made)


if __name__ == "__main__":
    main()

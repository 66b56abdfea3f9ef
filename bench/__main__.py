"""``python -m bench``: measure, print, and write docs/performance.md (``--print`` leaves the file alone).

``python -m bench chat files`` measures these parts only, and writes their sections anew.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import chat, crowds, exports, files, paint, plain_flask, transforms, uploads
from bench.load import MIB, Probe, curl, first_byte_ms, percentile, seconds, watched
from bench.report import Report, machine, merged
from settings import ROOT
from stores.seed import make_sample_database
from tests.harness import LiveServer, eventually

ROWS = 1_000_000
FILE_BYTES = 2**30
RUNS = 3
FIRST_BYTES = 20

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
        self.report = Report()

    @property
    def worker(self) -> int:
        return self.server.pids()[0]

    def url(self, path: str) -> str:
        return self.server.url + path


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
    bench.report.table(
        "Memory", "one client, one worker", "growth of resident memory", "asked for", f"time (median of {RUNS})"
    )
    for name, arguments in big_streams(bench).items():
        with watched(bench.worker) as growth:
            times = [seconds(*arguments) for _ in range(RUNS)]
        _clear(bench.server.files / "uploads")
        bench.report.row(name, f"**{growth.mib:.1f} MiB**", "< 32 MiB", f"{statistics.median(times):.2f} s")


def company(bench: Bench) -> None:
    bench.report.table(
        "In company: `/healthz` on the same worker", "beside", "p50", "p99", "max", "asked for", "requests"
    )
    with Probe(bench.server.port) as idle:
        eventually(lambda: len(idle.times_ms) >= 500, 30)
    bench.report.row("nothing", *_figures(idle), "", len(idle.times_ms))
    for name, arguments in big_streams(bench).items():
        with Probe(bench.server.port) as probe:
            seconds(*arguments)
        bench.report.row(name, *_figures(probe), "", len(probe.times_ms))
    exports = [[bench.url("/api/export?table=users")]] * 4
    with Probe(bench.server.port) as probe:
        processes = [curl(*arguments) for arguments in [*exports, *list(big_streams(bench).values())[:2]]]
        for process in processes:
            if process.wait():
                raise RuntimeError("a transfer failed")
    _clear(bench.server.files / "uploads")
    bench.report.row(
        "**four exports, an upload and a download at once**", *_figures(probe), "p99 < 10 ms", len(probe.times_ms)
    )


def first_bytes(bench: Bench) -> None:
    bench.report.table(
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
        bench.report.row(f"`{path}`", f"**{statistics.median(times):.1f} ms**", f"{max(times):.1f} ms", "< 50 ms")


def against_plain_flask(bench: Bench) -> None:
    """Whole processes in turn, A B A B, so that a machine that changes its speed changes both."""
    bench.report.table(
        "Beside plain Flask (`send_file`, `request.stream`, `csv.writer`; gunicorn's gevent worker)",
        "stream", "Perennial", "plain Flask", "ratio (median of pairs)", "another request's p99 beside ours",
        "beside plain Flask's",
    )  # fmt: skip
    ours = big_streams(bench)
    with plain_flask.serving(bench.server.folder, bench.file, bench.database) as (port, _):
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
            bench.report.row(
                name, f"{statistics.median(a):.2f} s", f"{statistics.median(b):.2f} s", f"**{ratio:.2f}**",
                f"{statistics.median(a99):.1f} ms", f"{statistics.median(b99):.1f} ms",
            )  # fmt: skip


def _timed(port: int, arguments: list[str], path: str = "/healthz") -> tuple[float, float]:
    with Probe(port, path) as probe:
        taken = seconds(*arguments)
    return taken, probe.p99_ms if probe.times_ms else taken * 1000


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


def uploading(bench: Bench) -> None:
    folder = bench.server.folder / "uploading"
    folder.mkdir()
    uploads.uploads(bench.report, folder)


def exporting(bench: Bench) -> None:
    folder = bench.server.folder / "exporting"
    folder.mkdir()
    exports.measure(bench.report, folder)


def transforming(bench: Bench) -> None:
    transforms.report(bench, bench.text)


def crowding(bench: Bench) -> None:
    crowds.fan_out(bench.report, crowds.Place(bench.server.folder, bench.file, bench.database))


def chatting(bench: Bench) -> None:
    folder = bench.server.folder / "chatting"
    folder.mkdir()
    bench.report.table(chat.TITLE, *chat.COLUMNS)
    for row in chat.rows(folder):
        bench.report.row(*chat.cells(*row))


def painting(bench: Bench) -> None:
    paint.measure(bench.report, bench.server.folder / "painting")


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
    "fanout": crowding,
    "paint": painting,
}


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
            bench.report.say(*machine())
            for name in asked.parts or PARTS:
                PARTS[name](bench)
        finally:
            bench.server.stop()
    if not asked.print:
        document = ROOT / "docs" / "performance.md"
        made = "\n".join(bench.report.lines) + "\n"
        document.write_text(merged(document.read_text(), made) if asked.parts else made)


if __name__ == "__main__":
    main()

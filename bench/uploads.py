"""Uploads beside nginx's dav PUT and tus's own server on Node.

Rules:
- Whole transfers in turn, A B C A B C, into folders of one disk; a file that was measured is deleted at once.
- nginx leaves its bytes to the kernel, and so does Perennial with UPLOADS_SYNC=normal: that is the comparison of like
  with like. With ``full`` the answer means that the disk has them; beside it stands nginx's PUT with ``sync -d``.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.load import MIB, Probe, watched
from bench.report import Report
from tests.harness import LiveServer, eventually, free_port

FILE_BYTES = 2**30
RUNS = 5
WRITERS = 50
TUS_SERVER = Path(__file__).resolve().parent / "tus_server"
_PIECE = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"


def uploads(report: Report, folder: Path) -> None:
    """Measure in ``folder``, which decides on the disk."""
    file = folder / "gigabyte.bin"
    with file.open("wb") as out:
        for _ in range(FILE_BYTES // MIB):
            out.write(bytes(MIB))
    with ExitStack() as ends:
        synced = ends.enter_context(_perennial(folder / "full", "full"))
        server = ends.enter_context(_perennial(folder / "normal", "normal"))
        _one_put(report, folder, file, server, synced)
        _one_patch(report, folder, file, server)
        _slow_writers(report, server)
    file.unlink()


def _one_put(report: Report, folder: Path, file: Path, server: LiveServer, synced: LiveServer) -> None:
    if shutil.which("nginx") is None:
        return report.say("", "## One PUT of 1 GiB", "", "Not measured: there is no nginx.")
    want = "Want-Repr-Digest: sha-256=1\r\n"
    post = "POST /api/upload-progress"
    with _nginx(folder / "nginx") as (port, stored):
        ways: dict[str, Callable[[], float]] = {
            "nginx, dav PUT": lambda: _sent(port, "PUT /x", file),
            "Perennial": lambda: _sent(server.port, post, file),
            "Perennial, SHA-256": lambda: _sent(server.port, post, file, want),
            "nginx, then `sync -d`": lambda: _and_sync(lambda: _sent(port, "PUT /x", file), stored / "x"),
            "Perennial, UPLOADS_SYNC=full": lambda: _sent(synced.port, post, file),
        }
        times = _in_turn(ways, [stored, _stored(server), _stored(synced)])
    report.table("Upload of 1 GiB by one request", "server", "median", "ratio to nginx (median of pairs)", "asked for")
    asked = {"Perennial": "≤ 0.8", "Perennial, SHA-256": "≤ 1.2"}
    for name, each in times.items():
        base = times["nginx, then `sync -d`" if "sync" in name.lower() else "nginx, dav PUT"]
        ratio = statistics.median(a / b for a, b in zip(each, base, strict=True))
        report.row(name, f"{statistics.median(each):.2f} s", f"**{ratio:.2f}**", asked.get(name, ""))


def _one_patch(report: Report, folder: Path, file: Path, server: LiveServer) -> None:
    if shutil.which("npm") is None:
        return report.say("", "## tus: one PATCH of 1 GiB", "", "Not measured: there is no Node.")
    with _node(folder / "node") as (port, stored):
        ways: dict[str, Callable[[], float]] = {
            "@tus/server": lambda: _patch(port, "/files", file),
            "Perennial": lambda: _patch(server.port, "/api/uploads", file),
        }
        times = _in_turn(ways, [stored, _stored(server)])
    ratio = statistics.median(a / b for a, b in zip(times["Perennial"], times["@tus/server"], strict=True))
    report.table("tus: one PATCH of 1 GiB", "server", "median", "ratio", "asked for")
    report.row("@tus/server on Node", f"{statistics.median(times['@tus/server']):.2f} s", "", "")
    report.row("Perennial", f"{statistics.median(times['Perennial']):.2f} s", f"**{ratio:.2f}**", "< 1")


def _slow_writers(report: Report, server: LiveServer) -> None:
    """Each sends 64 KiB ten times a second, for five seconds."""
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(WRITERS)]
    block, rounds = bytes(64 * 1024), 50
    head = "POST /api/upload-progress HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with watched(server.pids()[0]) as growth, Probe(server.port) as probe:
        for client in clients:
            client.sendall((head % (rounds * len(block))).encode())
        for _ in range(rounds):
            due = time.monotonic() + 0.1
            for client in clients:
                client.sendall(block)
            time.sleep(max(0.0, due - time.monotonic()))
        for client in clients:
            client.recv(4096)
            client.close()
    _clear(_stored(server))
    report.table(
        f"{WRITERS} slow writers", "growth of resident memory", "asked for", "another request's p99", "asked for"
    )
    report.row(f"**{growth.mib:.1f} MiB**", "< 16 MiB", f"**{probe.p99_ms:.1f} ms**", "< 10 ms")


def _in_turn(ways: dict[str, Callable[[], float]], folders: list[Path]) -> dict[str, list[float]]:
    """The times of each way, taken in turn; the first round only warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(RUNS + 1):
        for name, way in ways.items():
            taken = way()
            for folder in folders:
                _clear(folder)
            if number:
                times[name].append(taken)
    return times


def _sent(port: int, request: str, file: Path, headers: str = "") -> float:
    """Seconds from the request's first byte to its answer. By sendfile(2): curl alone takes as long as a server."""
    head = (
        f"{request} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\nContent-Length: {FILE_BYTES}\r\n\r\n"
    )
    with file.open("rb") as source, socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        began, offset = time.perf_counter(), 0
        connection.settimeout(None)
        connection.sendall(head.encode())
        while offset < FILE_BYTES:
            offset += os.sendfile(connection.fileno(), source.fileno(), offset, 16 * MIB)
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"refused: {answer!r}")
        return time.perf_counter() - began


def _stored(server: LiveServer) -> Path:
    return server.files / "uploads"


def _patch(port: int, path: str, file: Path) -> float:
    """Seconds of the PATCH alone."""
    url = f"http://127.0.0.1:{port}{path}"
    command = [
        "curl",
        "-sS",
        "--fail",
        "-o",
        "/dev/null",
        "-w",
        "%header{location}",
        "-X",
        "POST",
        "-H",
        "Tus-Resumable: 1.0.0",
    ]
    command += ["-H", f"Upload-Length: {FILE_BYTES}", url]
    location = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return _sent(port, f"PATCH {urlsplit(location).path}", file, _PIECE)


def _and_sync(put: Callable[[], float], stored: Path) -> float:
    taken, began = put(), time.perf_counter()
    subprocess.run(["sync", "-d", str(stored)], check=True)
    return taken + time.perf_counter() - began


@contextmanager
def _perennial(folder: Path, sync: str) -> Iterator[LiveServer]:
    server = LiveServer(folder, {"LOG_LEVEL": "WARNING", "UPLOADS_SYNC": sync})
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def _nginx(folder: Path) -> Iterator[tuple[int, Path]]:
    """Its port, and the folder it writes to."""
    stored, port = folder / "stored", free_port()
    for each in (stored, folder / "temp"):
        each.mkdir(parents=True)
    (folder / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; user root;
        events {{ worker_connections 64; }}
        http {{
            access_log off; client_max_body_size 0; client_body_temp_path {folder}/temp;
            server {{ listen 127.0.0.1:{port}; location / {{ root {stored}; dav_methods PUT; }} }}
        }}
    """)
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        eventually(lambda: _listens(port), 10)
        yield port, stored
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _node(folder: Path) -> Iterator[tuple[int, Path]]:
    """The port of @tus/server, and the folder it writes to."""
    if not (TUS_SERVER / "node_modules").exists():
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(["npm", "install", *options], cwd=TUS_SERVER, check=True)
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(["node", "server.mjs", str(port), str(folder)], cwd=TUS_SERVER)
    try:
        eventually(lambda: _listens(port), 20)
        yield port, folder
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

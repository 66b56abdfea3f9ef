"""Uploads beside nginx's dav PUT, tus's own server on Node, and beside recv(2) and write(2) alone.

Rules:
- Whole transfers in turn, each to a new name on one disk. Between two of them, outside of the time, the last one is
  deleted and disk and memory are settled (bench/disk.py): without it the same transfer took 1.8 s or 5.
- nginx leaves its bytes to the kernel, and so does Perennial with UPLOADS_SYNC=normal: that is the comparison of like
  with like. With ``full`` the answer means that the disk has them; beside it stands nginx's PUT with ``sync -d``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench import bare, environment, limits, processes
from bench.disk import settle
from bench.ground import Ground, write
from bench.limits import Limit
from bench.load import MIB, Probe, watched
from bench.processes import cpu_s
from bench.report import NotMeasured
from bench.turns import in_turn, ratio, spread
from tests.harness import LiveServer, free_port
from tests.nginx import PROGRAM, nginx

WRITERS = 50
# Pairs with nginx: of short transfers, whose ratio is asked for.
PUTS = 5
_PIECE = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
_POST = "POST /api/upload-progress"
_DIGEST = "Want-Repr-Digest: sha-256=1\r\n"


def uploads(ground: Ground) -> None:
    folder = ground.folder("uploads")
    file = folder / "large.bin"
    write(file, ground.file_bytes, bytes(MIB))
    with ExitStack() as ends:
        synced = ends.enter_context(_perennial(folder / "full", "full"))
        server = ends.enter_context(_perennial(folder / "normal", "normal"))
        with ground.report.attempt("uploads beside nginx"):
            _one_put(ground, folder, file, server, synced)
        with ground.report.attempt("uploads beside @tus/server"):
            _one_patch(ground, folder, file, server)
        _slow_writers(ground, server)
        _limits(ground, folder, file, server)
    file.unlink()


def _one_put(ground: Ground, folder: Path, file: Path, server: LiveServer, synced: LiveServer) -> None:
    if PROGRAM is None:
        raise NotMeasured("nginx is not installed")
    names = map("/{}".format, itertools.count())  # to write over a file empties it first
    with _nginx(folder / "nginx") as (port, worker, stored):
        after = _cleared(file, stored, _stored(server), _stored(synced))
        put = _Timed(worker, lambda: _sent(port, f"PUT {next(names)}", file))
        ours = _Timed(server.pids()[0], lambda: _sent(server.port, _POST, file))
        digested = _Timed(server.pids()[0], lambda: _sent(server.port, _POST, file, _DIGEST))
        durable = _Timed(worker, lambda: _put_and_synced(port, next(names), file, stored))
        full = _Timed(synced.pids()[0], lambda: _sent(synced.port, _POST, file))
        in_turn({"nginx": put, "ours": ours, "digested": digested}, 1 if ground.quick else PUTS, after)
        in_turn({"nginx": durable, "ours": full}, ground.runs, after)
    columns = ("server", "time", "times nginx's", "asked for", "CPU of the server", "times nginx's")
    ground.report.table(f"{ground.size} by one request", *columns)
    for name, each, base, asked in (
        ("nginx, dav PUT", put, None, ""),
        ("Perennial", ours, put, "≤ 0.8"),
        ("Perennial, SHA-256", digested, put, "≤ 1.2"),
        ("nginx, then `sync -d`", durable, None, ""),
        ("Perennial, UPLOADS_SYNC=full", full, durable, ""),
    ):
        ground.report.row(name, *each.cells(base, asked))


class _Timed:
    """A way that keeps what each of its turns took: seconds, and CPU seconds of the process ``pid``; not its first."""

    def __init__(self, pid: int, way: Callable[[], float]) -> None:
        self._pid, self._way = pid, way
        self._turns: list[tuple[float, float]] = []

    def __call__(self) -> float:
        began = cpu_s(self._pid)
        taken = self._way()
        self._turns.append((taken, cpu_s(self._pid) - began))
        return taken

    def cells(self, base: _Timed | None, asked: str) -> Iterator[object]:
        for number, further in enumerate(([asked], [])):
            times, theirs = ([turn[number] for turn in each._turns[1:]] for each in (self, base or self))
            yield spread(times, "s", 2)
            yield ratio(times, theirs) if base else ""
            yield from further


def _one_patch(ground: Ground, folder: Path, file: Path, server: LiveServer) -> None:
    with _node(folder / "node") as (port, stored):
        ways: dict[str, Callable[[], float]] = {
            "@tus/server": lambda: _patch(port, "/files", file),
            "Perennial": lambda: _patch(server.port, "/api/uploads", file),
        }
        times = in_turn(ways, ground.runs, _cleared(file, stored, _stored(server)))
    ground.report.table(f"tus: one PATCH of {ground.size}", "server", "time", "ratio", "asked for")
    ground.report.row("@tus/server on Node", spread(times["@tus/server"], "s", 2))
    ours = times["Perennial"]
    ground.report.row("Perennial", spread(ours, "s", 2), ratio(ours, times["@tus/server"]), "< 1")


def _limits(ground: Ground, folder: Path, file: Path, server: LiveServer) -> None:
    """Both write a new file: to empty one of 1 GiB would take a part of the time."""
    taken = folder / "taken"
    taken.mkdir()
    with bare.serving("take", taken / "body") as alone:
        ways: dict[str, Callable[[], float]] = {
            "ours": lambda: _sent(server.port, _POST, file),
            "bare": lambda: _sent(alone, _POST, file),
        }
        times = in_turn(ways, ground.runs, _cleared(file, _stored(server), taken))
    said = "`recv(2)` and `write(2)` alone, in blocks of 1 MiB"
    limits.tell(ground.report, Limit(f"{ground.size} by one request", said, times["ours"], times["bare"], "s"))


def _slow_writers(ground: Ground, server: LiveServer) -> None:
    """Each sends 64 KiB ten times a second, for five seconds."""
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(WRITERS)]
    block, rounds = bytes(64 * 1024), 5 if ground.quick else 50
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
            with client:
                if not (answer := client.recv(4096)).startswith(b"HTTP/1.1 2"):
                    raise RuntimeError(f"refused: {answer!r}")
    _clear(_stored(server))
    columns = ("growth of resident memory", "asked for", "another request's p99", "asked for")
    ground.report.table(f"{WRITERS} slow writers", *columns)
    ground.report.row(f"**{growth.mib:.1f} MiB**", "< 16 MiB", f"**{probe.p99_ms:.1f} ms**", "< 10 ms")


def _sent(port: int, request: str, file: Path, headers: str = "") -> float:
    """Seconds from the request's first byte to its answer. By sendfile(2): curl alone takes as long as a server."""
    size = file.stat().st_size
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\nContent-Length: {size}\r\n\r\n"
    with file.open("rb") as source, socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        began, offset = time.perf_counter(), 0
        connection.settimeout(None)
        connection.sendall(head.encode())
        while offset < size:
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
    command = ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%header{location}", "-X", "POST"]
    command += ["-H", "Tus-Resumable: 1.0.0", "-H", f"Upload-Length: {file.stat().st_size}", url]
    location = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return _sent(port, f"PATCH {urlsplit(location).path}", file, _PIECE)


def _put_and_synced(port: int, name: str, file: Path, stored: Path) -> float:
    taken, began = _sent(port, f"PUT {name}", file), time.perf_counter()
    subprocess.run(["sync", "-d", stored / name.removeprefix("/")], check=True)
    return taken + time.perf_counter() - began


def _cleared(file: Path, *folders: Path) -> Callable[[], None]:
    """What is done between two transfers of ``file`` into the folders."""

    def cleared() -> None:
        _clear(*folders)
        settle(file.stat().st_size * 3 // 2)

    return cleared


def _perennial(folder: Path, sync: str) -> AbstractContextManager[LiveServer]:
    return processes.ours(folder, {"UPLOADS_SYNC": sync})


@contextmanager
def _nginx(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Its port, its worker, and where it stores; what has not come to its end is beside it, on the same disk."""
    stored = folder / "stored"
    stored.mkdir(parents=True)
    content = f"client_max_body_size 0; location / {{ root {stored}; dav_methods PUT; }}"
    with nginx(folder, content) as port:
        yield port, processes.child_of(int((folder / "nginx.pid").read_text())), stored


@contextmanager
def _node(folder: Path) -> Iterator[tuple[int, Path]]:
    """The port of @tus/server, and the folder it writes to."""
    code = environment.node("tus_server")
    folder.mkdir()
    port = free_port()
    with processes.serving(["node", "server.mjs", str(port), folder], port, code):
        yield port, folder


def _clear(*folders: Path) -> None:
    for path in (path for folder in folders for path in folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

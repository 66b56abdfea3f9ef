"""Clients that cost little, and looks at a process from outside.

Rules:
- Load comes from processes of its own (curl), so that it does not share an interpreter with what measures.
- Everything is bounded in bytes and time, goes to 127.0.0.1, and ends by itself.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LIMIT_S = "300"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


@dataclass
class Growth:
    """How far a process grew beyond what it had at the start."""

    before_bytes: int
    most_bytes: int

    @property
    def mib(self) -> float:
        return (self.most_bytes - self.before_bytes) / MIB


@contextmanager
def watched(pid: int) -> Iterator[Growth]:
    """Look at the process's resident memory every 10 ms while the block runs."""
    before = resident_bytes(pid)
    growth = Growth(before, before)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            growth.most_bytes = max(growth.most_bytes, resident_bytes(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield growth
    finally:
        done.set()
        thread.join()


def curl(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["curl", "-sS", "--fail", "--max-time", _LIMIT_S, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def seconds(*arguments: str) -> float:
    """How long one curl takes, from its start to its end."""
    began = time.perf_counter()
    process = curl(*arguments)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"curl {' '.join(arguments)} ended with {process.returncode}: {errors.decode()}")
    return time.perf_counter() - began


def together(each: Sequence[Sequence[str]]) -> float:
    """How long so many curls take at once, until the last has ended. Raises RuntimeError where one failed."""
    began = time.perf_counter()
    processes = [curl(*arguments) for arguments in each]
    told = [process.communicate()[1] for process in processes]
    for process, errors in zip(processes, told, strict=True):
        if process.returncode:
            raise RuntimeError(f"curl ended with {process.returncode}: {errors.decode()}")
    return time.perf_counter() - began


def first_byte_ms(port: int, request: bytes) -> float:
    """Milliseconds from the first byte of the request, on a new connection, to the first byte of the body."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        connection.sendall(request)
        head = b""
        while True:
            data = connection.recv(65536)
            if not data:
                raise RuntimeError(f"no body: {head!r}")
            head += data
            if not head.startswith(b"HTTP/1.1 2"):
                raise RuntimeError(f"refused: {head!r}")
            if b"\r\n\r\n" in head and head.partition(b"\r\n\r\n")[2]:
                return (time.perf_counter() - began) * 1000


@dataclass
class Probe:
    """Round trips of a short request on one connection, in ms, while the block runs.

    Its end raises RuntimeError where one of them failed, or none was answered, unless the block has failed itself.
    """

    port: int
    path: str = "/healthz"
    every_s: float = 0.005
    times_ms: list[float] = field(default_factory=list)
    failure: Exception | None = None

    def __enter__(self) -> Probe:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if failed is None and (self.failure is not None or not self.times_ms):
            raise RuntimeError(f"{self.path} beside it: {self.failure or 'no answer'}") from self.failure

    def _run(self) -> None:
        try:
            self._ask()
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            self.failure = error

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.closing(connection):
            while not self._done.wait(self.every_s):
                began = time.perf_counter()
                connection.request("GET", self.path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"refused with {answer.status}")
                self.times_ms.append((time.perf_counter() - began) * 1000)

    def fill(self, *arguments: str, samples: int = 200) -> None:
        """Let curls, which share no interpreter with it, run one after the other until it has so many times."""
        deadline = time.monotonic() + 20
        while len(self.times_ms) < samples and time.monotonic() < deadline:
            seconds(*arguments)

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def p99_ms(self) -> float:
        return percentile(self.times_ms, 0.99)

    @property
    def max_ms(self) -> float:
        return max(self.times_ms)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]

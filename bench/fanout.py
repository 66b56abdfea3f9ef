"""Many subscribers of one stream of events: what a delivery costs, what those cost that only wait.

The load client is C (bench/subscribers.c), so that it costs less than the server; without a C compiler nothing of it
is measured.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from bench import processes
from bench.load import resident_bytes
from bench.processes import answer_of, cpu_s
from bench.report import NotMeasured
from tests.harness import LiveServer, free_port

HERE = Path(__file__).parent
LIMIT_S = 150
EVENT_BYTES = 110


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many ``subscribers``, of which ``stalled`` do not read, of ``rounds`` of ``burst`` events each."""

    subscribers: int
    rounds: int
    burst: int = 1
    stalled: int = 0

    @property
    def deliveries(self) -> int:
        return (self.subscribers - self.stalled) * self.rounds * self.burst


@dataclass(frozen=True, slots=True)
class Target:
    """Who is measured: the process ``pid`` on ``port``. ``pipelined``: a burst may be sent without waiting."""

    port: int
    pid: int
    path: str
    publish: str
    pipelined: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run: CPU of the server a delivery (µs), latency (ms), memory a connection (KiB), connects a second."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    kib: float
    connects: float
    lost: int
    doubled: int


def build(folder: Path) -> Path:
    """Return the folder with the programs in C. Raises NotMeasured where they cannot be made."""
    if shutil.which("gcc") is None:
        raise NotMeasured("there is no C compiler (gcc) for the load client")
    for name in ("subscribers", "bare_send"):
        subprocess.run(["gcc", "-O2", "-o", folder / name, HERE / f"{name}.c"], check=True)
    return folder


def perennial(folder: Path, application: str = "wsgi:app", **env: str) -> AbstractContextManager[LiveServer]:
    """A server that takes more than 10,000 connections."""
    environ = {"MAX_STREAMS": "12000"} | env
    environ["GUNICORN_CMD_ARGS"] = "--worker-connections 13000 --backlog 4096 --access-logfile /dev/null"
    return processes.ours(folder, environ, application)


def topic(server: LiveServer, name: str) -> Target:
    return Target(
        server.port, server.pids()[0], f"/api/events?topic={name}&follow=1", f"/api/notifications?topic={name}"
    )


def deliver(programs: Path, target: Target, crowd: Crowd, limit_s: float = LIMIT_S) -> Outcome:
    """Connect the subscribers, then POST the events."""
    before = resident_bytes(target.pid)
    count, events = crowd.subscribers, crowd.rounds * crowd.burst
    with _subscribers(programs, target, count, events, limit_s, crowd.stalled) as (connect_s, _, output):
        time.sleep(1)  # what was begun for the connections has ended, too
        kib = (resident_bytes(target.pid) - before) / count / 1024
        began = cpu_s(target.pid)
        publish(target, crowd)
        told = json.loads(output.read())
        used = cpu_s(target.pid) - began
    return Outcome(
        cpu_us=used / crowd.deliveries * 1e6,
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
        kib=kib,
        connects=count / connect_s,
        lost=told["lost"],
        doubled=told["doubled"],
    )


@contextmanager
def _subscribers(
    programs: Path, target: Target, count: int, events: int, limit_s: float, stalled: int = 0
) -> Iterator[tuple[float, subprocess.Popen[str], IO[str]]]:
    """Let them come. The block begins when each has its first byte: the seconds that took, the client, its output."""
    arguments = [str(target.port), target.path, str(count), str(events), str(stalled), str(limit_s)]
    client = subprocess.Popen([programs / "subscribers", *arguments], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    try:
        told = client.stdout.readline().split()
        if told[:2] != ["ready", str(count)]:
            raise RuntimeError(f"of {count:,} subscribers {told[1] if told else 0} were let in")
        yield float(told[2]), client, client.stdout
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def connect_us(programs: Path, target: Target, count: int) -> float:
    """CPU µs of the server for one subscriber to get its first byte; then they leave."""
    began = cpu_s(target.pid)
    with _subscribers(programs, target, count, 0, LIMIT_S):
        return (cpu_s(target.pid) - began) / count * 1e6


def warm(programs: Path, target: Target) -> None:
    """Let a few come and go: what a worker does once is no subscriber's. Their memory is taken again by the next."""
    connect_us(programs, target, 10)
    time.sleep(0.5)


def publish(target: Target, crowd: Crowd) -> None:
    with socket.create_connection(("127.0.0.1", target.port), timeout=60) as publisher:
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with publisher.makefile("rb") as answers:
            for number in range(crowd.rounds):
                numbers = range(number * crowd.burst, (number + 1) * crowd.burst)
                for some in [numbers] if target.pipelined else [range(n, n + 1) for n in numbers]:
                    post(publisher, answers, target.publish, some)
                time.sleep(0.02 * max(1, crowd.subscribers / 1000))


def post(connection: socket.socket, answers: BinaryIO, path: str, numbers: range) -> None:
    """POST one event a number, pipelined (RFC 9112, 9.3.2), and read the answers. Raises RuntimeError for a refusal."""
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
    bodies = (b'{"n":%d,"t":%d}' % (number, time.monotonic_ns()) for number in numbers)
    connection.sendall(b"".join(head % (path.encode(), len(body), body) for body in bodies))
    for _ in numbers:
        status, body = answer_of(answers)
        if not 200 <= status < 300:
            raise RuntimeError(f"an event was refused with {status}: {body[:200]!r}")


def bare_us(programs: Path, count: int, events: int) -> float:
    """CPU µs a delivery of send(2) alone: the limit on this machine."""
    port = free_port()
    command: list[str | Path] = [programs / "bare_send", str(port), str(count), str(events), str(EVENT_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            time.sleep(0.3)
            arguments = [str(port), "/", str(count), str(events), "0", "30"]
            subprocess.run([programs / "subscribers", *arguments], capture_output=True, check=True)
            out, _ = server.communicate(timeout=30)
        finally:
            server.kill()  # it waits for connections that nobody will make
    return float(json.loads(out)["us"])


def idle(programs: Path, target: Target, count: int, seconds: float, heartbeat_s: float) -> tuple[float, float]:
    """Hold ``count`` idle subscribers; return the share of a core that they cost, and KiB of memory each.

    Raises RuntimeError where one of them was closed, or did not get its heartbeats: a server that forgets costs little.
    """
    before = resident_bytes(target.pid)
    with _subscribers(programs, target, count, 0, seconds + LIMIT_S) as (_, client, output):
        time.sleep(2)
        began, at = cpu_s(target.pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_s(target.pid) - began) / (time.monotonic() - at)
        kib = (resident_bytes(target.pid) - before) / count / 1024
        client.terminate()
        told = json.loads(output.read())
    due = int(seconds // heartbeat_s) - 1  # one may still be on its way
    if told["closed"] or told["heartbeats"] < due:
        raise RuntimeError(f"{told['closed']} idle were closed; one got {told['heartbeats']} heartbeats of {due}")
    return share, kib


def drained(server: LiveServer, timeout_s: float = 60) -> None:
    """Return when the server has noticed that all of them have gone; while it does, it may be slow to say so."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            if server.streams() == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the server still has open streams")

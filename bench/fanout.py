"""Many subscribers of one stream of events: what a delivery costs, beside a queue per client and beside bare send(2).

The load client is C (bench/subscribers.c), so that it costs less than the server; without a C compiler this part of the
bench is left out.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load import resident_bytes

HERE = Path(__file__).parent
_TICKS = os.sysconf("SC_CLK_TCK")
_LIMIT_S = 150


@dataclass(frozen=True)
class Outcome:
    """Of one run: CPU of the server a delivery (µs), latency (ms), memory a connection (KiB), connects a second."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    kib: float
    connects: float
    lost: int
    doubled: int


def available() -> bool:
    return shutil.which("gcc") is not None


def build(folder: Path) -> None:
    for name in ("subscribers", "bare_send"):
        subprocess.run(["gcc", "-O2", "-o", folder / name, HERE / f"{name}.c"], check=True)


def cpu_s(pid: int) -> float:
    """User and system seconds of the process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def deliver(
    folder: Path,
    port: int,
    pid: int,
    path: str,
    publish: str,
    count: int,
    rounds: int,
    burst: int = 1,
    stalled: int = 0,
    pipelined: bool = True,
) -> Outcome:
    """Connect ``count`` subscribers of ``path``, then POST ``rounds`` bursts of events to ``publish``."""
    before = resident_bytes(pid)
    arguments = [str(port), path, str(count), str(rounds * burst), str(stalled), str(_LIMIT_S)]
    client = subprocess.Popen([folder / "subscribers", *arguments], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    client.stdout.readline()
    time.sleep(1)  # what was begun for the connections has ended, too
    kib = (resident_bytes(pid) - before) / count / 1024
    began = cpu_s(pid)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as publisher:
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(rounds):
            numbers = range(number * burst, number * burst + burst)
            for some in [numbers] if pipelined else [range(n, n + 1) for n in numbers]:
                _publish(publisher, publish, some)
            time.sleep(0.02 * max(1, count / 1000))
    told = json.loads(client.stdout.read())
    client.wait()
    used = cpu_s(pid) - began
    return Outcome(
        cpu_us=used / ((count - stalled) * rounds * burst) * 1e6,
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
        kib=kib,
        connects=count / told["connect_s"],
        lost=told["lost"],
        doubled=told["doubled"],
    )


def warm(folder: Path, port: int, path: str) -> None:
    """Let a hundred come and go: what a worker does once is no subscriber's."""
    subprocess.run([folder / "subscribers", str(port), path, "100", "0", "0", "2"], capture_output=True, check=True)
    time.sleep(2)


def wake_ups(port: int, readers: int = 8, events: int = 500) -> list[float]:
    """Milliseconds from the publish to each of ``readers``, which two workers share, at 50 events a second."""
    times: list[float] = []
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(readers)]
    request = b"GET /api/events?topic=wake&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    threads = [threading.Thread(target=_listen, args=(each, request, events, times)) for each in connections]
    for thread in threads:
        thread.start()
    time.sleep(1)  # until all of them wait
    with socket.create_connection(("127.0.0.1", port), timeout=30) as publisher:
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(events):
            _publish(publisher, "/api/notifications?topic=wake", range(number, number + 1))
            time.sleep(0.02)
    for thread in threads:
        thread.join(30)
    return times


def _listen(connection: socket.socket, request: bytes, events: int, times: list[float]) -> None:
    with connection:
        connection.sendall(request)
        rest, seen = b"", 0
        while seen < events and (data := connection.recv(65536)):
            now = time.monotonic_ns()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b'data: {"n":'):
                    times.append((now - json.loads(line[6:])["t"]) / 1e6)
                    seen += 1


def _publish(connection: socket.socket, path: str, numbers: range) -> None:
    """POST one event a number, pipelined (RFC 9112, 9.3.2), and read the answers."""
    requests = []
    for number in numbers:
        body = b'{"n":%d,"t":%d}' % (number, time.monotonic_ns())
        requests.append(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )
    connection.sendall(b"".join(requests))
    answers = b""
    while answers.count(b"HTTP/1.1 2") < len(requests) or not answers.endswith((b"}\n", b"}")):
        data = connection.recv(65536)
        if not data or b"HTTP/1.1 5" in answers:
            raise RuntimeError(f"the server closed: {answers[-500:]!r}")
        answers += data


def bare(folder: Path, port: int, count: int, events: int, size: int) -> float:
    """CPU µs a delivery of send(2) alone: the limit on this machine."""
    server = subprocess.Popen(
        [folder / "bare_send", str(port), str(count), str(events), str(size)], stdout=subprocess.PIPE
    )
    time.sleep(0.3)
    subprocess.run(
        [folder / "subscribers", str(port), "/", str(count), str(events), "0", "30"], capture_output=True, check=True
    )
    out, _ = server.communicate()
    return float(json.loads(out)["us"])


def idle(folder: Path, port: int, pid: int, path: str, count: int, seconds: float) -> tuple[float, float]:
    """Hold ``count`` idle subscribers; return the share of a core that they cost, and KiB of memory each."""
    before = resident_bytes(pid)
    client = subprocess.Popen(
        [folder / "subscribers", str(port), path, str(count), "0", "0", str(seconds + 30)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    client.stdout.readline()
    time.sleep(2)
    began, at = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_s(pid) - began) / (time.monotonic() - at)
    kib = (resident_bytes(pid) - before) / count / 1024
    client.kill()
    client.wait()
    return share, kib


def drained(port: int, timeout_s: float = 30) -> None:
    """Return when the server has noticed that all of them have gone."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/healthz")
        if json.loads(connection.getresponse().read()).get("streams", 0) == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("the server still has open streams")

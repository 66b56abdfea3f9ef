"""From the publish on one worker to the reader on the other, each on a connection of its own."""

from __future__ import annotations

import json
import socket
import threading
import time

from bench import fanout, processes
from bench.ground import Ground
from bench.load import percentile
from tests import redis_server
from tests.redis_server import RedisServer

READERS = 8


def wake_ups(ground: Ground) -> None:
    events = 25 if ground.quick else 500
    columns = ("log", "p50", "p99", "asked for", "events")
    ground.report.table("Publish to receive, through two workers of one machine", *columns)
    folder = ground.folder("wake-ups")
    _through(ground, "SQLite", events, {})
    if redis_server.program() is None:
        return ground.report.row("Redis", "not measured: there is no redis-server")
    redis = RedisServer(folder).start()
    try:
        _through(ground, "Redis", events, {"STREAMS_URL": redis.url})
    finally:
        redis.stop()


def _through(ground: Ground, log: str, events: int, env: dict[str, str]) -> None:
    environ = {"WEB_CONCURRENCY": "2", "DATABASE_URL": f"sqlite:///{ground.database}"} | env
    with processes.ours(ground.folder(f"two-{log}"), environ) as server:
        times = _times_ms(server.port, events)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    ground.report.row(log, f"{p50:.1f} ms", f"**{p99:.1f} ms**", "p99 < 10 ms", len(times))


def _times_ms(port: int, events: int) -> list[float]:
    """Milliseconds from the publish to each of the readers, which two workers share, at 50 events a second."""
    times: list[float] = []
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(READERS)]
    request = b"GET /api/events?topic=wake&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    threads = [threading.Thread(target=_listen, args=(each, request, events, times)) for each in connections]
    for thread in threads:
        thread.start()
    time.sleep(1)  # until all of them wait
    with socket.create_connection(("127.0.0.1", port), timeout=30) as publisher:
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with publisher.makefile("rb") as answers:
            for number in range(events):
                fanout.post(publisher, answers, "/api/notifications?topic=wake", range(number, number + 1))
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

"""From the publish on one worker to the reader on the other, each on a connection of its own.

A time counts where every reader got every event, once and in order.
"""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from bench import fanout, processes
from bench.ground import Ground
from bench.load import percentile
from bench.report import NotMeasured
from tests import redis_server
from tests.redis_server import RedisServer

READERS = 8


def wake_ups(ground: Ground) -> None:
    events = 25 if ground.quick else 250
    columns = ("log", "p50", "p99", "asked for", "events")
    ground.report.table("Publish to receive, through two workers of one machine", *columns)
    folder = ground.folder("wake-ups")
    _through(ground, "SQLite", events, {})
    if redis_server.program() is None:
        return ground.report.missing("Redis", NotMeasured("there is no redis-server"))
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
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(READERS)]
    request = b"GET /api/events?topic=wake&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(listen, each, request, events) for each in connections]
        time.sleep(1)  # until all of them wait
        with socket.create_connection(("127.0.0.1", port), timeout=30) as publisher:
            publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with publisher.makefile("rb") as answers:
                for number in range(events):
                    fanout.post(publisher, answers, "/api/notifications?topic=wake", range(number, number + 1))
                    time.sleep(0.02)
        return [ms for reader in readers for ms in reader.result()]


def listen(connection: socket.socket, request: bytes, events: int) -> list[float]:
    """The times of so many events, in ms since they were sent.

    Raises RuntimeError where they are others than 0, 1, 2 and so on, or the stream ends before; TimeoutError where
    nothing comes for as long as the connection waits.
    """
    times: list[float] = []
    with connection:
        connection.sendall(request)
        rest = b""
        while len(times) < events:
            if not (data := connection.recv(65536)):
                raise RuntimeError(f"a reader got {len(times)} of {events} events, and the end")
            now = time.monotonic_ns()
            *lines, rest = (rest + data).split(b"\n")
            for event in (json.loads(line[6:]) for line in lines if line.startswith(b'data: {"n":')):
                if event["n"] != len(times):
                    raise RuntimeError(f"a reader got event {event['n']} where {len(times)} was due")
                times.append((now - event["t"]) / 1e6)
    return times

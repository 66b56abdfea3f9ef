"""From the publish on one worker to the reader on the other, each on a connection of its own.

A time counts where every reader got every event, once and in order. Neither log syncs the disk for each event (SQLite's
``normal``, Redis' ``everysec``). Beside it stands what an empty view takes to answer at the same pace: on a machine
that wakes from its sleep for each of them, that is much of it.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench import processes
from bench.ground import Ground
from bench.load import percentile
from bench.report import NotMeasured
from tests import redis_server
from tests.redis_server import RedisServer

READERS = 8
PAUSE_S = 0.02
# Nothing comes for so long: what is missing never comes.
SILENCE_S = 5.0
_EVENT = b'data: {"n":'


def wake_ups(ground: Ground) -> None:
    events = 25 if ground.quick else 250
    columns = ("log", "p50", "p99", "asked for", "events", "an empty view at this pace: p50", "p99")
    ground.report.table("Publish to receive, through two workers of one machine", *columns)
    folder = ground.folder("wake-ups")
    _through(ground, "SQLite", events, {})
    if redis_server.program() is None:
        return ground.report.missing("Redis", NotMeasured("there is no redis-server"))
    redis = RedisServer(folder, "everysec").start()  # as SQLite here: no event waits for the disk
    try:
        _through(ground, "Redis", events, {"STREAMS_URL": redis.url})
    finally:
        redis.stop()


def _through(ground: Ground, log: str, events: int, env: dict[str, str]) -> None:
    environ = {"WEB_CONCURRENCY": "2", "DATABASE_URL": f"sqlite:///{ground.database}"} | env
    with processes.ours(ground.folder(f"two-{log}"), environ, "bench.empty:app") as server:
        times = _times_ms(server.port, events)
        empty = _empty_ms(server.port, events)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    floor = (f"{percentile(empty, share):.1f} ms" for share in (0.5, 0.99))
    ground.report.row(log, f"{p50:.1f} ms", f"**{p99:.1f} ms**", "p99 < 10 ms", len(times), *floor)


def _times_ms(port: int, events: int) -> list[float]:
    """Milliseconds from the publish to each of the readers, which two workers share, at 50 events a second."""
    with ExitStack() as stack:

        def connection() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))

        readers = [Reader(connection()) for _ in range(READERS)]
        for reader in readers:
            reader.connection.sendall(b"GET /api/events?topic=wake&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)  # until all of them wait
        publish(connection(), readers, events)
        return [ms for reader in readers for ms in reader.times_ms(events)]


def _empty_ms(port: int, count: int) -> list[float]:
    times = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, connection.makefile("rb") as answers:
        for _ in range(count):
            time.sleep(PAUSE_S)
            began = time.monotonic_ns()
            connection.sendall(b"GET /empty HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while answers.readline() != b"\r\n":  # of an empty body the head is all
                pass
            times.append((time.monotonic_ns() - began) / 1e6)
    return times


class Reader:
    """A connection on which events come, of which each says when it was sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ended = False
        self.came: list[tuple[int, bytes]] = []
        self._rest = b""

    def read(self) -> None:
        now = time.monotonic_ns()
        data = self.connection.recv(65536)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.came += [(now, line) for line in lines if line.startswith(_EVENT)]

    def times_ms(self, events: int) -> list[float]:
        """The times of so many events; RuntimeError where they are others than 0, 1, 2 and so on, or fewer."""
        times = []
        for due, (now, line) in enumerate(self.came):
            event = json.loads(line[6:])
            if event["n"] != due:
                raise RuntimeError(f"a reader got event {event['n']} where {due} was due")
            times.append((now - event["t"]) / 1e6)
        if len(times) != events:
            raise RuntimeError(f"a reader got {len(times)} of {events} events")
        return times


def publish(publisher: socket.socket, readers: Sequence[Reader], events: int) -> None:
    """Publish so many events, and read on until every reader has as many, has ended, or nothing comes for 5 s.

    All of it in one thread, which costs less than what it measures. Raises RuntimeError for a refusal.
    """
    publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers, sent, next_at = b"", 0, time.monotonic()
    with select.epoll() as epoll:
        of = {reader.connection.fileno(): reader for reader in readers}
        for each in (publisher.fileno(), *of):
            epoll.register(each, select.EPOLLIN)
        while sent < events or answers.count(b"HTTP/1.1 ") < events or of:
            if sent < events and time.monotonic() >= next_at:
                publisher.sendall(_post(sent))
                sent, next_at = sent + 1, next_at + PAUSE_S
            ready = epoll.poll(max(next_at - time.monotonic(), 0) if sent < events else SILENCE_S)
            if not ready and sent == events:
                break
            for each, _ in ready:
                if (reader := of.get(each)) is None:
                    if not (data := publisher.recv(65536)):
                        raise RuntimeError(f"the publisher was ended after {sent} events")
                    answers += data
                    continue
                reader.read()
                if reader.ended or len(reader.came) >= events:
                    epoll.unregister(each)
                    del of[each]
    if (accepted := answers.count(b"HTTP/1.1 20")) != events:
        raise RuntimeError(f"{accepted} of {events} events were accepted")


def _post(number: int) -> bytes:
    body = b'{"n":%d,"t":%d}' % (number, time.monotonic_ns())
    head = b"POST /api/notifications?topic=wake HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body

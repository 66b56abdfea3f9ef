"""How the cost of events grows: with the subscribers of one log, and with the logs that are written and read."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import ExitStack

from bench import fanout
from bench.fanout import Crowd
from bench.ground import Ground
from bench.grown import Grown
from bench.plot import Curve
from bench.processes import cpu_s
from tests import redis_server
from tests.harness import LiveServer
from tests.redis_server import RedisServer

# To as many readers in all, in 10 to 100 events.
DELIVERIES = 30_000
BARE_EVENTS = 20
# At least so many, and one to each log.
APPENDS, QUICK_APPENDS = 400, 40
_EVENT = b'data: {"n":'


def microseconds(value: float) -> str:
    return f"{value:,.0f} µs" if value >= 100 else f"{value:.1f} µs"


def subscribers(ground: Ground, counts: tuple[int, ...]) -> Grown:
    """CPU of the worker a delivery; the publish is part of it, so one subscriber alone pays for all of it."""
    programs = fanout.build(ground.folder("growth-subscribers"))
    rows, ours, bare = [], [], []
    with fanout.perennial(programs / "ours") as server:
        fanout.warm(programs, fanout.topic(server, "warm"))
        for count in counts:
            crowd = Crowd(count, max(10, min(100, DELIVERIES // count)))
            told = fanout.deliver(programs, fanout.topic(server, f"grow{count}"), crowd)
            fanout.drained(server)
            alone = fanout.bare_us(programs, count, BARE_EVENTS)
            ours.append((count, told.cpu_us))
            bare.append((count, alone))
            cells = f"**{microseconds(told.cpu_us)}**", microseconds(alone), f"{told.p50_ms:.1f} ms"
            rows.append((f"{count:,}", *cells, f"{told.p99_ms:.1f} ms", f"{told.lost}, {told.doubled}"))
    return Grown(
        "Subscribers of one topic: CPU a delivery",
        ("subscribers", "µs of CPU a delivery"),
        "subscribers",
        "the CPU of a delivery, with its share of the publish,",
        (Curve("Perennial", tuple(ours)), Curve("send(2) in C, nothing else", tuple(bare))),
        ("subscribers", "CPU a delivery", "`send(2)` alone", "p50", "p99", "lost, doubled"),
        rows,
        microseconds,
    )


def logs(ground: Ground, counts: tuple[int, ...]) -> Grown:
    """CPU of the worker for an append and its delivery, when so many logs are written in turn, each with one reader."""
    folder = ground.folder("growth-logs")
    names = ["SQLite"]
    with ExitStack() as ends:
        servers = [ends.enter_context(fanout.perennial(folder / "sqlite"))]
        if redis_server.program() is not None:
            redis = RedisServer(folder).start()
            ends.callback(redis.stop)
            servers.append(ends.enter_context(fanout.perennial(folder / "redis", STREAMS_URL=redis.url)))
            names.append("Redis, the worker's part")
        points: list[list[tuple[float, float]]] = [[] for _ in servers]
        for count in counts:
            for server, each in zip(servers, points, strict=True):
                least = max(count, QUICK_APPENDS if ground.quick else APPENDS)
                runs = [_append_us(server, count, least, f"{count}-{run}") for run in range(ground.runs)]
                each.append((count, statistics.median(runs)))
    rows: list[tuple[object, ...]] = [
        (f"{int(each[0][0]):,}", *(f"**{microseconds(us)}**" for _, us in each)) for each in zip(*points, strict=True)
    ]
    return Grown(
        "Logs that are written and read: CPU an append and its delivery",
        ("logs, each with a reader", "µs of CPU an append and its delivery"),
        "logs",
        "the CPU of an append and its delivery",
        tuple(Curve(name, tuple(each)) for name, each in zip(names, points, strict=True)),
        ("logs", *names),
        rows,
        microseconds,
    )


def _append_us(server: LiveServer, count: int, appends: int, name: str) -> float:
    """Of so many new logs, each of which exists and has its reader before the first append that counts."""
    pid, topics = server.pids()[0], [f"logs-{name}-{number}" for number in range(count)]
    with ExitStack() as ends:
        publisher = ends.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = ends.enter_context(publisher.makefile("rb"))
        for topic in topics:
            fanout.post(publisher, answers, f"/api/notifications?topic={topic}", range(1))
        readers = [ends.enter_context(_reader(server.port, topic)) for topic in topics]
        time.sleep(0.5)  # until what was begun for them has ended
        began = cpu_s(pid)
        for number in range(appends):
            fanout.post(
                publisher, answers, f"/api/notifications?topic={topics[number % count]}", range(number, number + 1)
            )
        for number, reader in enumerate(readers):
            _receive(reader, len(range(number, appends, count)))
        used = cpu_s(pid) - began
    fanout.drained(server)
    return used / appends * 1e6


def _reader(port: int, topic: str) -> socket.socket:
    """It has the stored event, and follows: what is sent to it from now on waits in its socket."""
    reader = socket.create_connection(("127.0.0.1", port), timeout=30)
    reader.sendall(f"GET /api/events?topic={topic}&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    _receive(reader, 1)
    return reader


def _receive(reader: socket.socket, events: int) -> None:
    data = b""
    while data.count(_EVENT) < events:
        if not (piece := reader.recv(65536)):
            raise RuntimeError(f"{data.count(_EVENT)} of {events} events came: {data[:200]!r}")
        data += piece

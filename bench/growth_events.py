"""How the cost of events grows: with the subscribers of one log, and with the logs that are written and read."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from bench import fanout
from bench.fanout import Crowd
from bench.ground import Ground
from bench.grown import Grown
from bench.plot import Curve
from bench.processes import cpu_s
from bench.report import reason_of
from tests import redis_server
from tests.harness import LiveServer
from tests.redis_server import RedisServer

# To as many readers in all, in 10 to 100 events.
DELIVERIES = 30_000
BARE_EVENTS = 20
# At least so many, and one to each log.
APPENDS, QUICK_APPENDS = 300, 40
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
    with fanout.perennial(folder / "sqlite") as server:
        curves = [Curve("SQLite", tuple((count, _median_us(ground, server, count)) for count in counts))]
    said = "Redis was not measured: there is no redis-server."
    if redis_server.program() is not None:
        found, said = _on_redis(ground, folder, counts)
        curves += [found] if found.points else []
    costs = [dict(curve.points) for curve in curves]
    rows: list[tuple[object, ...]] = [
        (f"{count:,}", *(f"**{microseconds(each[count])}**" if count in each else "failed" for each in costs))
        for count in counts
    ]
    return Grown(
        "Logs that are written and read: CPU an append and its delivery",
        ("logs, each with a reader", "µs of CPU an append and its delivery"),
        "logs",
        "the CPU of an append and its delivery",
        tuple(curves),
        ("logs", *(curve.name for curve in curves)),
        rows,
        microseconds,
        more=said,
    )


def _on_redis(ground: Ground, folder: Path, counts: tuple[int, ...]) -> tuple[Curve, str]:
    """The curve as far as it went, and what ended it."""
    points: list[tuple[float, float]] = []
    said = ""
    redis = RedisServer(folder, appendonly="everysec").start()
    try:
        with fanout.perennial(folder / "redis", STREAMS_URL=redis.url) as server:
            for count in counts:
                points.append((count, _median_us(ground, server, count)))  # noqa: PERF401 - a failure leaves the others
    except (OSError, RuntimeError) as error:
        ground.report.failed("the curve of logs on Redis", error)
        said = f"On Redis it failed beyond {len(points) and int(points[-1][0])} logs: {reason_of(error)}."
    finally:
        redis.stop()
    return Curve("Redis, the worker's part", tuple(points)), said


def _median_us(ground: Ground, server: LiveServer, count: int) -> float:
    """Of several runs, or of one with more logs than those have appends."""
    appends = max(count, QUICK_APPENDS if ground.quick else APPENDS)
    runs = ground.runs if count < appends else 1
    return statistics.median(_append_us(server, count, appends, f"{count}-{run}") for run in range(runs))


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

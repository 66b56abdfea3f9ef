"""Fan-out as it is reported: crowds of subscribers, a queue for each of plain Flask's, and bare send(2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fanout, plain_flask
from bench.load import percentile
from bench.report import Report
from tests import redis_server
from tests.harness import LiveServer, free_port
from tests.redis_server import RedisServer

# Subscribers, rounds, events a round, and how many do not read.
CROWDS = (
    (1000, 100, 1, 0),
    (1000, 10, 100, 0),
    (1000, 10, 100, 50),
    (5000, 40, 1, 0),
    (5000, 4, 100, 50),
    (10_000, 20, 1, 0),
)
PEER_CROWDS = ((1000, 30, 1, 0), (1000, 3, 100, 0), (5000, 10, 1, 0))
IDLE, IDLE_S = 10_000, 60

_TITLE = "Fan-out: subscribers of one topic on one worker, SQLite, one event at a time and in bursts"
_COLUMNS = ("subscribers", "events", "CPU a delivery", "p50", "p99", "memory each", "connects/s", "lost, doubled")


@dataclass(frozen=True)
class Place:
    """Where it happens: a ``folder`` for the servers, what they export, what the peer serves."""

    folder: Path
    file: Path
    database: Path


def fan_out(report: Report, place: Place) -> None:
    """A queue per client in the same run, and send(2) alone: what no server can go below on this machine."""
    if not fanout.available():
        report.say("", "## Fan-out", "", "Not measured: there is no C compiler for the load client.")
        return
    fanout.build(place.folder)
    report.table(_TITLE, "server", *_COLUMNS)
    idle = _ours(report, place)
    _queue_per_client(report, place)
    for count in (1000, 5000, 10_000):
        us = fanout.bare(place.folder, free_port(), count, 40, 110)
        report.row("bare `send` in C", f"{count:,}", "40 × 1", f"{us:.1f} µs", "", "", "", "", "")
    _wake_ups(report, place)
    report.say("", idle)


def _ours(report: Report, place: Place) -> str:
    """Return what those cost that only wait."""
    with _crowd(place) as server:
        worker = server.pids()[0]
        fanout.warm(place.folder, server.port, "/api/events?topic=warm&follow=1")
        for number, (count, rounds, burst, stalled) in enumerate(CROWDS):
            topic = f"topic=bench{number}"
            paths = f"/api/events?{topic}&follow=1", f"/api/notifications?{topic}"
            told = fanout.deliver(place.folder, server.port, worker, *paths, count, rounds, burst, stalled)
            _told(report, "**Perennial**", count, rounds, burst, stalled, told)
            fanout.drained(server.port)
        path = "/api/events?topic=idle&follow=1"
        share, kib = fanout.idle(place.folder, server.port, worker, path, IDLE, IDLE_S)
    return f"{IDLE:,} idle subscribers, held for {IDLE_S} s with heartbeats: {share:.1%} of a core, {kib:.1f} KiB each."


def _queue_per_client(report: Report, place: Place) -> None:
    """Each crowd has a server of its own: a silent queue's client is noticed by nobody, and keeps its place."""
    for count, rounds, burst, stalled in PEER_CROWDS:
        with plain_flask.serving(place.folder, place.file, place.database) as (port, worker):
            fanout.warm(place.folder, port, "/events")
            told = fanout.deliver(
                place.folder, port, worker, "/events", "/publish", count, rounds, burst, stalled, pipelined=False
            )
        _told(report, "queue per client", count, rounds, burst, stalled, told)


def _wake_ups(report: Report, place: Place) -> None:
    """From the publish on one worker to the reader on the other, each on a connection of its own."""
    report.table("Publish to receive, through two workers of one machine", "log", "p50", "p99", "asked for", "events")
    redis = RedisServer(place.folder) if redis_server.program() else None
    for name, url in {"SQLite": "", "Redis": redis.start().url if redis else None}.items():
        if url is None:
            continue
        environ = {"WEB_CONCURRENCY": "2", "LOG_LEVEL": "WARNING", "DATABASE_URL": f"sqlite:///{place.database}"}
        server = LiveServer(place.folder / f"two-{name}", environ | ({"STREAMS_URL": url} if url else {}))
        try:
            times = fanout.wake_ups(server.start().port)
        finally:
            server.stop()
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        report.row(name, f"{p50:.1f} ms", f"**{p99:.1f} ms**", "p99 < 10 ms", len(times))
    if redis:
        redis.stop()


def _told(report: Report, name: str, count: int, rounds: int, burst: int, stalled: int, told: fanout.Outcome) -> None:
    who = f"{count:,}" + (f", {stalled} of them do not read" if stalled else "")
    report.row(
        name, who, f"{rounds} × {burst}", f"**{told.cpu_us:.1f} µs**", f"{told.p50_ms:.1f} ms", f"{told.p99_ms:.1f} ms",
        f"{told.kib:.1f} KiB", f"{told.connects:,.0f}", f"{told.lost}, {told.doubled}",
    )  # fmt: skip


@contextmanager
def _crowd(place: Place) -> Iterator[LiveServer]:
    """A server that takes more than 10,000 connections."""
    environ = {"LOG_LEVEL": "WARNING", "MAX_STREAMS": "12000", "DATABASE_URL": f"sqlite:///{place.database}"}
    environ["GUNICORN_CMD_ARGS"] = "--worker-connections 13000 --backlog 4096 --access-logfile /dev/null"
    server = LiveServer(place.folder / "crowd", environ)
    try:
        yield server.start()
    finally:
        server.stop()

"""Fan-out as it is reported: crowds of subscribers, others that serve the same, and bare send(2).

Rules:
- Each crowd has a server of its own: what the one before it made a worker take would be memory that nobody counts.
- It is the application as it is: one call more in the way of a request is a page of memory more for each that is open.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from bench import event_peers, fanout, limits, wake_ups
from bench.fanout import Crowd, Outcome, Target
from bench.ground import Ground
from bench.limits import Limit
from bench.turns import in_turn
from settings import Settings
from tests.harness import LiveServer

# Each with what is asked of a delivery: a burst has no latency of its own, and at 5,000 none is asked for.
CROWDS = {
    Crowd(1000, 100): "≤ 4 µs, p99 < 10 ms, ",
    Crowd(1000, 10, 100): "≤ 4 µs, ",
    Crowd(1000, 10, 100, stalled=50): "≤ 4 µs, ",
    Crowd(5000, 40): "",
    Crowd(5000, 4, 100, stalled=50): "",
    Crowd(10_000, 20): "≤ 7 µs, ",
}
QUICK = {Crowd(100, 10): "", Crowd(100, 2, 10, stalled=5): ""}
ASKED = "< 20 KiB, ≥ 2,000 connects/s, none lost"
IDLE, IDLE_S = 10_000, 60
# bench/plan.py reads the rows of this table.
COLUMNS = (
    "server",
    "subscribers",
    "events",
    "CPU a delivery",
    "p50",
    "p99",
    "memory each",
    "connects/s",
    "lost, doubled",
    "asked for",
)


def fan_out(ground: Ground) -> None:
    programs = fanout.build(ground.folder("fan-out"))
    with ground.report.attempt("crowds"):
        _ours(ground, programs)
    with ground.report.attempt("the idle"):
        _idle(ground, programs)
    with ground.report.attempt("the limits of fan-out"), _server(ground) as server:
        _limits(ground, programs, server)
    with ground.report.attempt("fan-out beside others"):
        event_peers.beside(ground, programs)
    wake_ups.wake_ups(ground)


def _ours(ground: Ground, programs: Path) -> None:
    title = "Subscribers of one topic on one worker, SQLite, one event at a time and in bursts"
    ground.report.table(title, *COLUMNS)
    for crowd, asked in (QUICK if ground.quick else CROWDS).items():
        with _server(ground) as server:
            fanout.warm(programs, fanout.topic(server, "warm"))
            told = fanout.deliver(programs, fanout.topic(server, "bench"), crowd)
        ground.report.row("**Perennial**", *cells(crowd, told), asked + ASKED)


def _idle(ground: Ground, programs: Path) -> None:
    idle, idle_s = (100, 1) if ground.quick else (IDLE, IDLE_S)
    with _server(ground) as server:
        fanout.warm(programs, fanout.topic(server, "warm"))
        share, kib = fanout.idle(programs, fanout.topic(server, "idle"), idle, idle_s, Settings().HEARTBEAT_S)
    held = f"{idle:,} idle subscribers, held for {idle_s} s with heartbeats"
    ground.report.say("", f"{held}: {share:.1%} of a core, {kib:.1f} KiB each (asked for: < 10 %, < 20 KiB).")


def _server(ground: Ground, application: str = "wsgi:app") -> AbstractContextManager[LiveServer]:
    return fanout.perennial(
        Path(tempfile.mkdtemp(dir=ground.root)), application, DATABASE_URL=f"sqlite:///{ground.database}"
    )


def _limits(ground: Ground, programs: Path, server: LiveServer) -> None:
    """Of a delivery, send(2) alone; of a connect, an application that does nothing on the same worker."""
    topics = itertools.count()
    crowd = Crowd(100, 10) if ground.quick else Crowd(1000, 40)
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: _delivery_us(programs, server, f"limit{next(topics)}", crowd),
        "bare": lambda: fanout.bare_us(programs, crowd.subscribers, 20),
    }
    times = in_turn(ways, ground.runs, warm=False)
    what = f"a delivery to {crowd.subscribers:,}, one at a time"
    delivery = Limit(what, "`send(2)` in C, nothing else", times["ours"], times["bare"], "µs of CPU")
    count = 100 if ground.quick else 2000
    with _server(ground, "bench.empty:app") as bare:
        empty = Target(bare.port, bare.pids()[0], "/bare", "")
        ways = {
            "ours": lambda: _connect_us(programs, server, fanout.topic(server, "come"), count),
            "bare": lambda: _connect_us(programs, bare, empty, count),
        }
        times = in_turn(ways, ground.runs, warm=False)
    said = "an empty WSGI application on such a worker"
    limits.tell(
        ground.report, delivery, Limit("a connect and its first byte", said, times["ours"], times["bare"], "µs of CPU")
    )


def _delivery_us(programs: Path, server: LiveServer, topic: str, crowd: Crowd) -> float:
    told = fanout.deliver(programs, fanout.topic(server, topic), crowd)
    fanout.drained(server)
    return told.cpu_us


def _connect_us(programs: Path, server: LiveServer, target: Target, count: int) -> float:
    taken = fanout.connect_us(programs, target, count)
    fanout.drained(server)
    return taken


def cells(crowd: Crowd, told: Outcome) -> tuple[str, ...]:
    who = f"{crowd.subscribers:,}" + (f", {crowd.stalled} of them do not read" if crowd.stalled else "")
    return (
        who, f"{crowd.rounds} × {crowd.burst}", f"**{told.cpu_us:.1f} µs**", f"{told.p50_ms:.1f} ms",
        f"{told.p99_ms:.1f} ms", f"{told.kib:.1f} KiB", f"{told.connects:,.0f}", f"{told.lost}, {told.doubled}",
    )  # fmt: skip

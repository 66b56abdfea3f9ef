"""How the cost of work grows: with the chats that are answered at once, and what further workers bring."""

from __future__ import annotations

import os
from pathlib import Path

from bench import bare_relay, chat, exports, processes
from bench import files as file_bench
from bench.ground import Ground
from bench.grown import Grown
from bench.growth_events import microseconds
from bench.load import together
from bench.plot import Curve
from bench.turns import in_turn
from tests.harness import LiveServer

# Exports at once, of so many rows each.
EXPORTS, ROWS = 8, 100_000
# To each chat: half of what the part of the chats sends, for it is the number of chats that counts.
TOKENS = chat.TOKENS // 2


def chats(ground: Ground, counts: tuple[int, ...]) -> Grown:
    """CPU of the worker a token, of chats that begin in the time of one token."""
    folder = ground.folder("growth-chats")
    tokens = 20 if ground.quick else TOKENS
    rows: list[tuple[object, ...]] = []
    ours, alone = [], []
    with chat.model(tokens) as upstream, chat.perennial(folder, upstream) as (port, worker):
        chat.read(port, worker, "/api/chat?protocol=ui", 2, tokens)
        with bare_relay.serving(upstream) as (relay, pid):
            for count in counts:
                told = chat.read(port, worker, "/api/chat?protocol=ui", count, tokens, chat.GAP_S / count)
                bare = chat.read(relay, pid, "/", count, tokens, chat.GAP_S / count)
                ours.append((count, told.cpu_us))
                alone.append((count, bare.cpu_us))
                cells = f"**{microseconds(told.cpu_us)}**", microseconds(bare.cpu_us), f"{told.p50_ms:.1f} ms"
                rows.append((f"{count:,}", *cells, f"{told.p99_ms:.1f} ms", f"{told.whole} of {count}"))
    return Grown(
        f"Chats at once: CPU a token, one every {chat.GAP_S * 1000:.0f} ms in each",
        ("chats", "µs of CPU a token"),
        "chats",
        "the CPU of a token",
        (Curve("Perennial, UI message stream", tuple(ours)), Curve("a relay: receive, decode, send", tuple(alone))),
        ("chats", "CPU a token", "a relay alone", "added to a token, p50", "p99", "whole answers"),
        rows,
        microseconds,
    )


def workers(ground: Ground, counts: tuple[int, ...]) -> Grown:
    """What so many workers do together, as a multiple of what one does: exports, and empty views of Flask."""
    folder = ground.folder("growth-workers")
    exports.fill(folder / "people.db", 5000 if ground.quick else ROWS)
    rows: list[tuple[object, ...]] = []
    speeds: list[tuple[float, float]] = []
    for count in counts:
        speeds.append(_throughput(ground, folder, count))
        times = [now / first for now, first in zip(speeds[-1], speeds[0], strict=True)]
        rows.append(
            (count, f"{speeds[-1][0]:,.0f}", f"**{times[0]:.2f}**", f"{speeds[-1][1]:,.0f}", f"**{times[1]:.2f}**")
        )
    names = f"{EXPORTS} exports at once", "empty views, 8 connections"
    curves = [
        Curve(name, tuple((count, speed[n] / speeds[0][n]) for count, speed in zip(counts, speeds, strict=True)))
        for n, name in enumerate(names)
    ]
    cores = os.cpu_count()
    most, best = max((speed[0] / speeds[0][0], count) for count, speed in zip(counts, speeds, strict=True))
    return Grown(
        "Workers: throughput, as a multiple of one worker's",
        ("workers", "times one worker's throughput"),
        "workers",
        "the throughput of exports",
        tuple(curves),
        ("workers", "rows a second", "times one's", "empty views a second", "times one's"),
        rows,
        lambda value: f"{value:.2f} times one worker's",
        more=f"The most, {most:.2f} times, is with {best} workers: the machine has {cores} cores, and clients on them.",
    )


def _throughput(ground: Ground, folder: Path, workers: int) -> tuple[float, float]:
    """Rows a second of the exports, and answers a second."""
    env = {"DATABASE_URL": f"sqlite:///{folder}/people.db", "EXPORT_TABLES": "people"}
    env |= {"WEB_CONCURRENCY": str(workers), "GUNICORN_CMD_ARGS": "--access-logfile /dev/null"}
    with processes.ours(folder / f"workers-{workers}", env, "bench.empty:app") as server:
        total = EXPORTS * (5000 if ground.quick else ROWS)
        ways = {
            "exports": lambda: total / _exports_s(server),
            "views": lambda: file_bench.answers_per_s(server.port, "/empty"),
        }
        times = in_turn(ways, ground.runs, warm=False)
    # The best: who comes first to an idle worker is decided by chance, and several may wait for one.
    return max(times["exports"]), max(times["views"])


def _exports_s(server: LiveServer) -> float:
    return together([[f"{server.url}/api/export/people.csv"]] * EXPORTS)

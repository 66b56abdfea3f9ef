"""``python -m bench.plan``: what a million open streams take, computed from what docs/performance.md measured.

Rules:
- No figure is made here but by arithmetic from a measured one, from a default of the settings, or from a stated wish.
- ``--write`` puts the result into docs/operations.md, as the bench does when it has written its own; a test holds it
  there to what this computes.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass

from settings import ROOT, Settings

PERFORMANCE = ROOT / "docs" / "performance.md"
OPERATIONS = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- plan: made by `python -m bench.plan --write` -->\n", "<!-- /plan -->\n"

STREAMS = (10_000, 100_000, 1_000_000)
# Wishes: how full a worker and a core may be, and how often each stream gets an event.
FULL = 0.7
EVENTS_A_STREAM_S = 0.1
# gunicorn's default: how many connections wait to be accepted.
BACKLOG = 2048
# stores/redis_client.py: for calls, and one that hears of changes.
REDIS_CONNECTIONS = 33


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the largest audience that was measured, with one event at a time."""

    subscribers: int
    delivery_us: float
    stream_kib: float
    connects_s: int
    idle_core: float
    idle_streams: int


def read(text: str) -> Measured:
    """Return what docs/performance.md has. Raises ValueError where it has another form."""
    row = re.compile(
        r"^\| \*\*Perennial\*\* \| ([\d,]+) \| \d+ × 1 \| \*\*([\d.]+) µs\*\* \|[^|]*\|[^|]*\| ([\d.]+) KiB \| ([\d,]+) \|",
        re.MULTILINE,
    )
    rows = [(_number(a), float(b), float(c), _number(d)) for a, b, c, d in row.findall(text)]
    idle = re.search(r"^([\d,]+) idle subscribers, .*?: ([\d.]+)% of a core", text, re.MULTILINE)
    if not rows or idle is None:
        raise ValueError("docs/performance.md has no row of the fan-out, or no idle subscribers.")
    return Measured(*max(rows), float(idle[2]) / 100, _number(idle[1]))


def _number(text: str) -> int:
    return int(text.replace(",", ""))


@dataclass(frozen=True, slots=True)
class Need:
    """Of so many open ``streams``. ``cores``: of deliveries and heartbeats, at ``FULL``."""

    streams: int
    workers: int
    cores: float
    memory_gib: float
    redis_connections: int
    reconnect_s: float


def need(streams: int, measured: Measured) -> Need:
    """Return what they take: as many workers as ``MAX_STREAMS`` and the work ask for, whichever is more."""
    most = Settings().MAX_STREAMS
    work = streams * EVENTS_A_STREAM_S * measured.delivery_us / 1e6
    cores = (work + streams * measured.idle_core / measured.idle_streams) / FULL
    workers = max(math.ceil(streams / (most * FULL)), math.ceil(cores))
    each = streams / workers
    return Need(
        streams,
        workers,
        cores,
        streams * measured.stream_kib / 2**20,
        workers * REDIS_CONNECTIONS,
        each / measured.connects_s,
    )


def plan(measured: Measured) -> str:
    """Return the section's table and what breaks first, as Markdown."""
    needs = [need(streams, measured) for streams in STREAMS]
    last = needs[-1]
    rows = [
        f"| {each.streams:,} | {each.workers:,} | {each.cores:.1f} | {each.memory_gib:.1f} GiB | "
        f"{2 * each.streams:,} | {each.redis_connections:,} | {each.reconnect_s:.1f} s |"
        for each in needs
    ]
    each = last.streams / last.workers
    said = f"""
- **Taken from docs/performance.md**: {measured.delivery_us:g} µs of CPU a delivery and {measured.stream_kib:g} KiB a stream at {measured.subscribers:,} subscribers of a worker, {measured.connects_s:,} connects a second, {100 * measured.idle_core:g} % of a core for {measured.idle_streams:,} idle streams. **Wished**: {FULL:.0%} of a core and of `MAX_STREAMS` in use, an event for each stream every {1 / EVENTS_A_STREAM_S:g} s.
- **What breaks first is the return of everybody.** A worker has {each:,.0f} streams. Told to go, their clients come back within a second, by the jitter of `retry`, and a worker takes {last.reconnect_s:.1f} s to greet as many; {each - measured.connects_s:,.0f} would wait at once, and its queue holds {BACKLOG:,} (`--backlog`, `net.core.somaxconn`). So never reload all: machine by machine, the others have {FULL:.0%} of what they can, and {1 / FULL - 1:.0%} more to give. With {last.workers:,} workers on {math.ceil(last.workers / 16)} machines of 16, one machine's streams are {16 * each:,.0f}, and the others get {16 * each / max(last.workers - 16, 1):,.0f} more each.
- **Redis carries no stream, but every event**: once when it is appended, and once for each worker that has a reader of it. A topic that all {last.streams:,} follow costs it {last.workers:,} reads an event, and at an event every {1 / EVENTS_A_STREAM_S:g} s {last.workers * EVENTS_A_STREAM_S:,.0f} a second. Of a million topics with one reader each it is {last.streams * EVENTS_A_STREAM_S:,.0f} appends and as many reads a second, which nobody has measured here; several installations, by topic, each with a Redis of its own, share it. `maxclients` (10,000 by default) holds {10_000 // REDIS_CONNECTIONS} workers.
- **Descriptors**: nginx has two for each stream. Towards one address of a server a machine has some 28,000 ports (`net.ipv4.ip_local_port_range`), so nginx stands beside its workers, or the servers listen on several ports.
"""
    head = (
        "| open streams | workers | cores in use | memory of streams | descriptors of nginx | connections of Redis | "
        "a worker greets all of its own in |\n|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n" + said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        renew()
    else:
        print(plan(read(PERFORMANCE.read_text())))


def renew() -> None:
    """Put the plan that follows from docs/performance.md into docs/operations.md. Raises as ``read`` does."""
    text = plan(read(PERFORMANCE.read_text()))
    before, _, rest = OPERATIONS.read_text().partition(BEGIN)
    OPERATIONS.write_text(before + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()

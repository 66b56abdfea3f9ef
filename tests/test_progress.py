"""How fast an upload is, and what is told of it."""

from __future__ import annotations

import msgspec
import pytest

from stores.base import START
from stores.memory import MemoryLog
from streaming.leases import Lease, end_interrupted
from streaming.progress import Progress
from streaming.rates import Rate
from tests.full_log import FullLog


@pytest.mark.parametrize("step_s", [0.01, 0.1, 1.0])
def test_a_steady_rate_is_that_rate(step_s: float) -> None:
    """From the first step on, however long the steps are."""
    rate = Rate(now=0.0)
    for step in range(1, 50):
        rate.moved(round(1000 * step * step_s), step * step_s)
        assert rate.per_s == pytest.approx(1000, rel=0.01)


def test_a_rate_follows_a_change() -> None:
    """Five smoothing times after a change what was before counts for less than a hundredth."""
    rate = Rate(now=0.0)
    rate.moved(1_000_000, 10.0)
    for tick in range(1, 101):
        rate.moved(1_000_000 + 100 * tick, 10.0 + tick / 10)
    assert rate.per_s == pytest.approx(1000, rel=1)
    assert Rate(now=0.0).per_s == 0


def test_time_that_stands_still() -> None:
    """Two steps at the same time are no division by nothing."""
    rate = Rate(now=1.0)
    rate.moved(10, 1.0)
    rate.moved(20, 2.0)
    assert rate.per_s == 20


def test_many_steps_are_few_events() -> None:
    """At most ten a second, each with bytes, total, rate and the time that is left."""
    store = MemoryLog()
    progress = Progress(store, "uploads/x", 10_000)
    progress.begin()
    for received in range(1, 10_000):
        progress.moved(received)
    progress.complete({"received": 10_000})
    first, *middle, last = store.read("uploads/x", START).events
    assert (
        msgspec.json.decode(first.data).items() >= {"received": 0, "total": 10_000, "rate": 0, "left_s": None}.items()
    )
    assert len(middle) <= 20
    assert last.type == "complete"


def test_a_pause_has_no_rate() -> None:
    """Nothing moves: the rate is 0, and nobody knows what is left."""
    store = MemoryLog()
    progress = Progress(store, "uploads/x", 100, received=40)
    progress.paused(40)
    (event,) = store.read("uploads/x", START).events
    assert msgspec.json.decode(event.data) == {"received": 40, "total": 100, "rate": 0, "left_s": None}


@pytest.mark.parametrize("change", ["append", "close"])
def test_a_store_that_fails_at_the_end(change: str) -> None:
    """The end is told by the lease then: whole, and once, whichever write it was that failed."""
    store = FullLog(MemoryLog(), [change])
    lease = Lease(store)
    progress = Progress(store, "uploads/x", 5, lease=lease)
    with lease.holding("uploads/x"):
        progress.begin()
        store.refusals = 1
        progress.complete({"received": 5})
        store.refusals = 0
    lease.renew()
    batch = store.read("uploads/x", START)
    assert ([event.type for event in batch.events], batch.closed) == (["progress", "complete"], True)


@pytest.mark.parametrize("leased", [True, False])
def test_an_end_that_another_worker_told(leased: bool) -> None:
    """It took this worker for dead, and said so to all who watch: they are told no second end, and nothing fails."""
    store = MemoryLog()
    lease = Lease(store) if leased else None
    progress = Progress(store, "uploads/x", 5, lease=lease)
    progress.begin()
    end_interrupted(store, "uploads/x")
    progress.complete({"received": 5})
    if lease:
        lease.renew()
    batch = store.read("uploads/x", START)
    assert ([event.type for event in batch.events], batch.closed) == (["progress", "failed"], True)

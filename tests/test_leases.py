"""Leases: what a dead worker held is ended by the living, once, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from stores.base import START, Config
from stores.errors import NoStream
from stores.memory import MemoryLog
from streaming.events import Event
from streaming.leases import LEASE_S, Lease


class Clock:
    """Seconds since 1970, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Iterator[MemoryLog]:
    log = MemoryLog(clock=clock)
    yield log
    log.dispose()


def last(log: MemoryLog, path: str) -> Event:
    return log.read(path, START).events[-1]


@pytest.mark.parametrize(("path", "mark"), [("uploads/a", "failed"), ("runs/a", "run-failed")])
def test_what_the_dead_held_is_ended(log: MemoryLog, clock: Clock, path: str, mark: str) -> None:
    """The stream gets its mark and its end when the lease of its worker is over, and not before."""
    dead, living = Lease(log), Lease(log)
    log.append(path, [Event(b"{}")], create=Config("application/json"))
    held = dead.holding(path)
    held.__enter__()  # and never left: its worker was killed
    living.renew()
    assert not log.state(path).closed
    clock.now += LEASE_S + 1
    living.renew()
    assert log.state(path).closed
    assert last(log, path).type == mark
    assert "interrupted" in json.loads(last(log, path).data)["error"]
    assert not [one for one in log.paths("held/") if path in one]


def test_a_worker_that_renews_keeps_what_it_holds(log: MemoryLog, clock: Clock) -> None:
    """However long the work takes, as long as its worker lives."""
    working, other = Lease(log), Lease(log)
    log.append("runs/a", [Event(b"x")], create=Config())
    with working.holding("runs/a"):
        for _ in range(10):
            clock.now += LEASE_S / 2
            working.renew()
            other.renew()
        assert not log.state("runs/a").closed


def test_what_is_done_is_held_no_more(log: MemoryLog, clock: Clock) -> None:
    """A stream that was let go is not ended when its worker dies later."""
    done, living = Lease(log), Lease(log)
    log.append("runs/a", [Event(b"x")], create=Config())
    with done.holding("runs/a"):
        pass
    clock.now += LEASE_S + 1
    living.renew()
    assert not log.state("runs/a").closed


def test_a_stream_that_has_ended_is_left_as_it_is(log: MemoryLog, clock: Clock) -> None:
    """Killed between the end of the stream and letting it go: a whole stream stays whole."""
    dead, living = Lease(log), Lease(log)
    log.append("runs/a", [Event(b"x")], create=Config(), close=True)
    held = dead.holding("runs/a")
    held.__enter__()  # and never left: its worker was killed
    clock.now += LEASE_S + 1
    living.renew()
    assert last(log, "runs/a").data == b"x"


def test_a_stream_that_is_gone_is_no_failure(log: MemoryLog, clock: Clock) -> None:
    """What it held may have been deleted meanwhile."""
    dead, living = Lease(log), Lease(log)
    held = dead.holding("runs/a")
    held.__enter__()  # and never left: its worker was killed
    clock.now += LEASE_S + 1
    living.renew()
    with pytest.raises(NoStream):
        log.state("runs/a")


def test_the_death_of_who_was_refused_ends_nothing(log: MemoryLog, clock: Clock) -> None:
    """Two workers hold a path for a moment, when the second asks for an upload id that is taken: the first goes on."""
    working, refused, other = Lease(log), Lease(log), Lease(log)
    log.append("uploads/a", [Event(b"{}")], create=Config("application/json"))
    held = refused.holding("uploads/a")
    held.__enter__()  # and never left: its worker was killed
    with working.holding("uploads/a"):
        clock.now += LEASE_S + 1
        working.renew()
        other.renew()
        assert not log.state("uploads/a").closed
    assert not list(log.paths("held/"))


def test_letting_go_once_is_not_letting_go_twice(log: MemoryLog, clock: Clock) -> None:
    """A second request of the same worker for the same path, refused, does not take the first one's mark away."""
    dead, living = Lease(log), Lease(log)
    log.append("uploads/a", [Event(b"{}")], create=Config("application/json"))
    held = dead.holding("uploads/a")
    held.__enter__()  # and never left: its worker was killed
    with dead.holding("uploads/a"):
        pass
    clock.now += LEASE_S + 1
    living.renew()
    assert last(log, "uploads/a").type == "failed"


@pytest.mark.slow
def test_however_many_are_held_all_are_ended(log: MemoryLog, clock: Clock) -> None:
    """More than a store tells at a time."""
    dead, living = Lease(log), Lease(log)
    held = [dead.holding(f"runs/{number}") for number in range(1005)]
    for number, each in enumerate(held):
        log.create(f"runs/{number}", Config())
        each.__enter__()  # and never left: its worker was killed
    clock.now += LEASE_S + 1
    living.renew()
    assert all(log.state(path).closed for path in (f"runs/{number}" for number in range(1005)))

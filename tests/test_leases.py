"""Leases: what a dead worker held is ended by the living, once, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import gevent.event
import pytest

from stores.base import START, Config
from stores.errors import KeyReused, NoStream, StoreBusy, StoreFull
from stores.memory import MemoryLog
from streaming.events import Event, json_event
from streaming.framings import Text
from streaming.leases import LEASE_S, RENEW_S, Lease
from streaming.progress import Progress
from streaming.receipts import Receipt
from streaming.runs import Run, RunLimits
from tests.full_log import FullLog, LostAnswers


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


def pass_lease(clock: Clock, *living: Lease) -> None:
    """Let more time pass than a lease has, in which the living renew theirs."""
    for _ in range(LEASE_S // int(RENEW_S) + 2):
        clock.now += RENEW_S
        for lease in living:
            lease.renew()


def last(log: MemoryLog, path: str) -> Event:
    return log.read(path, START).events[-1]


@pytest.mark.parametrize(("path", "mark"), [("uploads/a", "failed"), ("runs/a", "run-failed")])
def test_what_the_dead_held_is_ended(log: MemoryLog, clock: Clock, path: str, mark: str) -> None:
    """The stream gets its mark and its end when the lease of its worker is over, and not before."""
    dead, living = Lease(log, clock), Lease(log, clock)
    log.append(path, [Event(b"{}")], create=Config("application/json"))
    held = dead.holding(path)
    held.__enter__()  # and never left: its worker was killed
    living.renew()
    assert not log.state(path).closed
    pass_lease(clock, living)
    assert log.state(path).closed
    assert last(log, path).type == mark
    assert "interrupted" in json.loads(last(log, path).data)["error"]
    assert not [one for one in log.paths("held/") if path in one]


def test_a_worker_that_renews_keeps_what_it_holds(log: MemoryLog, clock: Clock) -> None:
    """However long the work takes, as long as its worker lives."""
    working, other = Lease(log, clock), Lease(log, clock)
    log.append("runs/a", [Event(b"x")], create=Config())
    with working.holding("runs/a"):
        for _ in range(10):
            clock.now += LEASE_S / 2
            working.renew()
            other.renew()
        assert not log.state("runs/a").closed


def test_what_is_done_is_held_no_more(log: MemoryLog, clock: Clock) -> None:
    """A stream that was let go is not ended when its worker dies later."""
    done, living = Lease(log, clock), Lease(log, clock)
    log.append("runs/a", [Event(b"x")], create=Config())
    with done.holding("runs/a"):
        pass
    pass_lease(clock, living)
    assert not log.state("runs/a").closed


def test_a_stream_that_has_ended_is_left_as_it_is(log: MemoryLog, clock: Clock) -> None:
    """Killed between the end of the stream and letting it go: a whole stream stays whole."""
    dead, living = Lease(log, clock), Lease(log, clock)
    log.append("runs/a", [Event(b"x")], create=Config(), close=True)
    held = dead.holding("runs/a")
    held.__enter__()  # and never left: its worker was killed
    pass_lease(clock, living)
    assert last(log, "runs/a").data == b"x"


def test_a_stream_that_is_gone_is_no_failure(log: MemoryLog, clock: Clock) -> None:
    """What it held may have been deleted meanwhile."""
    dead, living = Lease(log, clock), Lease(log, clock)
    held = dead.holding("runs/a")
    held.__enter__()  # and never left: its worker was killed
    pass_lease(clock, living)
    with pytest.raises(NoStream):
        log.state("runs/a")


def test_the_death_of_who_was_refused_ends_nothing(log: MemoryLog, clock: Clock) -> None:
    """Two workers hold a path for a moment, when the second asks for an upload id that is taken: the first goes on."""
    working, refused, other = Lease(log, clock), Lease(log, clock), Lease(log, clock)
    log.append("uploads/a", [Event(b"{}")], create=Config("application/json"))
    held = refused.holding("uploads/a")
    held.__enter__()  # and never left: its worker was killed
    with working.holding("uploads/a"):
        pass_lease(clock, working, other)
        assert not log.state("uploads/a").closed
    assert not list(log.paths("held/"))


def test_letting_go_once_is_not_letting_go_twice(log: MemoryLog, clock: Clock) -> None:
    """A second request of the same worker for the same path, refused, does not take the first one's mark away."""
    dead, living = Lease(log, clock), Lease(log, clock)
    log.append("uploads/a", [Event(b"{}")], create=Config("application/json"))
    held = dead.holding("uploads/a")
    held.__enter__()  # and never left: its worker was killed
    with dead.holding("uploads/a"):
        pass
    pass_lease(clock, living)
    assert last(log, "uploads/a").type == "failed"


@pytest.mark.slow
def test_however_many_are_held_all_are_ended(log: MemoryLog, clock: Clock) -> None:
    """More than a store tells at a time."""
    dead, living = Lease(log, clock), Lease(log, clock)
    held = [dead.holding(f"runs/{number}") for number in range(1005)]
    for number, each in enumerate(held):
        log.create(f"runs/{number}", Config())
        each.__enter__()  # and never left: its worker was killed
    pass_lease(clock, living)
    assert all(log.state(path).closed for path in (f"runs/{number}" for number in range(1005)))


@pytest.mark.parametrize("hours", [-6, 6])
def test_a_clock_that_is_set_makes_nobody_dead_and_nobody_immortal(hours: int) -> None:
    """The time of day steps, forward or back: the living go on, and the dead are found as soon as ever."""
    time_of_day, clock = Clock(), Clock()
    log = MemoryLog(clock=time_of_day)
    working, other, dead = Lease(log, clock), Lease(log, clock), Lease(log, clock)
    for path in ("runs/working", "runs/dead"):
        log.append(path, [Event(b"x")], create=Config())
    held = dead.holding("runs/dead")
    held.__enter__()  # and never left: its worker was killed
    with working.holding("runs/working"):
        other.renew()
        time_of_day.now += 3600 * hours
        other.renew()  # before the other two could renew theirs
        assert not log.state("runs/working").closed
        pass_lease(clock, working, other)
        assert log.state("runs/dead").closed
        assert not log.state("runs/working").closed
    log.dispose()


def test_a_store_that_was_away_makes_nobody_dead(log: MemoryLog, clock: Clock) -> None:
    """Nobody could renew meanwhile: who comes back first does not take the others for dead, nor after it lost all."""
    working, other = Lease(log, clock), Lease(log, clock)
    log.append("runs/a", [Event(b"x")], create=Config())
    with working.holding("runs/a"):
        other.renew()
        clock.now += 10 * LEASE_S
        other.renew()
        assert not log.state("runs/a").closed
        log.delete(f"leases/{working.worker}")
        other.renew()
        assert not log.state("runs/a").closed


def test_who_was_late_in_renewing_knows_it(log: MemoryLog, clock: Clock) -> None:
    """Before it renews, and also after it: others may have looked in between."""
    lease = Lease(log, clock)
    lease.renew()
    for _ in range(9):
        clock.now += RENEW_S
        lease.renew()
    assert not lease.lapsed_since(0.0)
    clock.now += LEASE_S
    assert lease.lapsed_since(clock.now)
    lease.renew()
    assert lease.lapsed_since(clock.now - LEASE_S)
    clock.now += RENEW_S
    assert not lease.lapsed_since(clock.now)


def test_what_a_full_store_did_not_take_is_done_later(log: MemoryLog, clock: Clock) -> None:
    """The end of a stream and the mark on it wait for room; the end is the one that its writer had to say."""
    full = FullLog(log)
    lease = Lease(full, clock)  # type: ignore[arg-type]  # a Log, all but its name
    log.append("exports/a", [Event(b"{}")], create=Config("application/json"))
    with lease.holding("exports/a"), lease.holding("runs/b"):
        full.full = True
        lease.abandon("exports/a", json_event({"rows": 3}, "complete"))
    assert len(log.paths("held/")) == 2
    with pytest.raises(StoreFull):
        lease.renew()
    full.full = False
    lease.renew()
    assert (last(log, "exports/a").type, log.state("exports/a").closed) == ("complete", True)
    assert not log.paths("held/")


def test_a_run_that_finds_no_room_is_ended_when_there_is(log: MemoryLog, clock: Clock) -> None:
    """Its readers are told that it failed, and do not wait for ever."""
    full = FullLog(log)
    lease = Lease(full, clock)  # type: ignore[arg-type]  # a Log, all but its name
    run = Run(full, lease, RunLimits(10, 10**6, 3600))  # type: ignore[arg-type]  # as above
    over = gevent.event.Event()

    def source() -> Iterator[Event | None]:
        yield Event(b"first")
        yield None
        full.full = True
        yield Event(b"second")
        yield None

    run.start(source(), Text(), leave=over.set)
    assert over.is_set() or over.wait(10.0)
    assert not log.state(run.path).closed
    full.full = False
    lease.renew()
    assert (last(log, run.path).type, log.state(run.path).closed) == ("run-failed", True)
    assert not log.paths("held/")


def test_ends_that_find_no_room_are_told_when_there_is(log: MemoryLog, clock: Clock) -> None:
    """An upload that was stored is complete for whoever watches it, an export for whoever reads its receipt."""
    full = FullLog(log)
    lease = Lease(full, clock)  # type: ignore[arg-type]  # a Log, all but its name
    progress = Progress(full, "uploads/a", 3, lease=lease)  # type: ignore[arg-type]  # as above
    receipt = Receipt(full, "b", {}, None)  # type: ignore[arg-type]  # as above
    with lease.holding("uploads/a"):
        progress.begin()
        receipt.begin(lease, 3600)
        full.full = True
        progress.complete({"received": 3})
        receipt.complete()
    full.full = False
    lease.renew()
    for path in ("uploads/a", "exports/b"):
        assert (last(log, path).type, log.state(path).closed) == ("complete", True)
    assert not log.paths("held/")


def test_what_may_have_begun_is_ended(log: MemoryLog, clock: Clock) -> None:
    """A stream whose making was not answered is there, and nobody writes to it: whoever finds it is told."""
    losing = LostAnswers(log, ["create"])
    lease = Lease(losing, clock)  # type: ignore[arg-type]  # a Log, all but its name

    def begin() -> None:
        losing.lost = 1
        losing.create("runs/a", Config())

    with pytest.raises(StoreBusy), lease.holding("runs/a"):
        begin()
    assert not log.state("runs/a").closed
    lease.renew()
    assert (last(log, "runs/a").type, log.state("runs/a").closed) == ("run-failed", True)
    assert not log.paths("held/")


def test_a_mark_that_may_have_been_made_is_taken_away(log: MemoryLog, clock: Clock) -> None:
    """A slot whose taking was not answered is given back; what was not begun is not ended."""
    losing = LostAnswers(log, ["create"])
    lease = Lease(losing, clock)  # type: ignore[arg-type]  # a Log, all but its name
    lease.renew()
    losing.lost = 1
    with pytest.raises(StoreBusy), lease.holding("chats/a", "caller"):
        pass
    lease.renew()
    assert not log.paths("slots/")
    with pytest.raises(NoStream):
        log.state("chats/a")


def test_a_receipt_that_may_have_begun_is_ended(log: MemoryLog, clock: Clock) -> None:
    """The export was refused, for its receipt could not be begun; who reads the receipt does not wait for ever."""
    losing = LostAnswers(log, ["append"])
    lease = Lease(losing, clock)  # type: ignore[arg-type]  # a Log, all but its name
    lease.renew()
    losing.lost = 1
    with pytest.raises(StoreBusy):
        Receipt(losing, "b", {}, None).begin(lease, 3600)  # type: ignore[arg-type]  # as above
    lease.renew()
    assert (last(log, "exports/b").type, log.state("exports/b").closed) == ("failed", True)
    assert not log.paths("held/")


def test_what_another_one_had_begun_is_not_ended(log: MemoryLog, clock: Clock) -> None:
    """Who is refused an id that is taken ends nothing of its owner's."""
    lease = Lease(log, clock)
    Receipt(log, "b", {}, None).begin(lease, 3600)
    with pytest.raises(KeyReused):
        Receipt(log, "b", {}, None).begin(lease, 3600)
    lease.renew()
    assert not log.state("exports/b").closed

"""Who works on what, and how somebody else in this worker gets it; tests/test_tus_routes.py has the other workers."""

from __future__ import annotations

import gevent
import pytest

from stores.memory import MemoryLog
from streaming import claims as claims_module
from streaming.claims import CLAIMS, Claims
from streaming.errors import Locked


class Lock:
    """What the store does with flock, for several holders of one process."""

    def __init__(self) -> None:
        self.taken = False

    def hold(self) -> Lock | None:
        if self.taken:
            return None
        self.taken = True
        return self

    def release(self) -> None:
        self.taken = False


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def lock() -> Lock:
    return Lock()


def test_what_nobody_holds_is_had_at_once(log: MemoryLog, lock: Lock) -> None:
    """And given back; nobody is told anything."""
    claims = Claims(log)
    with claims.taking("x", lock.hold) as (held, _):
        assert held is lock
        assert lock.taken
    assert not lock.taken
    assert list(log.paths(CLAIMS)) == []


def test_the_same_worker_gets_it_too(log: MemoryLog, lock: Lock) -> None:
    """Without the log: the holder is known by name."""
    claims, let_go, order = Claims(log), gevent.event.Event(), []

    def first() -> None:
        with claims.taking("x", lock.hold) as (_, holder):
            holder.listen(let_go.set)
            let_go.wait()
            order.append("first")

    def second() -> None:
        with claims.taking("x", lock.hold):
            order.append("second")

    gevent.joinall([gevent.spawn(first), gevent.spawn(second)], timeout=5, raise_error=True)
    assert order == ["first", "second"]
    assert list(log.paths(CLAIMS)) == []


def test_a_claim_before_the_holder_listens(log: MemoryLog, lock: Lock) -> None:
    """It is told as soon as it can be."""
    told = []
    claims = Claims(log)
    with claims.taking("x", lock.hold) as (_, holder):
        holder.claimed()
        holder.listen(lambda: told.append("let go"))
    assert told == ["let go"]


def test_one_that_does_not_let_go(log: MemoryLog, lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    """423 after a while, and nothing was taken."""
    monkeypatch.setattr(claims_module, "TAKE_S", 0.1)
    lock.taken = True
    with pytest.raises(Locked), Claims(log).taking("x", lock.hold):
        pass
    assert lock.taken


def test_what_fails_gives_it_back(log: MemoryLog, lock: Lock) -> None:
    """Also when it cannot be had at all."""
    claims = Claims(log)

    def missing() -> Lock:
        raise KeyError

    for hold in (lock.hold, missing):
        with pytest.raises(KeyError), claims.taking("x", hold):
            raise KeyError
    assert not lock.taken

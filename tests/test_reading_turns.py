"""Turns of greenlets that read: one at a time where rows come as fast as they are read, and nobody is held up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import gevent
import pytest
from gevent.event import Event as Flag

from stores import reading_turns
from stores.reading_turns import QUANTUM_S, ReadingTurns

FOR_EVER_S = 3600.0
Item = tuple[str, int] | None


def _quick(name: str, count: int, made: list[str], work_s: float = QUANTUM_S / 10) -> Iterator[Item]:
    """Items that are there as soon as they are asked for, each with a moment's work, after which others may run."""
    try:
        for n in range(count):
            until = time.monotonic() + work_s
            while time.monotonic() < until:
                gevent.sleep(0)
            made.append(name)
            yield name, n
    finally:
        made.append(f"{name} closed")


def _switches(made: list[str]) -> int:
    return sum(one != other for one, other in pairwise(made))


def test_one_reads_for_some_time_and_then_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """All have all of theirs in order, and what they make is in few runs, not item by item."""
    monkeypatch.setattr(reading_turns, "IDLE_S", FOR_EVER_S)  # a busy machine makes a reader idle
    turns, made = ReadingTurns(1), []  # type: ignore[var-annotated]
    readers = [gevent.spawn(list, turns.each(_quick(name, 40, made))) for name in "abc"]
    gevent.joinall(readers, raise_error=True)
    for name, reader in zip("abc", readers, strict=True):
        assert reader.value == [(name, n) for n in range(40)]
    items = [name for name in made if "closed" not in name][3:]  # the first of each has no turn
    assert {"a", "b", "c"} == set(items)
    assert _switches(items) < 60  # of 117, each of which would be one without turns


def test_who_waits_for_rows_has_no_turn() -> None:
    """While one's rows do not come the others read on, and it has its own as soon as they are there."""
    came, turns, made = Flag(), ReadingTurns(1), []  # type: ignore[var-annotated]

    def slow() -> Iterator[Item]:
        yield "slow", 0
        yield None
        assert came.wait(30)
        yield "slow", 1

    waiting = gevent.spawn(list, turns.each(slow()))
    gevent.sleep(0)
    assert len(list(turns.each(_quick("a", 5, made)))) == 5
    assert not waiting.ready()
    came.set()
    assert waiting.get(timeout=30) == [("slow", 0), None, ("slow", 1)]


def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    """Whoever has a turn and does not come again loses it."""
    turns, made = ReadingTurns(1), []  # type: ignore[var-annotated]
    stuck = turns.each(_quick("stuck", 9, made))
    assert [next(stuck), next(stuck)] == [("stuck", 0), ("stuck", 1)]
    assert len(list(turns.each(_quick("a", 5, made)))) == 5
    assert next(stuck) == ("stuck", 2)
    stuck.close()  # type: ignore[attr-defined]
    assert made[-1] == "stuck closed"


def test_who_is_interrupted_while_it_waits_is_no_more_in_the_row() -> None:
    """Its items are closed, and those behind it come on."""
    turns, made = ReadingTurns(1), []  # type: ignore[var-annotated]

    class Gone(BaseException):
        """As a client that has gone is told."""

    first = turns.each(_quick("first", 9, made))
    assert [next(first), next(first)] == [("first", 0), ("first", 1)]
    left = gevent.spawn(list, turns.each(_quick("left", 9, made)))
    other = gevent.spawn(list, turns.each(_quick("other", 3, made)))
    while made.count("left") + made.count("other") < 2:
        gevent.sleep(0)
    gevent.get_hub().loop.run_callback(left.throw, Gone())  # as the hub does it
    with pytest.raises(Gone):
        left.get(timeout=30)
    assert made.count("left closed") == 1
    assert len(other.get(timeout=30)) == 3
    assert list(first)[-1] == ("first", 8)


def test_a_failure_gives_its_turn_back() -> None:
    """Who cannot read on is no reader any more."""

    def failing() -> Iterator[Item]:
        yield "a", 0
        raise ValueError("no more")

    turns = ReadingTurns(1)
    with pytest.raises(ValueError, match="no more"):
        list(turns.each(failing()))
    assert not turns._readers


def test_so_many_read_at_once_as_there_are_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three, item by item, and the third when one of them is done."""
    monkeypatch.setattr(reading_turns, "IDLE_S", FOR_EVER_S)
    monkeypatch.setattr(reading_turns, "QUANTUM_S", FOR_EVER_S)
    turns, made = ReadingTurns(2), []  # type: ignore[var-annotated]
    works = (gevent.spawn(list, turns.each(_quick(name, 30, made, 0.001))) for name in "abc")
    gevent.joinall([*works], raise_error=True)
    two = made[3:-1].index(next(said for said in made if "closed" in said))
    assert made[3 : 3 + two].count("a") + made[3 : 3 + two].count("b") == two
    assert abs(made[3 : 3 + two].count("a") - made[3 : 3 + two].count("b")) <= 2
    assert [made.count(name) for name in "abc"] == [30, 30, 30]

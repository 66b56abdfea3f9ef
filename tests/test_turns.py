"""Turns of native threads: no more at once than there are, and nobody waits long for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stores.turns import Turns

# Longer than a test may take.
_FOR_EVER_S = 3600.0


def _run(*works: threading.Thread) -> None:
    for each in works:
        each.start()
    for each in works:
        each.join()


def test_no_more_at_once_than_there_are() -> None:
    """Of four threads two make an item at a time, and each has all of its own, in order."""
    lock, at_once, most, made = threading.Lock(), 0, 0, {}  # type: ignore[var-annotated]

    def items() -> Iterator[int]:
        nonlocal at_once, most
        for n in range(20):
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.0002)
            with lock:
                at_once -= 1
            yield n

    turns = Turns(2, _FOR_EVER_S)

    def work(name: int) -> None:
        made[name] = list(turns.each(items()))

    _run(*(threading.Thread(target=work, args=(name,)) for name in range(4)))
    assert most == 2
    assert made == {name: list(range(20)) for name in range(4)}


def test_who_waits_for_a_reader_has_no_turn() -> None:
    """Between two items the turn is another's."""
    turns = Turns(1, _FOR_EVER_S)
    held = turns.each(iter("ab"))
    assert next(held) == "a"
    assert list(turns.each(iter("cd"))) == ["c", "d"]
    assert list(held) == ["b"]


def test_a_long_item_holds_up_nobody() -> None:
    """Who has waited for his turn long enough goes on without one."""
    turns, begun, end = Turns(1), threading.Event(), threading.Event()

    def long() -> Iterator[str]:
        begun.set()
        assert end.wait(30)
        yield "long"

    done: list[str] = []
    thread = threading.Thread(target=lambda: done.extend(turns.each(long())))
    thread.start()
    assert begun.wait(30)
    assert list(turns.each(iter("abc"))) == ["a", "b", "c"]
    assert not done
    end.set()
    thread.join()
    assert done == ["long"]


def test_a_failure_gives_its_turn_back() -> None:
    """Also what cannot be made took a turn only for as long as that."""

    def failing() -> Iterator[str]:
        yield "a"
        raise ValueError("b")

    turns = Turns(1, _FOR_EVER_S)
    with pytest.raises(ValueError, match="b"):
        list(turns.each(failing()))
    assert list(turns.each(iter("c"))) == ["c"]

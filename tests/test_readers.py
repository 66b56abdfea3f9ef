"""Readers of a log: replay and live, each event once, and a lost history told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from stores.base import START, Config, Log
from stores.errors import UnknownOffset
from stores.memory import MemoryLog
from streaming import readers
from streaming.events import Event
from streaming.progress import Progress
from streaming.readers import Follow, replay


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryLog]:
    monkeypatch.setattr(readers, "TICK_S", 0.02)
    log = MemoryLog()
    yield log
    log.dispose()


def events(*texts: str) -> list[Event]:
    return [Event(text.encode()) for text in texts]


def append(log: Log, path: str, new: list[Event], keep: int = 0) -> str:
    """Append as the server does, which makes the stream; return the last offset."""
    return log.append(path, new, create=Config(keep_events=keep)).offset


def told(source: Iterator[Event | None]) -> list[str]:
    """The data of the events; of a reset, what is missed."""
    return [
        f"missed {json.loads(item.data)['missed']}" if item.type == "stream-reset" else item.data.decode()
        for item in source
        if item is not None
    ]


def test_follow_reads_to_the_end(log: MemoryLog) -> None:
    """All that is there, over more than one batch, and then the end that was said."""
    append(log, "a", events(*map(str, range(2500))))
    log.close("a")
    assert told(Follow(log, "a", START)) == [str(n) for n in range(2500)]


def test_follow_goes_on_after_a_cursor(log: MemoryLog) -> None:
    """From each offset, exactly the rest; from the last one nothing but the end."""
    offsets = [append(log, "a", events(text)) for text in "abcd"]
    log.close("a")
    assert [told(Follow(log, "a", offset)) for offset in offsets] == [["b", "c", "d"], ["c", "d"], ["d"], []]


def test_follow_is_none_before_it_waits_and_at_every_tick(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is written first; then the pump is asked its questions, and nothing spins."""
    append(log, "a", events("1"))
    source, waits, wait = Follow(log, "a", START), [], log.wait
    monkeypatch.setattr(log, "wait", lambda *asked: waits.append(asked) or wait(*asked))
    assert next(source) is not None
    begun, busy = time.monotonic(), time.thread_time()
    assert next(source) is None
    assert not waits
    assert [next(source) for _ in range(10)] == [None] * 10
    assert time.monotonic() - begun >= 0.19
    assert time.thread_time() - busy < 0.1
    append(log, "a", events("2"))
    assert next(source) == log.read("a", START).events[1]


def test_follow_waits_for_a_log_that_is_not_there_yet(log: MemoryLog) -> None:
    """Who comes first waits, and sees all of it."""
    source = Follow(log, "a", START)
    assert next(source) is None
    append(log, "a", events("1"))
    log.close("a")
    assert told(source) == ["1"]


def test_follow_beside_a_writer(log: MemoryLog) -> None:
    """Each event once, whatever comes between reading and waiting."""

    def write() -> None:
        for n in range(500):
            append(log, "a", events(str(n)))
        log.close("a")

    writer = threading.Thread(target=write)
    writer.start()
    assert told(Follow(log, "a", START)) == [str(n) for n in range(500)]
    writer.join()


def test_a_lost_history_is_told_before_what_follows(log: MemoryLog) -> None:
    """With the cursor, where it goes on and how many are missing; from the start nothing was promised."""
    cursor = append(log, "a", events("1"))
    append(log, "a", events(*"2345"), keep=2)
    log.close("a")
    source = list(Follow(log, "a", cursor))
    reset = source[0]
    assert reset is not None
    assert (reset.type, reset.id) == ("stream-reset", "")
    first = log.read("a", START).events[0].id
    assert json.loads(reset.data) == {"asked": cursor, "from": first, "missed": 2}
    assert told(iter(source)) == ["missed 2", "4", "5"]
    assert told(Follow(log, "a", START)) == ["4", "5"]


def test_a_reader_that_falls_behind_is_told(log: MemoryLog) -> None:
    """Also one that was live: what retention took from it between two reads."""
    append(log, "a", events("1"))
    source = Follow(log, "a", START)
    assert told(iter([next(source), next(source)])) == ["1"]
    for n in range(2, 9):
        append(log, "a", events(str(n)), keep=3)
    log.close("a")
    assert told(source) == ["missed 4", "6", "7", "8"]


def test_a_log_that_is_deleted_below_its_reader_fails_it(log: MemoryLog) -> None:
    """It is not taken for an end, nor for a log without events."""
    append(log, "a", events("1"))
    source = Follow(log, "a", START)
    next(source), next(source)
    log.delete("a")
    append(log, "a", events("new"))
    with pytest.raises(UnknownOffset):
        told(source)


def test_replay_ends_at_its_offset(log: MemoryLog) -> None:
    """Up to it and with it, and not what came later, over more than one batch."""
    until = append(log, "a", events(*map(str, range(1500))))
    append(log, "a", events("later"))
    assert told(replay(log, "a", START, until)) == [str(n) for n in range(1500)]
    assert told(replay(log, "a", until, until)) == []
    assert told(replay(log, "a", START, START)) == []


def test_replay_whose_events_are_gone_ends(log: MemoryLog) -> None:
    """All of it was dropped meanwhile: it says so to who had a cursor, gives nothing that came later, and ends."""
    cursor = append(log, "a", events("1"))
    until = append(log, "a", events("2", "3"))
    append(log, "a", events(*"4567"), keep=2)
    assert told(replay(log, "a", cursor, until)) == ["missed 4"]


# Progress


def test_progress_is_told_at_most_ten_times_a_second(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast upload does not fill its log; the first and the last are always there."""
    now = [0.0]
    monkeypatch.setattr("streaming.progress.time.monotonic", lambda: now[0])
    progress = Progress(log, "a", 1000)
    progress.begin()
    for n in range(1, 1001):
        now[0] += 0.0625  # a power of two, which sums up without error
        progress.moved(n)
    progress.complete({"received": 1000})
    batch = log.read("a", START)
    assert batch.closed
    assert [event.type for event in batch.events] == ["progress"] * (len(batch.events) - 1) + ["complete"]
    # Each second step is more than a tenth of a second after the last that was told; and the beginning and the end.
    assert len(batch.events) == 502
    numbers = [json.loads(event.data)["received"] for event in batch.events]
    assert numbers == sorted(numbers)
    assert json.loads(batch.events[0].data)["total"] == 1000

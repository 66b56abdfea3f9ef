"""What is staged of a log in SQLite, as its own worker and others read it, and what becomes of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract_log", "tests.contract_forks", "tests.contract_producers")

from stores import sqlite_file, sqlite_log  # noqa: E402  # the contract's asserts are to be rewritten first
from stores.base import START, Append, Config, Create, Producer  # noqa: E402
from stores.errors import StoreFull  # noqa: E402
from stores.sqlite_log import SQLiteLog  # noqa: E402
from streaming.events import Event  # noqa: E402
from tests.contract_log import events, texts  # noqa: E402
from tests.test_logs import Child, Clock  # noqa: E402
from tests.test_sqlite_commits import count  # noqa: E402

PATHS = ("a", "b", "c")
JSON = Config("application/json", ttl_s=100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "streams.db"
    sqlite_log.prepare(path)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(path: Path, clock: Clock) -> Iterator[SQLiteLog]:
    log = SQLiteLog(path, clock=clock)
    log.create_each([Create(each, JSON, events("0")) for each in PATHS])
    yield log
    log.dispose()


@pytest.fixture
def other(path: Path, clock: Clock) -> Iterator[SQLiteLog]:
    log = SQLiteLog(path, clock=clock)
    yield log
    log.dispose()


def stage(log: SQLiteLog, *numbers: int, close: bool = False, paths: Sequence[str] = PATHS) -> None:
    for number in numbers:
        appends = [Append(path, events(str(number)), Producer("p", 0, number - 1), close) for path in paths]
        assert log.append_each(appends) == [None] * len(paths)


def test_what_is_staged_is_read_by_all(path: Path, log: SQLiteLog, other: SQLiteLog) -> None:
    """Nothing of it lies with its stream yet, and each reader, from any offset, sees it there."""
    stage(log, 1, 2, 3)
    assert count(path, "staged") == 9
    assert count(path, "events") == 3
    for each in (log, other):
        batch = each.read("b", START)
        assert [event.data for event in batch.events] == [b"0", b"1", b"2", b"3"]
        assert (batch.tail, batch.total) == (batch.events[-1].id, 4)
        for number in range(4):
            assert texts(each.read("b", batch.events[number].id)) == ["1", "2", "3"][number:]
        assert texts(each.read("b", START, limit=2)) == ["0", "1"]
        assert texts(each.read("b", batch.events[1].id, limit=1)) == ["2"]
        assert each.state("b").tail == batch.tail


def test_what_is_staged_is_settled_in_time(path: Path, log: SQLiteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has become much, or old: then it is where each stream's events are, and the log goes on as before."""
    monkeypatch.setattr("stores.sqlite_batches._MOST_STAGED", 6)
    stage(log, 1)
    assert count(path, "staged") == 3
    stage(log, 2)
    assert (count(path, "staged"), count(path, "staged_tails"), count(path, "events")) == (0, 0, 9)
    monkeypatch.setattr("stores.sqlite_batches._SETTLE_S", 0.0)
    stage(log, 3)
    assert (count(path, "staged"), count(path, "events")) == (0, 12)
    stage(log, 4, close=True)
    assert [texts(log.read(each, START)) for each in PATHS] == [["0", "1", "2", "3", "4"]] * 3
    assert all(log.state(each).closed for each in PATHS)


def test_whoever_writes_settles_that_stream(path: Path, log: SQLiteLog, other: SQLiteLog) -> None:
    """Another worker appends, closes, forks and deletes: each after what was staged, which is not lost or doubled."""
    stage(log, 1, 2)
    offset = other.append("a", events("x")).offset
    assert count(path, "staged") == 4
    other.create("fork", Config("", forked_from="b"))
    other.delete("c")
    assert (count(path, "staged"), count(path, "staged_tails")) == (0, 0)
    assert texts(log.read("fork", START)) == ["0", "1", "2"]
    assert log.read("a", START).tail == offset
    stage(log, 3, paths=["a", "b"])
    assert texts(other.read("a", START)) == ["0", "1", "2", "x", "3"]
    assert texts(other.read("fork", START)) == ["0", "1", "2"]
    log.create("c", JSON)
    assert texts(log.read("c", START)) == []


def test_what_another_worker_has_made_of_a_stream_holds(log: SQLiteLog, other: SQLiteLog) -> None:
    """Its retention is another one since, and its events are the same."""
    other.append("a", (), create=Config("application/json", keep_events=2))
    stage(log, 1, 2, 3)
    assert texts(log.read("a", START)) == texts(other.read("a", START)) == ["2", "3"]
    assert texts(log.read("b", START)) == ["0", "1", "2", "3"]


def test_a_retry_of_what_is_staged_adds_nothing(log: SQLiteLog, other: SQLiteLog) -> None:
    """Whoever is asked again: the producer's mark is with what it left."""
    stage(log, 1, 2)
    for each in (other, log):
        assert each.append("a", events("2"), producer=Producer("p", 0, 1)).duplicate
    stage(log, 2, 3)
    assert texts(log.read("a", START)) == texts(log.read("b", START)) == ["0", "1", "2", "3"]


def test_the_time_of_what_is_staged_is_found(log: SQLiteLog, other: SQLiteLog, clock: Clock) -> None:
    """``since`` finds what was appended from then on, among what is settled and what is not."""
    clock.passes(10)
    then = clock()
    stage(log, 1)
    clock.passes(10)
    later = clock()
    stage(log, 2)
    for each in (log, other):
        assert texts(each.read("a", each.since("a", then))) == ["1", "2"]
        assert texts(each.read("a", each.since("a", later))) == ["2"]


def test_a_stream_lives_on_from_what_was_staged(log: SQLiteLog, other: SQLiteLog, clock: Clock) -> None:
    """Its lifetime begins anew with each append, staged or not, and so for whoever keeps house."""
    clock.passes(90)
    stage(log, 1, paths=["a"])
    clock.passes(90)
    other.expire()
    assert list(other.paths("")) == ["a"]
    assert texts(other.read("a", START)) == ["0", "1"]


def test_a_worker_that_was_killed_leaves_it_readable(path: Path, clock: Clock) -> None:
    """Its successor reads it, ends it, and settles the rest when it has kept house for a while."""
    code = """
        from stores.base import *
        log = SQLiteLog(path)
        log.create_each([Create(each, Config("application/json"), [Event(b"0")]) for each in "ab"])
        for n in range(2):
            log.append_each([Append(each, [Event(b"%d" % (n + 1))], Producer("p", 0, n)) for each in "ab"])
        say("staged")
        sys.stdin.readline()
    """
    with Child(path, code) as child:
        assert child.line() == "staged"
    log = SQLiteLog(path, clock=clock)
    assert texts(log.read("a", START)) == ["0", "1", "2"]
    log.append("a", events("interrupted"), close=True)
    assert texts(log.read("a", START)) == ["0", "1", "2", "interrupted"]
    log.expire()
    assert count(path, "staged") == 2
    clock.passes(61)
    log.expire()
    assert (count(path, "staged"), count(path, "staged_tails")) == (0, 0)
    assert texts(log.read("b", START)) == ["0", "1", "2"]
    log.dispose()


def test_a_log_settles_what_it_staged_when_it_ends(path: Path, log: SQLiteLog) -> None:
    """So a server that was stopped leaves a file that needs nobody."""
    second = SQLiteLog(path)
    second.create_each([Create("d", JSON)])
    stage(second, 1, paths=["d"])
    assert count(path, "staged") == 1
    second.dispose()
    assert (count(path, "staged"), count(path, "staged_tails")) == (0, 0)
    assert texts(log.read("d", START)) == ["1"]


def test_what_cannot_be_settled_stays_readable(path: Path, log: SQLiteLog) -> None:
    """The disk is full when it is to be put in its place: it is read from where it is, and settled later."""
    data = [Event(b"x" * 100_000)]
    log.append_each([Append("a", data, Producer("p", 0, 0))])
    writer = log._commits._db
    pages = writer.execute("PRAGMA max_page_count = 1").fetchone()[0]  # no fewer than there are
    with pytest.raises(StoreFull):
        log._commits.do(log._batches.settle)
    assert [len(event.data) for event in log.read("a", START).events] == [1, 100_000]
    writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
    stage(log, 2, paths=["a"])
    log._commits.do(log._batches.settle)
    assert (count(path, "staged"), count(path, "staged_tails")) == (0, 0)
    assert [len(event.data) for event in log.read("a", START).events] == [1, 100_000, 1]


def test_what_is_staged_wakes_another_worker(log: SQLiteLog, other: SQLiteLog) -> None:
    """Also while its stream's row stays as it was."""
    stage(log, 1)
    tail = other.state("a").tail
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(other.wait("a", tail, 30.0)))
    thread.start()
    stage(log, 2)
    thread.join(20.0)
    assert woken == [True]
    assert texts(other.read("a", tail)) == ["2"]


def test_a_file_of_version_2_is_taken_over(path: Path) -> None:
    """Version 2 had no tables for it; all that was in the file stays."""
    log = SQLiteLog(path)
    log.create("a", JSON, events("0"))
    log.append("a", events("1"))
    log.dispose()
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE staged; DROP TABLE staged_tails; PRAGMA user_version = 2")
    for _ in range(2):
        sqlite_file.prepare(path)
    again = SQLiteLog(path)
    assert texts(again.read("a", START)) == ["0", "1"]
    again.append_each([Append("a", [Event(b"2")], Producer("p", 0, n)) for n in range(1)])
    assert texts(again.read("a", START)) == ["0", "1", "2"]
    again.dispose()

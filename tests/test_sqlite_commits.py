"""The group commit, and what only a file of events that goes on growing can get wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.contract_log", "tests.contract_forks", "tests.contract_producers")

from stores import sqlite_log, sqlite_rows  # noqa: E402  # the contract's asserts are to be rewritten first
from stores.base import START, Append, Config, Log, Producer  # noqa: E402
from stores.errors import NoStream, StoreError, StoreFull, UnknownOffset  # noqa: E402
from stores.sqlite_checkpoints import COMMITS, Checkpoints  # noqa: E402
from stores.sqlite_deletions import SLICE, TOLD  # noqa: E402
from stores.sqlite_log import SQLiteLog  # noqa: E402
from streaming.events import Event  # noqa: E402
from tests.contract_log import add, events, texts  # noqa: E402
from tests.harness import eventually  # noqa: E402
from tests.test_logs import Child, Clock  # noqa: E402

PATCHED = "from gevent import monkey; monkey.patch_all()"


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
    yield log
    log.dispose()


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# Many greenlets


def test_writes_of_many_greenlets_are_one_commit(path: Path) -> None:
    """A hundred greenlets that append at once cost a few transactions, and each gets its own answer."""
    code = """
        import gevent
        log = SQLiteLog(path)
        statements = []
        log._commits._db.set_trace_callback(statements.append)
        writers = [gevent.spawn(add, log, f"s{n}", [Event(b"%d" % n)]) for n in range(100)]
        gevent.joinall(writers, raise_error=True)
        assert [log.read(f"s{n}", START).tail for n in range(100)] == [writer.value for writer in writers]
        say(statements.count("COMMIT"))
        log.dispose()
    """
    with Child(path, code, PATCHED) as child:
        assert 1 <= int(child.line()) <= 5
        assert child.process.wait(10) == 0


def test_a_write_that_fails_undoes_no_other(path: Path) -> None:
    """Each has a savepoint: what one wrote before it failed is gone, what the others wrote in that commit is there."""
    code = """
        import gevent
        log = SQLiteLog(path)
        writers = []
        for n in range(0, 30, 3):  # the first fails amid its events, the second at its very end
            writers.append(gevent.spawn(add, log, "a", [Event(b"half"), Event(b"", "\\ud800")]))
            writers.append(gevent.spawn(add, log, "a", [Event(b"half")], seq="\\ud800"))
            writers.append(gevent.spawn(add, log, "a", [Event(b"%d" % n)]))
        gevent.joinall(writers)
        say([type(writer.exception).__name__ for writer in writers] == (["UnicodeEncodeError"] * 2 + ["NoneType"]) * 10)
        say([event.data for event in log.read("a", START).events] == [b"%d" % n for n in range(0, 30, 3)])
        (change,) = log._db.execute("SELECT changes FROM clock").fetchone()
        say(log._db.execute("SELECT max(changes) FROM streams").fetchone() == (change,))
        log.dispose()
    """
    with Child(path, code, PATCHED) as child:
        assert [child.line(), child.line(), child.line()] == ["True"] * 3
        assert child.process.wait(10) == 0


def test_a_greenlet_that_is_killed_holds_up_no_other(path: Path) -> None:
    """A request that ends while its append waits takes nobody with it."""
    code = """
        import gevent
        log = SQLiteLog(path)
        for n in range(20):
            writers = [gevent.spawn(add, log, "a", [Event(b"%d" % n)]) for _ in range(3)]
            gevent.sleep(0)
            writers[0].kill(block=False)
            gevent.joinall(writers[1:], timeout=5, raise_error=True)
            assert all(writer.successful() for writer in writers[1:])
        say(40 <= log.state("a").total <= 60)
        log.dispose()
    """
    with Child(path, code, PATCHED) as child:
        assert child.line() == "True"
        assert child.process.wait(10) == 0


@pytest.mark.parametrize("sync", ["normal", "full"])
def test_writing_does_not_stall_the_loop(path: Path, sync: str) -> None:
    """Beside appends of a mebibyte and many small ones, with their syncs and checkpoints, another greenlet runs."""
    code = f"""
        import gevent
        log = SQLiteLog(path, "{sync}")
        running = True
        def write(name, data):
            while running:
                add(log, name, [Event(data)], keep=5)
        writers = [gevent.spawn(write, "big", b"x" * 2**20)]
        writers += [gevent.spawn(write, f"small{{n}}", b"x" * 100) for n in range(20)]
        stalls, last = [], time.monotonic()
        for _ in range(500):
            gevent.sleep(0.001)
            now = time.monotonic()
            stalls.append(now - last)
            last = now
        running = False
        gevent.joinall(writers, raise_error=True)
        say(sorted(stalls)[450])
        log.dispose()
    """
    with Child(path, code, PATCHED) as child:
        # 2 to 4 ms when nothing else runs here. A sync or a checkpoint in the loop would be seen as tens of ms.
        assert float(child.line()) < 0.03
        assert child.process.wait(10) == 0


# Failures


def test_a_full_disk_is_store_full_and_passes(log: SQLiteLog) -> None:
    """Nothing is half written; when there is space again, writing goes on."""
    add(log, "a", events("1"), producer=Producer("p", 0, 0))
    writer = log._commits._db
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    for big in (b"x" * 100_000, b"x" * 2**20):
        with pytest.raises(StoreFull):
            add(log, "a", [Event(b"2"), Event(big)], producer=Producer("p", 0, 1))
    assert texts(log.read("a", START)) == ["1"]
    writer.execute(f"PRAGMA max_page_count = {pages + 10_000}")
    assert not log.append("a", [Event(b"2")], producer=Producer("p", 0, 1)).duplicate
    assert texts(log.read("a", START)) == ["1", "2"]


def test_a_batch_that_was_not_committed_is_no_guess_for_the_next(log: SQLiteLog) -> None:
    """Its disk was full: nothing of it is there, and the same again, or another, adds each event once."""
    paths = [f"s{n}" for n in range(3)]
    for path in paths:
        log.create(path, Config("text/plain"))

    def each(number: int, text: str) -> list[StoreError | None]:
        producer = Producer("p", 0, number)
        return list(log.append_each([Append(path, events(text), producer) for path in paths]))

    assert each(0, "a") == each(1, "b") == [None] * 3
    pages = log._commits._db.execute("PRAGMA max_page_count = 1").fetchone()[0]  # no fewer than there are
    with pytest.raises(StoreFull):
        each(2, "x" * 100_000)
    log._commits._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert each(2, "c") == each(2, "c") == each(3, "d") == [None] * 3
    assert [texts(log.read(path, START)) for path in paths] == [["a", "b", "c", "d"]] * 3


def test_who_cannot_ring_on_a_full_disk_has_written(path: Path) -> None:
    """The bell of the other workers is a byte in a file: where that fails, what was committed stands."""
    bells = path.with_name(path.name + "-bells")
    bells.mkdir(exist_ok=True)
    for name in map(str, range(3)):
        if not (bells / name).exists():
            (bells / name).symlink_to("/dev/full")  # full(4): every write is ENOSPC
    log = SQLiteLog(path)
    for text in ("1", "2"):
        add(log, "a", events(text))
    assert texts(log.read("a", START)) == ["1", "2"]
    log.dispose()


def test_a_log_that_was_disposed_of_says_so(path: Path) -> None:
    """A late write is a StoreError, no hang."""
    log = SQLiteLog(path)
    log.dispose()
    with pytest.raises(StoreError):
        add(log, "a", events("1"))


def test_a_file_of_the_pre_release_is_made_anew(tmp_path: Path) -> None:
    """Its tables had other columns; nobody has kept anything in them."""
    path = tmp_path / "streams.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE logs (id INTEGER PRIMARY KEY, path TEXT)")
        db.execute("CREATE TABLE events (log INTEGER, number INTEGER)")
        db.execute("PRAGMA user_version = 1")
    sqlite_log.prepare(path)
    log = SQLiteLog(path)
    add(log, "a", events("1"))
    assert texts(log.read("a", START)) == ["1"]
    log.dispose()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """A server that is rolled back must not harm what it does not understand."""
    path = tmp_path / "streams.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version"):
        sqlite_log.prepare(path)


# What goes


def test_a_long_stream_goes_in_slices(path: Path, log: SQLiteLog) -> None:
    """Delete removes all of it, in several transactions; another stream is not touched."""
    add(log, "long", [Event(b"x")] * (2 * SLICE + 1))
    add(log, "other", events("1"))
    assert log.delete("long")
    assert (count(path, "events"), count(path, "doomed")) == (1, 0)


def test_what_a_killed_delete_left_goes_with_the_next_expire(path: Path, log: SQLiteLog) -> None:
    """A process that dies between two slices leaves events that nobody sees, and a note of them."""
    add(log, "long", [Event(b"x")] * (2 * SLICE + 1))
    log._commits.do(lambda: log._streams.delete("long"), ["long"], heavy=True)
    assert count(path, "events") == SLICE + 1
    with pytest.raises(NoStream):
        log.state("long")
    add(log, "long", events("new"))
    log.expire()
    assert (count(path, "events"), count(path, "doomed")) == (1, 0)
    assert texts(log.read("long", START)) == ["new"]


def test_what_is_too_old_is_freed_by_expire(path: Path, log: SQLiteLog, clock: Clock) -> None:
    """A stream that nobody appends to any more loses its old events, too."""
    log.append("a", [Event(b"x")] * (SLICE + 5), create=Config(keep_s=10))
    log.append("b", [Event(b"x")] * 5, create=Config())
    clock.passes(11)
    log.expire()
    assert count(path, "events") == 5


def test_what_forks_held_goes_with_them(path: Path, log: SQLiteLog) -> None:
    """Nothing is left of a source, its forks and their marks when all are deleted."""
    log.create("s", Config(), events(*"abc"))
    log.create("f", Config(forked_from="s"), events("d"))
    log.append("s", events("e"), producer=Producer("p", 0, 0), key="k")
    log.delete("s")
    log.delete("f")
    tables = ("streams", "events", "producers", "keys", "doomed")
    assert [count(path, table) for table in tables] == [0] * 5


def test_what_was_kept_for_forks_goes_after_the_last_of_them(path: Path, log: SQLiteLog) -> None:
    """The source's retention then frees what it had to leave."""
    log.create("s", Config(keep_events=2), events(*"ab"))
    log.create("f", Config(forked_from="s"))
    log.append("s", events(*"cd"))
    assert count(path, "events") == 4
    log.delete("f")
    log.append("s", events("e"))
    assert count(path, "events") == 2


# Touches


def test_reading_often_writes_seldom(log: SQLiteLog, clock: Clock) -> None:
    """A stream with a sliding lifetime is written at most once a second because it was read."""
    log.create("a", Config(ttl_s=3600), events("1"))
    statements: list[str] = []
    log._commits._db.set_trace_callback(statements.append)
    for _ in range(100):
        log.read("a", START)
    clock.passes(1.5)
    for _ in range(100):
        log.read("a", START)
    log._commits._db.set_trace_callback(None)
    assert statements.count("COMMIT") <= 2


def test_another_process_never_ends_a_lifetime_early(path: Path, log: SQLiteLog, clock: Clock) -> None:
    """What it does not know yet of this one's reads, it allows for; soon after the time, it agrees."""
    other: Log = SQLiteLog(path, clock=clock)
    log.create("a", Config(ttl_s=8), events("1"))
    clock.passes(6)
    log.read("a", START)
    clock.passes(0.4)
    tail = log.read("a", START).tail  # so soon after the other read that it is not written
    clock.passes(7.9)
    assert other.state("a").total == log.state("a").total == 1
    clock.passes(1)
    for each in (log, other):
        with pytest.raises(UnknownOffset):
            each.read("a", tail)
    other.dispose()


def test_a_worker_forgets_whom_it_read(log: SQLiteLog, clock: Clock) -> None:
    """Streams that came and went leave nothing in memory."""
    for n in range(20):
        log.create(f"s{n}", Config(ttl_s=5), events("1"))
        log.read(f"s{n}", START)
    clock.passes(6)
    assert log.expire() == 20
    assert log._touches._reads == {}


# Waking


def test_an_own_change_hides_nobody_elses(path: Path, log: SQLiteLog) -> None:
    """Who asks after a ring what changed is told of another's change also when it changed something itself since."""
    other = SQLiteLog(path)
    add(other, "b", events("1"))
    add(log, "c", events("1"))
    assert "b" in log._look(lambda: sqlite_rows.news(log._db, log._seen, TOLD))[1]
    other.dispose()


def test_a_delete_in_another_process_wakes_who_waits(path: Path) -> None:
    """A reader of what another worker deleted is told at once, and other readers are let be."""
    code = """
        log = SQLiteLog(path)
        add(log, "a", [Event(b"1")])
        tail = log.state("a").tail
        say(tail)
        while True:  # a wake-up may come too often
            woken = log.wait("a", tail, 30)
            try:
                log.state("a")
            except NoStream:
                break
        say(woken)
        log.dispose()
    """
    with Child(path, code) as child:
        assert child.line()
        log = SQLiteLog(path)
        begun = time.monotonic()
        log.delete("a")
        assert child.line() == "True"
        assert time.monotonic() - begun < 2
        log.dispose()


def test_configurations_survive_the_file(path: Path) -> None:
    """What a stream was made with is what another process finds."""
    config = Config("text/x", 60, 4e9, keep_events=5, keep_bytes=6, keep_s=7.5)
    log = SQLiteLog(path)
    log.create("a", config)
    log.dispose()
    log = SQLiteLog(path)
    assert log.state("a").config == config
    assert not log.create("a", replace(config, keep_s=0)).created
    log.dispose()


def test_a_checkpoint_that_fails_is_made_after_the_next_commits() -> None:
    """Its thread lives on, whatever the disk says, and closes its connection at the end."""
    asked: list[str] = []
    closed: list[bool] = []

    class Disk:
        def execute(self, statement: str) -> Disk:
            asked.append(statement)
            if len(asked) == 1:
                raise sqlite3.OperationalError("disk I/O error")
            return self

        def fetchall(self) -> list[object]:
            return []

        def close(self) -> None:
            closed.append(True)

    aside: Any = Disk()
    with closing(sqlite3.connect(":memory:")) as writer:
        checkpoints = Checkpoints(aside, writer)
        for count in (1, 2):
            for _ in range(COMMITS):
                checkpoints.committed()
            eventually(lambda least=count: len(asked) >= least)
        assert not closed
        checkpoints.end()
        eventually(lambda: closed == [True])
    assert set(asked) == {"PRAGMA wal_checkpoint(PASSIVE)"}

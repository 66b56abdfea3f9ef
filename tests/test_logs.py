"""The logs that need no server: the contract on each, and what only a file shared by processes can get wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract_log", "tests.contract_forks", "tests.contract_producers")

from settings import ROOT  # noqa: E402  # its asserts are to be rewritten first
from stores import offsets, sqlite_file, sqlite_log  # noqa: E402
from stores.base import START, Log, Producer  # noqa: E402
from stores.errors import StoreBusy, StoreError, StreamClosed, UnknownOffset  # noqa: E402
from stores.memory import MemoryLog  # noqa: E402
from stores.sqlite_log import SQLiteLog  # noqa: E402
from streaming.events import Event  # noqa: E402
from tests.contract_log import LogContract, add, events, texts  # noqa: E402
from tests.harness import eventually  # noqa: E402


class Clock:
    """The time, and what a test lets pass besides."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return time.time() + self.passed

    def passes(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def passes(clock: Clock) -> Callable[[float], None]:
    return clock.passes


class TestMemoryLog(LogContract):
    @pytest.fixture
    def log(self, clock: Clock) -> Iterator[Log]:
        with closing_log(MemoryLog(clock)) as log:
            yield log


class TestSQLiteLog(LogContract):
    @pytest.fixture
    def log(self, path: Path, clock: Clock) -> Iterator[Log]:
        with closing_log(SQLiteLog(path, clock=clock)) as log:
            yield log


class closing_log:
    def __init__(self, log: Log) -> None:
        self.log = log

    def __enter__(self) -> Log:
        return self.log

    def __exit__(self, *_: object) -> None:
        self.log.dispose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "streams.db"
    sqlite_log.prepare(path)
    return path


class Child:
    """Another process with the file: ``code`` runs with ``log``, ``path`` and ``say``, which prints a line."""

    def __init__(self, path: Path, code: str, before: str = "") -> None:
        script = f"""
            {before}
            import sys, time
            from pathlib import Path
            from stores.base import *
            from stores.errors import *
            from stores.sqlite_log import SQLiteLog, prepare
            from streaming.events import Event
            def add(log, path, events, keep=0, **more):
                return log.append(path, events, create=Config(keep_events=keep), **more).offset
            path = Path(sys.argv[1])
            def say(value): print(value, flush=True)
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script) + textwrap.dedent(code), str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        """End a ``sys.stdin.readline()`` there."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


# Several processes


def test_an_append_in_one_process_wakes_a_waiter_in_another(path: Path) -> None:
    """The bell between processes takes some ms; the bound is far below the ticks by which readers poll anyway."""
    code = """
        log = SQLiteLog(path)
        say("ready")
        after = START
        while log.wait("a", after, 30):
            batch = log.read("a", after)
            after = batch.tail
            say(time.time())
            if batch.closed:
                break
        log.dispose()
    """
    with Child(path, code) as child, closing_log(SQLiteLog(path)) as log:
        assert child.line() == "ready"
        delays = []
        for n in range(10):
            sent = time.time()
            add(log, "a", events(str(n)))
            delays.append(float(child.line()) - sent)
        log.close("a")
        assert child.process.wait(10) == 0
    # Normal is 1 to 5 ms. A waiter that is not yet waiting sees the event at once; no delay may come near a tick.
    assert sorted(delays)[5] < 0.05
    assert max(delays) < 0.4


def test_several_processes_may_prepare_the_same_file(tmp_path: Path) -> None:
    """Whoever comes first makes the file; the others neither fail nor harm it."""
    for attempt in range(3):
        path = tmp_path / str(attempt) / "streams.db"
        code = """
            say("ready")
            sys.stdin.readline()
            prepare(path)
            log = SQLiteLog(path)
            add(log, "a", [Event(b"x")])
            log.dispose()
        """
        children = [Child(path, code) for _ in range(5)]
        try:
            assert [child.line() for child in children] == ["ready"] * 5
            for child in children:
                child.go()
            assert [child.process.wait(20) for child in children] == [0] * 5
        finally:
            for child in children:
                child.__exit__()
        with closing_log(SQLiteLog(path)) as log:
            assert log.read("a", START).total == 5


def test_processes_that_append_together_lose_and_double_nothing(path: Path) -> None:
    """Appends of several processes interleave whole, and a key that all of them use adds once."""
    code = """
        log = SQLiteLog(path)
        say("ready")
        sys.stdin.readline()
        mine = sys.argv[1] + str(__import__("os").getpid())
        kept = {add(log, "a", [Event(b"once")], key="k")}
        for n in range(50):
            add(log, "a", [Event(f"{mine} {n} {part}".encode()) for part in "xyz"])
            kept.add(add(log, "a", [Event(b"once")], key="k"))
        assert len(kept) == 1, kept
        log.dispose()
    """
    children = [Child(path, code) for _ in range(3)]
    try:
        assert [child.line() for child in children] == ["ready"] * 3
        for child in children:
            child.go()
        assert [child.process.wait(60) for child in children] == [0] * 3
    finally:
        for child in children:
            child.__exit__()
    with closing_log(SQLiteLog(path)) as log:
        whole = texts(log.read("a", START))
    assert whole.count("once") == 1
    whole.remove("once")
    assert len(whole) == len(set(whole)) == 3 * 50 * 3
    appends = [[each.rpartition(" ") for each in whole[at : at + 3]] for at in range(0, len(whole), 3)]
    assert all(len({head for head, _, _ in append}) == 1 for append in appends)
    assert all([part for _, _, part in append] == ["x", "y", "z"] for append in appends)


@pytest.mark.parametrize("events_in_append", [1, 5000])
def test_a_process_killed_while_it_appends_leaves_whole_appends(path: Path, events_in_append: int) -> None:
    """SIGKILL at any moment: each append is there whole or not at all, and the offsets go on without a gap."""
    code = f"""
        log = SQLiteLog(path)
        n = 0
        while True:
            add(log, "a", [Event(b"%d" % n)] * {events_in_append})
            n += 1
            if n % 3 == 0: say(n)
    """
    with Child(path, code) as child:
        acknowledged = int(child.line())
        acknowledged = int(child.line())
    with closing_log(SQLiteLog(path)) as log:
        batch = log.read("a", START, limit=10**6)
        assert batch.total == len(batch.events)
        assert batch.total % events_in_append == 0
        assert batch.total >= acknowledged * events_in_append
        numbers = [int(event.id.partition("-")[0]) for event in batch.events]
        assert numbers == list(range(1, batch.total + 1))
        add(log, "a", events("goes on"))
        assert texts(log.read("a", batch.tail)) == ["goes on"]


def test_a_killed_producer_goes_on_where_it_was(path: Path) -> None:
    """SIGKILL amid the appends of 20 greenlets: what was acknowledged is there, and marks and events agree."""
    code = """
        import gevent
        log = SQLiteLog(path, "full")
        def write(who):
            for n in range(10**6):
                log.append("a", [Event(b"%d %d x" % (who, n)), Event(b"%d %d y" % (who, n))], create=Config(),
                           producer=Producer(str(who), 0, n))
                done[who] = n
        done = {}
        writers = [gevent.spawn(write, who) for who in range(20)]
        while True:
            gevent.sleep(0.02)
            say(" ".join(str(done.get(who, -1)) for who in range(20)))
    """
    with Child(path, code, before="from gevent import monkey; monkey.patch_all()") as child:
        for _ in range(10):
            acknowledged = [int(each) for each in child.line().split()]
    with closing_log(SQLiteLog(path)) as log:
        batch = log.read("a", START, limit=10**6, limit_bytes=10**9)
        whole = texts(batch)
        assert [int(event.id[:12]) for event in batch.events] == list(range(1, len(whole) + 1))
        assert all(x[:-1] == y[:-1] for x, y in zip(whole[::2], whole[1::2], strict=True))
        for who in range(20):
            mine = [int(text.split()[1]) for text in whole[::2] if text.startswith(f"{who} ")]
            assert mine == list(range(len(mine)))
            assert len(mine) > acknowledged[who] >= 0
            retry = log.append("a", events("other"), producer=Producer(str(who), 0, len(mine) - 1))
            assert (retry.duplicate, retry.seq) == (True, len(mine) - 1)
            assert not log.append("a", events("next"), producer=Producer(str(who), 0, len(mine))).duplicate


def test_a_killed_process_leaves_no_lock(path: Path) -> None:
    """A process that dies inside its transaction holds up nobody, and nothing of the transaction is seen."""
    code = """
        import sqlite3
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO keys VALUES (1, 'k', 1, 1)")
        say("in the middle")
        sys.stdin.readline()
    """
    with closing_log(SQLiteLog(path)) as log:
        with Child(path, code) as child:
            assert child.line() == "in the middle"
        add(log, "a", events("1"))
        assert texts(log.read("a", START)) == ["1"]


# A busy or broken database


@pytest.fixture
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, with its write lock held by another connection."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db
        if db.in_transaction:
            db.execute("ROLLBACK")


def test_a_locked_database_ends_in_store_busy(
    path: Path, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot write in time is told that it may try again; reading and waiting go on meanwhile."""
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.2)
    with closing_log(SQLiteLog(path)) as log:
        begun = time.monotonic()
        for work in (
            lambda: add(log, "a", events("1")),
            lambda: log.close("a"),
            lambda: log.delete("a"),
        ):
            with pytest.raises(StoreBusy):
                work()
        assert 0.6 <= time.monotonic() - begun < 3
        assert log.read("a", START).total == 0
        log.ping()
        locked.execute("ROLLBACK")
        add(log, "a", events("1"))
        assert log.read("a", START).total == 1


def test_no_commit_copies_the_wal_into_the_database(path: Path, tmp_path: Path) -> None:
    """It is done beside them, before one of them would, and what is copied is begun anew: the WAL does not grow."""
    code = """
        from pathlib import Path
        log = SQLiteLog(path)
        wal = path.with_name(path.name + "-wal")
        sizes = []
        for _ in range(10):
            for _ in range(128):
                add(log, "a", [Event(b"x" * 100)])
            time.sleep(0.2)
            sizes.append(wal.stat().st_size)
        say(max(sizes))
        sys.stdin.readline()
        log.dispose()
        say("disposed")
        sys.stdin.readline()
    """
    with Child(path, code, before="from gevent import monkey; monkey.patch_all()") as child:
        most = int(child.line())
        # SQLite's own bound, 1000 pages of 4096 bytes and 24 of their frame, is what a commit would do it at.
        assert 100_000 < most < 1000 * 4120
        alone = tmp_path / "alone.db"
        alone.write_bytes(path.read_bytes())  # without the WAL: what was copied
        with closing(sqlite3.connect(alone)) as database:
            assert database.execute("SELECT count(*) FROM events").fetchone()[0] == 1280
        child.go()
        assert child.line() == "disposed"
        eventually(lambda: not path.with_name(path.name + "-wal").exists(), 5.0, "the last connection closed")
        child.go()


def test_a_lock_holds_up_no_other_greenlet(path: Path, locked: sqlite3.Connection) -> None:
    """While an append waits for the lock, the worker's other greenlets run; when the lock goes, the append succeeds."""
    code = """
        import gevent
        log = SQLiteLog(path)
        longest, last = 0.0, time.monotonic()
        waiting = gevent.spawn(add, log, "a", [Event(b"1")])
        readers = [gevent.spawn(log.wait, "a", START, 30) for _ in range(20)]
        begun = time.monotonic()
        say("waiting")
        while not waiting.dead:
            gevent.sleep(0.001)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            if now - begun > 0.3:
                begun = now + 100
                say("still waiting")
        gevent.joinall(readers, timeout=5)
        assert [reader.value for reader in readers] == [True] * 20
        say(longest)
        log.dispose()
    """
    with Child(path, code, before="from gevent import monkey; monkey.patch_all()") as child:
        assert child.line() == "waiting"
        assert child.line() == "still waiting"
        locked.execute("ROLLBACK")
        # sqlite3's own busy handler would have held up all of them for the whole 0.3 s.
        assert float(child.line()) < 0.15
        assert child.process.wait(10) == 0


def test_a_log_opens_beside_one_that_closes(path: Path) -> None:
    """The last connection that closes removes the WAL under an exclusive lock: opening must wait for that, too."""
    code = """
        say("ready")
        while True:
            SQLiteLog(path).dispose()
    """
    with Child(path, code) as child:
        assert child.line() == "ready"
        for n in range(150):
            with closing_log(SQLiteLog(path)) as log:
                add(log, "a", events(str(n)))
    with closing_log(SQLiteLog(path)) as log:
        assert log.read("a", START).total == 150


def test_a_broken_database_is_a_store_error(path: Path) -> None:
    """A database that was changed below the server fails as StoreError, not as somebody else's exception."""
    with closing_log(SQLiteLog(path)) as log:
        with closing(sqlite3.connect(path)) as db:
            db.execute("DROP TABLE events")
            db.execute("DROP TABLE streams")
        for work in (
            lambda: add(log, "a", events("1")),
            lambda: log.read("a", START),
            lambda: log.wait("a", START, 0.1),
            lambda: log.delete("a"),
            lambda: log.expire("", 0),
            log.ping,
        ):
            with pytest.raises(StoreError):
                work()


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    """What cannot be opened fails at once, and as StoreError."""
    path = tmp_path / "streams.db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError):
        SQLiteLog(path)


def test_what_is_there_survives_prepare(path: Path) -> None:
    """Prepare may run at every start; a reader's offset is good after a restart."""
    with closing_log(SQLiteLog(path)) as log:
        add(log, "a", events("1"))
        offset = add(log, "a", events("2"), key="k")
        add(log, "a", events("3"))
        log.close("b")
    sqlite_log.prepare(path)
    with closing_log(SQLiteLog(path)) as log:
        assert texts(log.read("a", offset)) == ["3"]
        assert add(log, "a", events("2"), key="k") == offset
        with pytest.raises(StreamClosed):
            add(log, "b", events("1"))


def test_the_file_does_not_hold_what_was_dropped(path: Path) -> None:
    """Retention, delete and expire free their rows: a log that is written for ever does not grow for ever."""
    with closing_log(SQLiteLog(path)) as log:
        for n in range(50):
            add(log, "kept", events("x"), key=f"k{n}", keep=5)
            add(log, f"gone/{n}", events("x"), key="k")
        log.expire("gone/", 0)
    with closing(sqlite3.connect(path)) as db:
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("streams", "events", "keys")]
    assert counts == [1, 5, 5]


def test_dispose_wakes_who_waits(path: Path) -> None:
    """A worker that goes down is not held up by its waiting readers."""
    code = """
        import gevent
        log = SQLiteLog(path)
        waiting = gevent.spawn(log.wait, "a", START, 30)
        gevent.sleep(0.01)
        log.dispose()
        waiting.join(5)
        say(waiting.successful() and waiting.value)
    """
    with Child(path, code, before="from gevent import monkey; monkey.patch_all()") as child:
        assert child.line() == "True"


def test_an_idle_wait_asks_the_database_seldom(path: Path) -> None:
    """A waiter whose log does not change causes no work, also while other logs of the same file change."""
    code = """
        import threading
        log = SQLiteLog(path)
        looks = []
        log._db.set_trace_callback(looks.append)
        waiting = threading.Thread(target=log.wait, args=("quiet", START, 30))
        waiting.start()
        say("ready")
        sys.stdin.readline()
        say(len(looks))
        log.close("quiet")
        waiting.join()
        log.dispose()
    """
    with Child(path, code) as child:
        assert child.line() == "ready"
        with closing_log(SQLiteLog(path)) as log:
            for _ in range(100):
                add(log, "loud", events("1"))
        child.go()
        # Three statements to look at its own log, and four at most for each ring that was heard by itself: one of each
        # commit, and that of the other log's opening.
        assert int(child.line()) <= 3 + 4 * 101


# Offsets


def test_an_offset_is_a_number_and_a_life() -> None:
    """Twelve digits, which sort as text, and the six characters of the life; START is before the first."""
    life, other = offsets.new_life(), offsets.new_life()
    assert offsets.write(7, life) == "000000000007-" + life
    chain = offsets.segments([offsets.Link(1, life, 0)], 7)
    assert offsets.of_number(7, chain) == "000000000007-" + life
    assert offsets.to_number("000000000007-" + life, chain) == 7
    assert (offsets.to_number(START, chain), offsets.of_number(0, chain)) == (0, START)
    assert len({offsets.new_life() for _ in range(1000)}) == 1000
    wrong = ["000000000008-" + life, "000000000000-" + life, "7-" + life, "000000000007-" + life + "\n", life]
    for bad in [*wrong, "000000000007", "000000000007-" + other]:
        with pytest.raises(UnknownOffset):
            offsets.to_number(bad, chain)


def test_the_tail_of_an_empty_stream_is_its_start() -> None:
    """Also where the chain names the one that holds nothing yet."""
    assert offsets.of_number(0, [offsets.Segment(1, "aaaaaa", 0, 0)]) == START
    assert offsets.of_number(0, []) == START


def test_a_chain_of_forks_gives_each_number_the_life_of_who_holds_it() -> None:
    """A fork at 3 of a fork at 5: the numbers up to 3 are the first stream's, also when the one between holds none."""
    links = [offsets.Link(3, "ffffff", 3), offsets.Link(2, "bbbbbb", 5), offsets.Link(1, "aaaaaa", 0)]
    chain = offsets.segments(links, 4)
    assert [offsets.of_number(number, chain) for number in (3, 4)] == ["000000000003-aaaaaa", "000000000004-ffffff"]
    for bad in ("000000000004-aaaaaa", "000000000003-bbbbbb", "000000000003-ffffff", "000000000005-ffffff"):
        with pytest.raises(UnknownOffset):
            offsets.to_number(bad, chain)


def test_memory_of_a_bounded_log_is_bounded() -> None:
    """Keys and events of a log in memory go together: nothing is kept of what was dropped."""
    log = MemoryLog()
    for n in range(100):
        add(log, "a", [Event(b"x")], key=str(n), keep=5)
    kept = log._streams["a"]
    assert (len(kept.events), len(kept.keys)) == (5, 5)

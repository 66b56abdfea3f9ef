"""How many logs of a caller are kept: streams, topics and durable runs, counted in the store for all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from stores.base import Config, Log
from stores.errors import StreamExists
from stores.memory import MemoryLog
from stores.sqlite_log import SQLiteLog, prepare
from streaming.errors import TooManyRequests
from streaming.kept import KEPT, LOOK_S, SWEEP_S, Kept
from tests.harness import LiveServer
from tests.houses import log_of
from tests.tokens import bearer, static

Make = Callable[..., FlaskClient]
PLAIN = Config("text/plain")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log: Log = MemoryLog()
    if request.param == "sqlite":
        prepare(tmp_path / "s.db")
        log = SQLiteLog(tmp_path / "s.db")
    yield log
    log.dispose()


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def make(kept: Kept, store: Log, path: str, caller: str = "ann") -> bool:
    """Whether the caller could make the stream."""
    try:
        with kept.making(caller, path):
            store.create(path, PLAIN)
    except TooManyRequests:
        return False
    return True


def test_each_has_its_own_bound(store: Log) -> None:
    """What is there already is nobody's new one; another caller's are not counted; two workers count the same."""
    here, there = Kept(store, 2), Kept(store, 2)
    assert [make(here, store, "a"), make(there, store, "b"), make(here, store, "c")] == [True, True, False]
    assert make(there, store, "a")
    assert make(there, store, "c", "bob")
    assert not make(there, store, "d")


def test_what_its_caller_deletes_is_free_at_once(store: Log) -> None:
    """Also within the time in which marks are not looked through again."""
    kept = Kept(store, 1)
    assert make(kept, store, "a")
    assert not make(kept, store, "b")
    store.delete("a")
    kept.deleted("ann", "a")
    assert make(kept, store, "b")


def test_what_is_gone_otherwise_is_found_to_be(store: Log) -> None:
    """Deleted by others, or expired: looked through when it matters, not more often than every ten seconds."""
    clock = Clock()
    kept = Kept(store, 1, clock)
    assert make(kept, store, "a")
    store.delete("a")
    clock.now += 100
    assert make(kept, store, "b")
    store.delete("b")
    clock.now += LOOK_S / 2
    assert not make(kept, store, "c")
    clock.now += 100
    assert make(kept, store, "c")


def test_what_could_not_be_made_leaves_no_mark(store: Log) -> None:
    """A store that refuses, a caller that is at its bound."""
    kept = Kept(store, 1)
    with pytest.raises(StreamExists), kept.making("ann", "a"):
        raise StreamExists("another configuration")
    assert list(store.paths(KEPT)) == []
    assert make(kept, store, "a")
    assert not make(kept, store, "b")
    assert len(store.paths(KEPT)) == 1


@pytest.mark.parametrize("first_fails", [True, False])
@pytest.mark.parametrize("made_by_then", [True, False])
def test_two_make_one_at_once(store: Log, first_fails: bool, made_by_then: bool) -> None:
    """One of them fails, whichever and whenever: what the other one makes is counted."""
    kept = Kept(store, 1)
    failing, making = kept.making("ann", "a"), kept.making("ann", "a")
    for each in (failing, making) if first_fails else (making, failing):
        each.__enter__()
    if made_by_then:
        store.create("a", PLAIN)
    assert not failing.__exit__(StreamExists, StreamExists("another configuration"), None)
    store.create("a", PLAIN)
    making.__exit__(None, None, None)
    assert [path.rpartition("/")[2] for path in store.paths(KEPT)] == ["a"]
    assert not make(kept, store, "b")


def test_marks_of_what_is_gone_do_not_stay(store: Log) -> None:
    """Once in an hour everybody's are looked through; those of streams that are there stay."""
    clock = Clock()
    kept = Kept(store, 5, clock)
    for number in range(4):
        make(kept, store, f"s{number}", f"caller{number}")
    for number in range(3):
        store.delete(f"s{number}")
    kept.sweep()
    assert len(store.paths(KEPT)) == 4
    clock.now += SWEEP_S
    kept.sweep()
    assert [path.rpartition("/")[2] for path in store.paths(KEPT)] == ["s3"]


def test_without_a_bound_nothing_is_kept(store: Log) -> None:
    """No marks, and no look at the store."""
    kept = Kept(store, 0)
    for number in range(3):
        assert make(kept, store, f"s{number}")
    kept.deleted("ann", "s1")
    kept.sweep()
    assert list(store.paths(KEPT)) == []


def test_every_way_to_a_stream_counts(make_client: Make) -> None:
    """PUT, a topic's first message and ?durable=1 are each one; what is there goes on to be used; marks are hidden."""
    client = make_client(CALLER_STREAM_PATHS=3, API_TOKENS=static(ann="*", bob="*"))

    def asked(method: str, path: str, name: str = "ann") -> int:
        body = {} if method == "GET" else {"data": b"x"}
        with client.open(path, method=method, headers=bearer(name), **body) as answer:
            if answer.status_code == 429:
                assert answer.headers["Retry-After"] == "10"
                assert answer.headers["RateLimit-Policy"] == '"kept-streams-per-caller";q=3'
            return answer.status_code

    ways = [("PUT", "/v1/stream/s"), ("POST", "/api/notifications?topic=t"), ("GET", "/api/stream?chunks=1&durable=1")]
    assert [asked(*way) for way in ways] == [201, 201, 200]
    more = [("PUT", "/v1/stream/n"), ("POST", "/api/notifications?topic=n"), ways[2]]
    assert [asked(*way) for way in more] == [429, 429, 429]
    assert [asked(*way) for way in ways[:2]] == [200, 201]
    assert [asked(*way, "bob") for way in more] == [201, 201, 200]
    assert asked("DELETE", "/v1/stream/s") == 204
    assert asked("PUT", "/v1/stream/n2") == 201
    with client.get("/api/streams", headers=bearer("ann")) as answer:
        assert all(not stream["path"].startswith(KEPT) for stream in answer.json["streams"])
    with client.get(f"/v1/stream/{KEPT}x", headers=bearer("ann")) as answer:
        assert answer.status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("house", ["redis-2", pytest.param("sqlite-2", marks=pytest.mark.slow_suite)])
def test_two_workers_count_together(live_server: Callable[..., LiveServer], tmp_path: Path, house: str) -> None:
    """Whichever worker is asked: as many as may, and no more."""
    with log_of(house, tmp_path / "redis") as env:
        server = live_server(CALLER_STREAM_PATHS=5, **env)
        statuses = [server.get("/api/stream?chunks=1&durable=1")[0] for _ in range(12)]
        assert sorted(statuses) == [200] * 5 + [429] * 7
        server.stop()

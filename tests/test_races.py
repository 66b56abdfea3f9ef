"""Who wins the race: one test for each row of the table in streaming/pump.py, on a real server.

The server of this module sends no heartbeat (HEARTBEAT_S is an hour): whatever it notices, it notices without a write.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streaming.errors import StreamFailed
from streaming.events import Event, Source
from streaming.framings import CSV, NDJSON, SSE, Framing, Text
from streaming.leases import LEASE_S, RENEW_S
from streaming.pump import pump
from tests.harness import EventStream, LiveServer, RawClient, eventually, parse_events

BULK = "/api/stream?chunks=100000&interval=0"  # 1.2 MB
WAITING = [
    "/api/stream?interval=60",
    "/api/sse?interval=60",
    "/api/events?follow=1&topic=silence",
    "/api/stream-safe?interval=60",
    "/api/upload-progress/nobody",
]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, sample_database: str) -> Iterator[LiveServer]:
    """One worker without heartbeats, whose exports know a table that fails and one that never answers."""
    folder = tmp_path_factory.mktemp("quiet")
    path = folder / "odd.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(
            """
            CREATE TABLE numbers (id INTEGER PRIMARY KEY);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                INSERT INTO numbers SELECT i FROM n;
            CREATE VIEW failing AS
                SELECT id, CASE WHEN id = 19000 THEN json('{') ELSE 'a text of some length' END AS text FROM numbers;
            CREATE VIEW endless AS
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS id FROM n;
            """
        )
    settings = {
        "HEARTBEAT_S": 3600,
        "SEND_TIMEOUT_S": 3,
        "EXPORT_TABLES": "numbers,failing,endless",
        "DATABASE_URL": f"sqlite:///{path}",
    }
    server = LiveServer(folder, settings)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def silence(quiet: LiveServer) -> Iterator[None]:
    """A client that leaves is no error: no stream stays open, and no traceback comes into the log."""
    before = quiet.log_text().count("Traceback")
    yield
    eventually(lambda: quiet.streams() == 0, 2.0, "no open stream")
    assert quiet.log_text().count("Traceback") == before, quiet.tail(80)


def curl(url: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sN", *flags, url], capture_output=True, timeout=60, check=False)


def failing(*items: Event | None, error: Exception) -> Source:
    yield from items
    raise error


# The source ends: a clean end.


@pytest.mark.parametrize(
    "target", ["/api/stream?interval=0", "/api/sse?interval=0", "/api/events", "/api/stream-safe?interval=0"]
)
def test_a_source_that_ends_is_a_clean_end(quiet: LiveServer, target: str) -> None:
    """The final chunk is there, and the connection takes the next request."""
    with RawClient(quiet.port) as client:
        for _ in range(2):
            assert client.request("GET", target).read_to_end().end == "clean"


# The source raises: told in-band, or a cut.


def test_a_failing_export_is_cut(quiet: LiveServer) -> None:
    """CSV cannot tell of a failure: curl exits 18 (a partial file), with the rows before it."""
    ended = curl(f"{quiet.url}/api/export?table=failing")
    assert ended.returncode == 18
    assert ended.stdout.startswith(b"id,text\r\n1,")


def test_failing_rows_are_told_and_cut(quiet: LiveServer) -> None:
    """NDJSON of a table tells the failure in its last line, and is cut: who reads files looks at the end."""
    ended = curl(f"{quiet.url}/api/stream-json?table=failing")
    assert ended.returncode == 18
    *rows, last = ended.stdout.splitlines()
    assert json.loads(last).keys() == {"error"}
    assert [json.loads(row)["id"] for row in rows] == list(range(1, len(rows) + 1))


def test_a_failing_text_is_cut(quiet: LiveServer) -> None:
    """Text cannot tell of a failure either."""
    with RawClient(quiet.port) as client:
        client.send(b"POST /api/transform HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\ngood", "POST")
        client.read_body_until(b"GOOD")
        assert client.send(b"\xff\xff\xff\xff\xff").read_to_end().end == "cut"


def test_a_failing_source_of_records_ends_clean(quiet: LiveServer) -> None:
    """The error line of stream-safe is its whole story: curl exits 0."""
    ended = curl(f"{quiet.url}/api/stream-safe?fail_after=1&interval=0")
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, b'{"error":"Stream failed"}')


@pytest.mark.parametrize("path", ["/api/export?table=failing", "/api/transform"])
def test_a_failure_is_no_clean_end_in_http_1_0(quiet: LiveServer, path: str) -> None:
    """Where the connection's end is the body's end, a cut is a reset: a FIN would mean the whole (RFC 9112, 6.3)."""
    with RawClient(quiet.port) as client:
        if path == "/api/transform":
            client.send(b"POST /api/transform HTTP/1.0\r\nContent-Length: 9\r\n\r\ngood", "POST")
            client.read_body_until(b"GOOD")
            client.send(b"\xff\xff\xff\xff\xff")
        else:
            client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode(), "GET")
        assert client.read_to_end().end == "cut"


@pytest.mark.parametrize(
    ("framing", "wire"),
    [
        (NDJSON(), b'a\nb\n{"error":"The well is dry."}\n'),
        (SSE(), b'retry: 1000\n:\n\ndata: a\n\ndata: b\n\nevent: stream-error\ndata: {"error":"The well is dry."}\n\n'),
        (Text(), b"ab"),
        (CSV(["x"]), b"x\r\na\r\nb\r\n"),
    ],
)
def test_what_came_before_a_failure_is_written(framing: Framing, wire: bytes) -> None:
    """Items that were waiting to be written together are not lost to the failure of the next one."""
    frames = pump(failing(Event(b"a"), Event(b"b"), error=StreamFailed("The well is dry.")), framing, {}, 15.0)
    out = bytearray()
    with contextlib.suppress(BrokenPipeError):
        for frame in frames:
            out += frame
    assert bytes(out) == wire


# The client goes: close() within a second, idle or not.


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("target", WAITING)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_is_noticed_without_a_write(quiet: LiveServer, target: str, how: str) -> None:
    """FIN or RST ends the source of a stream that sends nothing, within a second, and is logged."""
    path = target.partition("?")[0]
    left = quiet.log_text().count(f"GET {path}: the client left")
    client = RawClient(quiet.port)
    client.request("GET", target).read_head()
    eventually(lambda: quiet.streams() == 1)
    getattr(client, how)()
    eventually(lambda: quiet.streams() == 0, 1.0, "the source is closed")
    eventually(lambda: quiet.log_text().count(f"GET {path}: the client left") == left + 1)


@pytest.mark.usefixtures("silence")
def test_a_body_nobody_asked_for_hides_nothing(quiet: LiveServer) -> None:
    """A GET that came with a body, which is not read, is noticed like every other when its client leaves."""
    with RawClient(quiet.port) as client:
        client.request("GET", "/api/sse?interval=60", [], b"unasked for").read_body_until(b"data:")
        eventually(lambda: quiet.streams() == 1)
    eventually(lambda: quiet.streams() == 0, 1.0)


@pytest.mark.usefixtures("silence")
def test_a_path_writes_no_lines_of_its_own(quiet: LiveServer) -> None:
    """A line end in a path stays quoted in the log (CWE-117)."""
    with RawClient(quiet.port) as client:
        client.request("GET", "/api/upload-progress/x%0aINVENTED%20LINE").read_head()
    quiet.wait_log("^.*INVENTED")
    assert "\nINVENTED" not in quiet.log_text()


@pytest.mark.usefixtures("silence")
@pytest.mark.slow
def test_no_moment_to_leave_is_missed(quiet: LiveServer) -> None:
    """Clients that leave at the very moment when something was written, in the middle of the headers, or at once."""
    for n in range(400):
        client = RawClient(quiet.port)
        client.request("GET", WAITING[n % 4])
        if n % 3:
            client.read_body_until((b"Chunk 0", b"count", b"connected", b"item")[n % 4])
        client.close() if n % 5 else client.reset()
    eventually(lambda: quiet.streams() == 0, 1.0, "all sources are closed")


@pytest.mark.usefixtures("silence")
@pytest.mark.slow
def test_leaving_a_download_is_no_failure(quiet: LiveServer) -> None:
    """Clients that hang up on a download, with bytes unread, leave nothing open and no traceback in the log."""
    with (quiet.files / "large.bin").open("wb") as file:
        file.truncate(64 * 2**20)
    for n in range(60):
        client = RawClient(quiet.port)
        client.request("GET", "/api/download/large.bin" if n % 2 else BULK)
        client.read_until(lambda answer, n=n: len(answer.body) > n * 16_000)
        client.close() if n % 3 else client.reset()


@pytest.mark.usefixtures("silence")
@pytest.mark.slow
def test_leaving_ends_the_query(quiet: LiveServer) -> None:
    """A query without end, whose client has gone before the first row, is interrupted: the worker comes to rest."""
    with RawClient(quiet.port) as client:
        client.request("GET", "/api/stream-json?table=endless").read_head()
        busy = cpu_s(quiet)
        eventually(lambda: cpu_s(quiet) > busy + 0.05, 10.0, "the query runs")
    eventually(lambda: quiet.streams() == 0, 1.0)

    def at_rest() -> bool:
        before = cpu_s(quiet)
        return not threading.Event().wait(0.3) and cpu_s(quiet) - before < 0.1

    eventually(at_rest, 10.0, "the query has ended")


def cpu_s(server: LiveServer) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.pids()]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


@pytest.mark.usefixtures("silence")
@pytest.mark.slow
def test_a_half_closed_client_reads_on(quiet: LiveServer) -> None:
    """A client that has only finished sending gets every event and a clean end (RFC 9112, 9.6)."""
    with RawClient(quiet.port) as client:
        client.request("GET", "/api/sse?count=5&interval=0.3").half_close()
        answer = client.read_to_end()
        assert (answer.end, len(parse_events(bytes(answer.body)))) == ("clean", 5)


@pytest.mark.usefixtures("silence")
def test_a_half_closed_client_hears_what_is_published(quiet: LiveServer) -> None:
    """The same for live notifications, and when it goes for good, with bytes unread, that is noticed too."""
    with RawClient(quiet.port) as client, RawClient(quiet.port) as publisher:
        client.request("GET", "/api/events?follow=1&topic=half").read_body_until(b"connected")
        client.half_close()
        for n in range(3):
            publisher.request("POST", "/api/notifications?topic=half", [], b'{"n":%d}' % n).read_to_end()
            client.read_body_until(b'{"n":%d}' % n)
        publisher.request("POST", "/api/notifications?topic=half", [], b"unread").read_to_end()
        assert not client.quiet(5.0)
        client.reset()
        eventually(lambda: quiet.streams() == 0, 1.0)


# The worker drains.


class Reader(threading.Thread):
    """An EventSource in short: follows a topic, reconnects with its last id, and keeps what it got."""

    def __init__(self, server: LiveServer, target: str) -> None:
        super().__init__()
        self.server, self.target = server, target
        self.stream = EventStream()
        self.ids: list[str] = []
        self.ends: list[str] = []
        self.failures: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.follow()
            except OSError as error:
                self.failures.append(repr(error))
            # What an EventSource does between two connections, except that the tests are in a hurry.
            self.stopping.wait(0.02)

    def follow(self) -> None:
        headers = [("Last-Event-ID", self.stream.last_event_id)] if self.stream.last_event_id else []
        with RawClient(self.server.port) as client:
            client.request("GET", self.target, headers)
            seen = 0
            while not client.answer.end and not self.stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    client.receive(0.2)
                new, seen = bytes(client.answer.body[seen:]), len(client.answer.body)
                self.ids += [event.id for event in self.stream.feed(new) if event.type == "notification"]
            self.ends.append(client.answer.end)


def publish(server: LiveServer, topic: str, n: int) -> str:
    """The id; over a connection of its own, tried again when the server was not there."""

    def attempt() -> str:
        with contextlib.suppress(OSError, AssertionError), RawClient(server.port) as client:
            headers = [("Idempotency-Key", f"n{n}"), ("Connection", "close")]
            answer = client.request("POST", f"/api/notifications?topic={topic}", headers, b'{"n":%d}' % n).read_to_end()
            return str(answer.json["id"]) if answer.status == 201 else ""
        return ""

    return eventually(attempt, 30.0, "published")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "blow"), [(1, "HUP"), (2, "HUP"), (1, "KILL"), (2, "KILL")])
def test_nothing_is_lost_or_doubled(live_server: Callable[..., LiveServer], workers: int, blow: str) -> None:
    """Readers who go on by their last id get every notification once, in order, through reloads and killed workers."""
    server = live_server(WEB_CONCURRENCY=workers, HEARTBEAT_S=3600)
    readers = [Reader(server, "/api/events?follow=1&topic=all") for _ in range(5)]
    for reader in readers:
        reader.start()
    try:
        ids = []
        for n in range(120):
            ids.append(publish(server, "all", n))
            if n in (30, 70):
                before = set(server.pids())
                if blow == "HUP":
                    server.signal(signal.SIGHUP)
                else:
                    server.signal(signal.SIGKILL, min(before))
                eventually(lambda before=before: set(server.pids()) - before, 20.0, "a new worker")
        for reader in readers:
            eventually(lambda reader=reader: len(reader.ids) >= len(ids), 10.0, "all of it has come")
    finally:
        for reader in readers:
            reader.stopping.set()
        for reader in readers:
            reader.join()
    for reader in readers:
        assert reader.ids == ids
        if blow == "HUP":
            assert reader.failures == []
            assert set(reader.ends) <= {"clean", ""}, "a drain is a clean end"
            assert len(reader.ends) >= 2, "it was handed over"


@pytest.mark.slow
def test_a_drain_ends_events_cleanly_and_tells_when_to_return(live_server: Callable[..., LiveServer]) -> None:
    """At SIGTERM an event stream ends at once and whole, with a retry drawn for each client and its last id."""
    server = live_server(HEARTBEAT_S=3600)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(20)]
        for client in clients:
            client.request("GET", "/api/sse?interval=60", [("Last-Event-ID", "4")]).read_body_until(b"id: 5\n")
        server.signal(signal.SIGTERM)
        retries = set()
        for client in clients:
            answer = client.read_to_end(5.0)
            stream = EventStream()
            stream.feed(bytes(answer.body))
            assert (answer.end, stream.last_event_id) == ("clean", "5")
            retries.add(stream.retry_ms)
        assert len(retries) > 5, "all of them would come back at the same moment"
    assert server.wait_exit() == 0
    assert "handed over" in server.log_text()


@pytest.mark.slow
def test_a_download_runs_to_its_end_during_a_drain(live_server: Callable[..., LiveServer]) -> None:
    """What cannot be continued elsewhere comes to its end within the grace time: a file, a text, rows, an upload."""
    server = live_server(GRACEFUL_TIMEOUT=30)
    (server.files / "large.bin").write_bytes(content := os.urandom(8 * 2**20))
    targets = ["/api/download/large.bin", BULK, "/api/stream-json?limit=20000", "/api/stream?chunks=10&interval=0.1"]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, receive_buffer_bytes=65536)) for _ in targets]
        for client, target in zip(clients, targets, strict=True):
            client.request("GET", target).read_until(lambda answer: len(answer.body))
        uploader = stack.enter_context(RawClient(server.port))
        uploader.send(
            b"POST /api/upload-progress?id=u HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf", "POST"
        )
        eventually(lambda: b"progress" in first_frames(server, "/api/upload-progress/u"))
        server.signal(signal.SIGTERM)
        eventually(lambda: refused(server.port), 5.0, "the listener is closed")
        assert uploader.send(b"half").read_to_end().status == 201
        answers = [client.read_to_end(30.0) for client in clients]
        assert [answer.end for answer in answers] == ["clean"] * 4
        assert answers[0].body == content
        assert answers[1].body.endswith(b"Chunk 99999\n")
        assert answers[2].body.count(b"\n") == 20_000
        assert answers[3].body.endswith(b"Chunk 9\n")
    assert server.wait_exit() == 0


def first_frames(server: LiveServer, target: str) -> bytes:
    with RawClient(server.port) as client:
        return bytes(client.request("GET", target).read_until(lambda answer: b"\n\n" in answer.body).body)


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGHUP])
def test_beyond_the_grace_a_text_is_cut(live_server: Callable[..., LiveServer], blow: signal.Signals) -> None:
    """A text that does not end in time is cut, not ended: it would pass for the whole."""
    server = live_server(GRACEFUL_TIMEOUT=1)
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream?chunks=1000&interval=0.2").read_body_until(b"Chunk 1\n")
        old = server.pids()
        server.signal(blow)
        assert client.read_to_end(15.0).end == "cut"
    if blow is signal.SIGTERM:
        server.wait_exit()
    else:
        eventually(lambda: not set(old) & set(server.pids()), 10.0, "the old worker has ended")


# The worker is killed.


@pytest.mark.slow
def test_a_killed_worker_is_a_cut(live_server: Callable[..., LiveServer]) -> None:
    """After SIGKILL no stream looks whole, and the new worker knows all that was stored."""
    server = live_server()
    stored = publish(server, "t", 1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in WAITING]
        for client, target in zip(clients, WAITING, strict=True):
            client.request("GET", target).read_head()
        (old,) = server.pids()
        server.signal(signal.SIGKILL, old)
        assert [client.read_to_end(5.0).end for client in clients] == ["cut"] * len(clients)
    eventually(lambda: server.pids() not in ([], [old]), 20.0, "a new worker")
    with RawClient(server.port, timeout_s=20.0) as client:
        events = parse_events(bytes(client.request("GET", "/api/events?topic=t").read_to_end().body))
    assert [event.id for event in events if event.type == "notification"] == [stored]


@pytest.mark.slow
def test_a_killed_upload_is_told(live_server: Callable[..., LiveServer]) -> None:
    """Who watches an upload hears of its end also when the worker that took it was killed."""
    server = live_server(BODY_TIMEOUT_S=1)
    with RawClient(server.port) as uploader:
        uploader.send(
            b"POST /api/upload-progress?id=k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf", "POST"
        )
        eventually(lambda: b"progress" in first_frames(server, "/api/upload-progress/k"))
        (old,) = server.pids()
        server.signal(signal.SIGKILL, old)
        eventually(lambda: server.pids() not in ([], [old]), 20.0, "a new worker")
    with RawClient(server.port, timeout_s=LEASE_S + 5 * RENEW_S + 10) as client:
        client.request("GET", "/api/upload-progress/k").read_body_until(b"event: failed")


# The client is too slow.


@pytest.mark.usefixtures("silence")
@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut_and_a_slow_one_is_not(quiet: LiveServer) -> None:
    """Without progress for SEND_TIMEOUT_S a connection is cut, and costs no memory; a slow reader is left alone."""
    with (quiet.files / "large.bin").open("wb") as file:
        file.truncate(64 * 2**20)
    targets = [BULK, "/api/download/large.bin", "/api/export?table=numbers", "/api/stream-json?table=numbers"]
    with contextlib.ExitStack() as stack:

        def connect(target: str) -> RawClient:
            client = stack.enter_context(RawClient(quiet.port, receive_buffer_bytes=8192))
            return client.request("GET", target)

        slow, before = connect(BULK), quiet.rss_bytes()
        slow.read_head()
        stalled = [connect(target) for target in targets * 5]
        eventually(lambda: quiet.streams() == 21)
        grown, began = 0, time.monotonic()
        while quiet.streams() > 1:
            assert time.monotonic() - began < 20, "not cut"
            slow.receive(limit_bytes=1024)
            grown = max(grown, quiet.rss_bytes() - before)
            time.sleep(0.05)  # a pace, not a wait: this reader is slow
        assert time.monotonic() - began > 3.0
        assert slow.read_to_end(30.0).end == "clean"
        assert slow.answer.body.endswith(b"Chunk 99999\n")
        assert [client.read_to_end().end for client in stalled] == ["cut"] * len(stalled)
    assert grown < 30 * 2**20


@pytest.mark.slow
def test_a_client_that_neither_reads_nor_writes_on_is_cut(live_server: Callable[..., LiveServer]) -> None:
    """A transform whose client sends without reading is read on up to the spool's bound, and then cut in time."""
    server = live_server(SEND_TIMEOUT_S=2, BODY_TIMEOUT_S=3, TRANSFORM_SPOOL_BYTES=2**20)
    with RawClient(server.port, receive_buffer_bytes=8192) as client:
        client.send(b"POST /api/transform HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n", "POST")
        client.socket.settimeout(20.0)
        body = b"a" * 100_000_000
        with pytest.raises(ConnectionError):
            client.socket.sendall(body)
    eventually(lambda: server.streams() == 0, 2.0)


@pytest.mark.slow
def test_there_is_a_bound_to_streams_and_short_requests_find_a_place(live_server: Callable[..., LiveServer]) -> None:
    """Beyond MAX_STREAMS a stream is refused with 503 and Retry-After; its place is free as soon as one has left."""
    server = live_server(MAX_STREAMS=3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(4)]
        for client in clients[:3]:
            client.request("GET", "/api/events?follow=1").read_body_until(b"connected")
        refusal = clients[3].request("GET", "/api/events?follow=1").read_to_end()
        assert (refusal.status, refusal.header("retry-after")) == (503, "5")
        assert publish(server, "default", 1)
        clients[0].close()
        eventually(lambda: server.streams() == 2, 1.0)
        clients[3].request("GET", "/api/events?follow=1").read_body_until(b"connected")

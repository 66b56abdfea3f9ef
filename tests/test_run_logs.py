"""``?durable=1``: a stream that is run into a log can be left, found again, and never looks whole when it is not."""

from __future__ import annotations

import http.client
import os
import re
import signal
from collections.abc import Callable

import pytest

from streaming.leases import LEASE_S, RENEW_S
from tests.harness import Answer, LiveServer, RawClient, eventually

pytestmark = pytest.mark.slow

CHAT = b'{"messages":[{"role":"user","content":"Hello"}]}'
CASES = {
    "text": ("GET", "/api/stream?chunks=5&interval=0.02", b""),
    "rows": ("GET", "/api/stream-json?table=users&limit=3000", b""),
    "safe": ("GET", "/api/stream-safe?count=5&interval=0.02", b""),
    "failing": ("GET", "/api/stream-safe?count=5&interval=0.02&fail_after=2", b""),
    "transform": ("POST", "/api/transform?to=lower", "ΣΊΣΥΦΟΣ und STRASSE".encode() * 1000),
    "chat": ("POST", "/api/chat?protocol=text", CHAT),
    "chat ui": ("POST", "/api/chat?protocol=ui", CHAT),
}


def ask(server: LiveServer, method: str, path: str, body: bytes = b"") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Content-Type": "application/json"} if body.startswith(b"{") else {}
    connection.request(method, path, body or None, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data


def durable(path: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}durable=1"


@pytest.mark.parametrize("case", CASES)
def test_the_same_bytes_are_at_its_location(server: LiveServer, case: str) -> None:
    """The response is a reader of the log: what it got can be read again, whole and closed, by its URL."""
    method, path, body = CASES[case]
    response, data = ask(server, method, durable(path), body)
    assert response.status == 200
    location = response.getheader("Location", "")
    assert re.fullmatch(r"/v1/stream/runs/[\w-]+", location)
    again, found = read_all(server, location)
    assert found == data
    assert again.getheader("Stream-Closed") == "true"
    assert again.getheader("Content-Type") == response.getheader("Content-Type")


def read_all(server: LiveServer, location: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Read the stream by the protocol, offset for offset, until what there is has been read."""
    offset, found = "-1", b""
    while True:
        response, data = ask(server, "GET", f"{location}?offset={offset}")
        assert response.status == 200, data
        found += data
        offset = response.getheader("Stream-Next-Offset", "")
        if response.getheader("Stream-Up-To-Date"):
            return response, found


def test_it_goes_on_without_its_client(server: LiveServer) -> None:
    """A client that leaves changes nothing: the run comes to its end, and can be followed meanwhile."""
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream?chunks=20&interval=0.05&durable=1")
        head = client.read_body_until(b"Chunk 1\n")
        location = head.header("Location")
    with RawClient(server.port) as reader:
        reader.request("GET", f"{location}?offset=-1&live=sse")
        reader.read_body_until(b'"streamClosed":true', timeout_s=10)
    _, data = read_all(server, location)
    assert data == b"".join(b"Chunk %d\n" % n for n in range(20))


def test_a_head_makes_no_run(server: LiveServer) -> None:
    """HEAD says what GET would, and begins nothing."""
    response, _ = ask(server, "HEAD", "/api/stream?durable=1")
    assert response.status == 200
    assert response.getheader("Location") is None


def test_beyond_the_bound_there_is_a_503(live_server: Callable[..., LiveServer]) -> None:
    """As many as MAX_RUNS run at once, also without readers; then it is said when to come again."""
    server = live_server(MAX_RUNS=1)
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream?chunks=3&interval=0.3&durable=1")
        client.read_body_until(b"Chunk 0\n")
    response, _ = ask(server, "GET", "/api/stream?durable=1")
    assert (response.status, response.getheader("Retry-After")) == (503, "5")
    eventually(lambda: ask(server, "GET", "/api/stream?chunks=1&durable=1")[0].status == 200, 5)


def test_a_run_that_is_too_large_is_cut(live_server: Callable[..., LiveServer]) -> None:
    """It has RUN_BYTES at most, and does not look whole: a cut here, and 410 with the reason at its URL."""
    server = live_server(RUN_BYTES=1000)
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream?chunks=1000&interval=0&durable=1")
        answer = client.read_to_end()
    assert answer.end == "cut"
    assert_failed(server, answer, "1000 bytes")


def assert_failed(server: LiveServer, answer: Answer, reason: str) -> None:
    """At its URL is what it wrote, never said to be the whole, and after that 410 with the reason."""
    location, offset, found = answer.header("Location"), "-1", b""
    while True:
        response, data = ask(server, "GET", f"{location}?offset={offset}")
        assert response.getheader("Stream-Closed") is None
        if response.status == 410:
            break
        assert response.status == 200
        found += data
        offset = response.getheader("Stream-Next-Offset", "")
    assert reason in data.decode()
    assert found.startswith(answer.body)


def test_a_run_whose_worker_was_killed_is_told(live_server: Callable[..., LiveServer]) -> None:
    """Another worker ends it as failed when the lease is over: no reader waits for ever, none takes it for whole."""
    server = live_server()
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream?chunks=1000&interval=0.2&durable=1")
        answer = client.read_body_until(b"Chunk 2\n")
        (worker,) = server.pids()
        os.kill(worker, signal.SIGKILL)
        assert client.read_to_end().end == "cut"
    location = answer.header("Location")
    offset = eventually(lambda: ask(server, "HEAD", location)[0].getheader("Stream-Next-Offset"), 10)
    assert offset
    deadline_s = LEASE_S + 5 * RENEW_S + 10

    def failed() -> bool:
        return ask(server, "GET", f"{location}?offset={offset}")[0].status == 410

    eventually(failed, deadline_s, "the run is ended as failed")
    assert_failed(server, answer, "interrupted")


def test_a_run_without_a_reader_outlives_a_reload(live_server: Callable[..., LiveServer]) -> None:
    """The worker that drains waits for it, and the new one has all of it at the same URL."""
    server = live_server()
    location = left_alone(server, "/api/stream?chunks=20&interval=0.05&durable=1")
    (old,) = server.pids()
    server.signal(signal.SIGHUP)
    eventually(lambda: server.pids() not in ([], [old]) and old not in server.pids(), 20.0, "a new worker")
    again, data = read_all(server, location)
    assert again.getheader("Stream-Closed") == "true"
    assert data == b"".join(b"Chunk %d\n" % n for n in range(20))


def left_alone(server: LiveServer, path: str) -> str:
    """Where the run is that a client began and left."""
    with RawClient(server.port) as client:
        return client.request("GET", path).read_body_until(b"Chunk 0\n").header("Location")


def test_a_run_longer_than_the_grace_time_is_told(live_server: Callable[..., LiveServer]) -> None:
    """It is marked by its own worker, at once: nobody has to wait for the lease."""
    server = live_server(GRACEFUL_TIMEOUT=1)
    location = left_alone(server, "/api/stream?chunks=1000&interval=0.1&durable=1")
    (old,) = server.pids()
    server.signal(signal.SIGHUP)
    eventually(lambda: server.pids() not in ([], [old]) and old not in server.pids(), 20.0, "a new worker")
    response, _ = ask(server, "GET", location)
    response, data = ask(server, "GET", f"{location}?offset={response.getheader('Stream-Next-Offset')}")
    assert response.status == 410
    assert b"interrupted" in data

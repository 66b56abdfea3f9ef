"""worker.py: how a worker stops, on a real gunicorn."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.harness import EventStream, LiveServer, RawClient, eventually
from tests.sockets import holder, listens

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def reload(server: LiveServer) -> int:
    """SIGHUP; return the old worker once a new one has been started beside it."""
    (old,) = server.pids()
    server.signal(signal.SIGHUP)
    eventually(lambda: set(server.pids()) - {old}, 20.0, "a new worker")
    return old


@pytest.mark.slow
def test_a_worker_stops_at_once_with_streams_and_idle_connections(live_server: Callable[..., LiveServer]) -> None:
    """A hundred event streams end cleanly, thirty idle connections silently, and the server is gone within a second."""
    server = live_server(HEARTBEAT_S=3600)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(RawClient(server.port)) for _ in range(100)]
        for n, client in enumerate(streams):
            client.request("GET", ("/api/sse?interval=60", "/api/events?follow=1")[n % 2]).read_body_until(b"data:")
        idle = [stack.enter_context(RawClient(server.port)) for _ in range(30)]
        for client in idle:
            assert client.request("GET", "/healthz").read_to_end().status == 200
            client.received.clear()
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait_exit(10.0) == 0
        # Ten times what it takes; gunicorn's own worker takes its whole grace time, 30 s.
        assert time.monotonic() - began < 5.0
        for client in streams:
            stream = EventStream()
            answer = client.read_to_end(1.0)
            stream.feed(bytes(answer.body))
            assert answer.end == "clean"
            assert 100 <= (stream.retry_ms or 0) <= 1000
        for client in idle:
            assert (client.receive(1.0), bytes(client.received)) == (b"", b"")


@pytest.mark.slow
def test_a_reload_refuses_nobody(live_server: Callable[..., LiveServer]) -> None:
    """New requests go on being answered, one by one and several at a time, while the worker is exchanged twice."""
    server = live_server()
    stop, answered, failures = threading.Event(), [0], []

    def ask() -> None:
        while not stop.is_set():
            try:
                assert server.get("/healthz", 10.0)[0] == 200
                answered[0] += 1
            except (OSError, AssertionError) as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            old = reload(server)
            eventually(lambda old=old: old not in server.pids(), 20.0, "the old worker has ended")
            before = answered[0]
            eventually(lambda before=before: answered[0] > before + 20, 20.0, "the new one answers")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.slow
def test_a_connection_that_was_just_accepted_gets_its_answer(live_server: Callable[..., LiveServer]) -> None:
    """The old worker has taken the connection, and the request arrives while it drains: it is answered, then closed."""
    server = live_server()
    with RawClient(server.port) as stream, RawClient(server.port) as fresh:
        stream.request("GET", "/api/stream?chunks=20&interval=0.1").read_body_until(b"Chunk 0")  # keeps it busy
        (old,) = server.pids()
        eventually(lambda: holder(server, fresh) == old, 5.0, "accepted")
        # The master's own reload takes longer than the second that a fresh connection is given.
        server.signal(signal.SIGTERM, old)
        eventually(lambda: not listens(old, server.port), 5.0, "the old worker drains")
        answer = fresh.send(HEALTH, "GET").read_to_end()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert stream.read_to_end().end == "clean"


@pytest.mark.slow
def test_a_connection_without_a_request_does_not_hold_a_worker(live_server: Callable[..., LiveServer]) -> None:
    """One that never asked, one that asked, and one with half a request: the worker ends by itself all the same."""
    server = live_server(GRACEFUL_TIMEOUT=60)
    with RawClient(server.port) as fresh, RawClient(server.port) as used, RawClient(server.port) as begun:
        used.request("GET", "/healthz").read_to_end()
        begun.send(HEALTH[:20])
        (old,) = server.pids()
        eventually(lambda: all(holder(server, client) == old for client in (fresh, used, begun)), 5.0, "accepted")
        began = time.monotonic()
        reload(server)
        eventually(lambda: old not in server.pids(), 20.0, "the old worker has ended")
        assert time.monotonic() - began < 10.0
        assert [client.receive(1.0) for client in (fresh, used, begun)] == [b"", b"", b""]


@pytest.mark.slow
def test_a_worker_ends_when_its_last_stream_does(live_server: Callable[..., LiveServer]) -> None:
    """Beside a text stream that is still coming the old worker stays; after its end it is gone by itself."""
    server = live_server(GRACEFUL_TIMEOUT=60)
    with RawClient(server.port, timeout_s=20.0) as client:
        client.request("GET", "/api/stream?chunks=20&interval=0.1").read_body_until(b"Chunk 0")
        old = reload(server)
        client.read_body_until(b"Chunk 15")
        assert old in server.pids()
        assert client.read_to_end().end == "clean"
        eventually(lambda: old not in server.pids(), 5.0, "the old worker has ended")


def test_requests_that_arrive_together_are_all_answered(server: LiveServer) -> None:
    """Two requests in one packet get two answers, in order (RFC 9112, 9.3.2)."""
    with socket.create_connection(("127.0.0.1", server.port), 10.0) as client:
        client.sendall(
            HEALTH + HEALTH.replace(b"/healthz", b"/readyz").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b'"streams"') < received.rindex(b"HTTP/1.1")


@pytest.mark.slow
def test_quick_clients_take_turns(live_server: Callable[..., LiveServer]) -> None:
    """Two whose next request is always there already: neither waits until the other has had all of its answers."""
    server = live_server()
    (worker,) = server.pids()
    with RawClient(server.port) as one, RawClient(server.port) as two:
        for client in (one, two):
            assert client.request("GET", "/healthz").read_to_end().status == 200
        server.signal(signal.SIGSTOP, worker)
        try:
            for client, name in ((one, b"one"), (two, b"two")):
                request = b"GET /healthz?%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % name
                client.send(request * 200)
        finally:
            server.signal(signal.SIGCONT, worker)

        def served() -> list[str]:
            return re.findall(r"GET /healthz\?(one|two) ", server.log_text())

        eventually(lambda: len(served()) == 400, 30.0, "all are answered")
        order = served()
        assert order.index("two") < 400 - order[::-1].index("one")
        assert order.index("one") < 400 - order[::-1].index("two")


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "line", ["GET /api/stream?chunks=1", "HEAD /api/stream", "GET /api/download/poem.txt", "GET /api/events"]
)
def test_a_body_that_a_stream_leaves_is_passed_over(server: LiveServer, line: str, chunked: bool) -> None:
    """Nobody stands still for it, and the next request on the connection is answered."""
    mib = 192
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {mib * 2**20}"
    began = time.monotonic()
    with RawClient(server.port, timeout_s=60) as client:
        client.send(f"{line} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode(), line.split()[0])
        for _ in range(mib):
            client.send_chunk(bytes(2**20)) if chunked else client.send(bytes(2**20))
        if chunked:
            client.send_chunk(b"")
        assert client.read_to_end().status == 200
        client.received.clear()
        assert client.request("GET", "/healthz").read_to_end().status == 200
    # Half a second; read by gunicorn, twenty.
    assert time.monotonic() - began < 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 70000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\nnone\r\n"]
)
def test_a_body_that_is_left_and_is_none(server: LiveServer, framing: bytes) -> None:
    """It ends too early, or is wrongly framed: the connection ends behind the answer."""
    with RawClient(server.port) as client:
        client.send(b"GET /api/stream?chunks=1 HTTP/1.1\r\nHost: localhost\r\n" + framing, "GET")
        if b"abc" in framing:
            client.half_close()
        assert client.read_to_end().body == b"Chunk 0\n"
        assert client.receive() == b""
    assert server.get("/healthz")[0] == 200


@pytest.mark.slow
def test_bodies_that_nobody_wants_hold_no_places(live_server: Callable[..., LiveServer]) -> None:
    """More connections than there are places announce bodies that do not come, and have been answered: all are."""
    server = live_server(GUNICORN_CMD_ARGS="--worker-connections 40")
    lines = ["POST /nothing", "GET /api/stream?chunks=1", "HEAD /api/stream", "POST /v1/chat/completions"]
    with contextlib.ExitStack() as stack:
        for n in range(120):
            client = stack.enter_context(RawClient(server.port, timeout_s=15))
            line = lines[n % len(lines)]
            client.send(
                f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n".encode(), line[:4].strip()
            )
            assert client.read_to_end().status in (200, 404, 415)

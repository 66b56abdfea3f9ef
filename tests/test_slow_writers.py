"""Who writes in drops holds no place for ever: handshakes, heads and bodies of every kind have a deadline."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streaming.slowness import Slowest, Waits
from tests.certificates import self_signed
from tests.harness import LiveServer, RawClient, eventually

JSON = "Content-Type: application/json\r\n"
TUS = "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
BODIES = [
    ("POST /api/notifications", JSON, b""),
    ("PUT /v1/stream/drops", JSON, b""),
    ("POST /api/chat", JSON, b""),
    ("POST /v1/chat/completions", JSON, b""),
    ("POST /api/upload-progress?filename=drops", "", b""),
    ("POST /api/video", "", b"\0\0\0\x20ftyp"),
    ("PATCH {upload}", TUS, b""),
    ("POST /api/transform?to=csv-to-ndjson", "", b""),
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, sample_database: str) -> Iterator[LiveServer]:
    """A server with short deadlines; two workers, as most have."""
    env: dict[str, object] = {
        "DATABASE_URL": sample_database,
        "HEADERS_S": 1,
        "BODY_TIMEOUT_S": 1,
        "WEB_CONCURRENCY": 2,
    }
    env["GUNICORN_CMD_ARGS"] = "--keep-alive 6"
    server = LiveServer(tmp_path_factory.mktemp("strict"), env)
    try:
        yield server.start()
    finally:
        server.stop()


def drip(client: RawClient, drop: bytes, ended: Callable[[], object]) -> None:
    """Send a drop now and then until that is so. The connection's end may come before the answer has been read."""

    def done() -> object:
        try:
            client.send(drop)
        except OSError:
            return True
        try:
            client.receive(timeout_s=0.1)
        except TimeoutError:
            return False
        return ended()

    eventually(done, 15)


# Bodies


def test_a_wait_must_bring_so_much() -> None:
    """Each so many seconds of waiting, at least so many bytes a second; only the wait counts, and the past does not."""
    waits = Waits(Slowest(10.0, 100))
    assert [waits.brought(4.0, 1000), waits.brought(5.0, 0), waits.brought(1.0, 0)] == [False, False, False]
    # What came in the while before is no merit in this one.
    assert [waits.brought(9.0, 899), waits.brought(1.0, 100)] == [False, True]
    assert not any(waits.brought(0.0, 0) for _ in range(1000))
    drops = Waits(Slowest(10.0, 100))
    assert [drops.brought(1.0, 1) for _ in range(10)].index(True) == 9
    any_rate = Waits(Slowest(10.0, 0))
    assert not any(any_rate.brought(1.0, 1) for _ in range(100))


@pytest.mark.slow
def test_a_body_that_comes_in_drops_is_given_up(strict: LiveServer) -> None:
    """Of whatever kind and framing: it never stalls, and is a 408 with one sentence before the connection is closed."""
    with RawClient(strict.port) as maker:
        made = maker.request("POST", "/api/uploads", [("Tus-Resumable", "1.0.0"), ("Upload-Length", "1000")], b"")
        upload = made.read_to_end().header("location")
    with contextlib.ExitStack() as stack:
        dropping = {
            (line, chunked): (stack.enter_context(RawClient(strict.port)), b"1\r\nx\r\n" if chunked else b"x")
            for line, _, _ in BODIES
            for chunked in (False, True)
            # Two at once on one upload would be another matter: the newer one takes it over.
            if not (chunked and line.startswith("PATCH"))
        }
        for line, headers, begin in BODIES:
            for chunked in (False, True):
                if (line, chunked) in dropping:
                    head = f"{line.format(upload=upload)} HTTP/1.1\r\nHost: localhost\r\n{headers}"
                    dropping[line, chunked][0].send(announced(head, begin, chunked), "POST")
        eventually(lambda: sum(drop(*each) for each in dropping.values()) == len(dropping), 30)
        for each, (client, _) in dropping.items():
            answer = client.read_to_end()
            assert (answer.status, answer.header("connection")) == (408, "close"), (each, answer)
            # Or, where this very test is held up for a second: nothing came.
            assert re.search(rb"came at less than 500 bytes a second|Nothing of the body arrived", answer.body), each
    with RawClient(strict.port) as again:
        kept = again.request("HEAD", upload, [("Tus-Resumable", "1.0.0")]).read_to_end()
        assert 0 < int(kept.header("upload-offset")) < 1000, "what had come is kept"


def announced(head: str, begin: bytes, chunked: bool) -> bytes:
    """The head of a request whose body has 1000 bytes, or is chunked, and begins so."""
    if not chunked:
        return f"{head}Content-Length: 1000\r\n\r\n".encode() + begin
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + (
        b"%x\r\n%b\r\n" % (len(begin), begin) if begin else b""
    )


def drop(client: RawClient, data: bytes) -> bool:
    """Send a little more, unless the answer has come; return whether it has."""
    if not client.answer.end:
        with contextlib.suppress(OSError):
            client.send(data)
        with contextlib.suppress(TimeoutError):
            client.receive(timeout_s=0.01)
    return bool(client.answer.end)


@pytest.mark.slow
def test_a_transform_that_has_begun_is_cut(strict: LiveServer) -> None:
    """Its text cannot say it, and is not ended as if it were whole."""
    with RawClient(strict.port) as client:
        client.send(b"POST /api/transform HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nab", "POST")
        client.read_body_until(b"A")
        drip(client, b"x", lambda: client.answer.end)
        assert client.read_to_end().end == "cut"


# Heads


@pytest.mark.slow
def test_a_head_that_comes_in_drops_is_told(strict: LiveServer) -> None:
    """A 408 ``HEADERS_S`` after the connection began, whatever comes; who has had a request may rest longer."""
    with RawClient(strict.port) as served, RawClient(strict.port) as dropping:
        served.request("GET", "/healthz").read_to_end()
        rests_since = time.monotonic()
        dropping.send(b"GET /healthz HTTP/1.1\r\n", "GET")
        drip(dropping, b"X: y\r\n", lambda: dropping.answer.status)
        answer = dropping.read_to_end()
        assert (answer.status, answer.header("connection"), answer.json["status"]) == (408, "close", 408)
        if time.monotonic() - rests_since < 4:  # on a machine that is very busy its own time may be over, too
            assert served.request("GET", "/healthz").read_to_end().status == 200


@pytest.mark.slow
def test_who_says_nothing_is_told_nothing(strict: LiveServer) -> None:
    """A silent connection ends in silence: its client may be about to ask, and would take a 408 for its answer."""
    with RawClient(strict.port) as silent:
        assert (silent.receive(timeout_s=10), bytes(silent.received)) == (b"", b"")


@pytest.mark.slow
def test_a_later_head_is_told_too(strict: LiveServer) -> None:
    """On a connection that has been served: at the end of its keep-alive, where a part of a head has come."""
    with RawClient(strict.port, timeout_s=30) as dropping, RawClient(strict.port, timeout_s=30) as idle:
        for client in (dropping, idle):
            client.request("GET", "/healthz").read_to_end()
            client.received.clear()
        dropping.send(b"GET /healthz HT", "GET")
        assert dropping.read_to_end().status == 408
        assert (idle.receive(), bytes(idle.received)) == (b"", b"")


# Handshakes


@pytest.mark.slow
def test_a_handshake_has_a_deadline(tmp_path: Path, sample_database: str) -> None:
    """Silent and dripping clients of a server with TLS are ended; others are served."""
    key, certificate = self_signed(tmp_path)
    arguments = f"--keyfile {key} --certfile {certificate}"
    env = {"GUNICORN_CMD_ARGS": arguments, "DATABASE_URL": sample_database, "HEADERS_S": 1}
    trusted = ssl.create_default_context(cafile=str(certificate))
    server = LiveServer(tmp_path / "server", env, trusted)
    try:
        server.start()
        with RawClient(server.port) as silent, RawClient(server.port) as dropping:
            # The beginning of a ClientHello: its record says that 512 bytes follow (RFC 8446, 5.1).
            dropping.send(b"\x16\x03\x01\x02\x00\x01")
            drip(dropping, b"\x00", lambda: True)
            assert silent.receive(timeout_s=10) == b""
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
            trusted.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert server.get("/healthz")[0] == 200
    finally:
        server.stop()

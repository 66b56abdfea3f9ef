"""Access control on a real server: where it listens, streams that end with their token, refusals of bodies, the log."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from settings import Settings
from streaming import exposure
from tests.harness import LiveServer, RawClient, free_port, parse_events
from tests.tokens import ADMIN, KEY, bearer, signed, static

Live = Callable[..., LiveServer]
ROOT = Path(__file__).resolve().parent.parent


def started(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """gunicorn, which is to end by itself."""
    folders = {"INSTANCE_DIR": str(tmp_path / "i"), "FILES_DIR": str(tmp_path / "f"), "PORT": str(free_port())}
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *arguments, "wsgi:app"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | folders | env, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        ((), {"HOST": "0.0.0.0"}),
        (("--bind", "127.0.0.1:0", "--bind", "[::]:0"), {}),
    ],
)
def test_what_others_can_reach_needs_access_control(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str]
) -> None:
    """However the address is said, the server does not start, and says what to set in one sentence."""
    ended = started(tmp_path, *arguments, **env)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    sentence = ended.stderr.strip().splitlines()[-1]
    assert all(name in sentence for name in ("API_TOKENS", "JWT_KEY", "JWT_JWKS", "ALLOW_ANONYMOUS=1"))


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        (("127.0.0.1", 80), False),
        (("::1", 80, 0, 0), False),
        (("localhost", 80), False),
        ("/run/perennial.sock", False),
        (b"\0abstract", False),
        (("0.0.0.0", 80), True),
        (("::", 80, 0, 0), True),
        (("192.0.2.1", 80), True),
        (("", 80), True),
        (("perennial.example", 80), True),
    ],
)
def test_which_addresses_are_reached_from_elsewhere(address: Any, refused: bool) -> None:
    """All but loopback and Unix sockets; whoever asks for tokens, or lets everybody in, listens where he likes."""
    with pytest.raises(SystemExit) if refused else contextlib.nullcontext():
        exposure.refuse(Settings(), [("127.0.0.1", 1), address])
    for closed in (
        Settings(API_TOKENS="x"),
        Settings(JWT_KEY="x"),
        Settings(JWT_JWKS="x"),
        Settings(ALLOW_ANONYMOUS="1"),
    ):
        exposure.refuse(closed, [address])


@pytest.mark.slow
def test_with_a_token_it_listens_anywhere_and_a_unix_socket_is_local(tmp_path: Path, sample_database: str) -> None:
    """Two servers: one on every address that asks for tokens, one on a Unix socket that does not."""
    port, path = free_port(), tmp_path / "s"
    env = {"DATABASE_URL": sample_database}
    anywhere = LiveServer(tmp_path / "a", env | {"HOST": "0.0.0.0", "API_TOKENS": static()})
    local = LiveServer(tmp_path / "b", env | {"GUNICORN_CMD_ARGS": f"--bind unix:{path} --bind 127.0.0.1:{port}"})
    local.port = port
    for server in (anywhere, local):
        server.folder.mkdir()
    try:
        assert anywhere.start().get("/api/stream?chunks=1")[0] == 401
        assert anywhere.get("/api/stream?chunks=1", headers=bearer(ADMIN))[0] == 200
        local.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /api/stream?chunks=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
    finally:
        anywhere.stop()
        local.stop()


# One server for what needs nothing of its own.


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, sample_database: str) -> Any:
    """A server that asks for tokens; two workers, as most have."""
    tokens = static(
        reader="read:/topics/* read:/api/* read:/files/*", uploader="write:/files/uploads/*", nobody="read:/none"
    )
    server = LiveServer(
        tmp_path_factory.mktemp("closed"),
        {
            "DATABASE_URL": sample_database,
            "API_TOKENS": tokens,
            "JWT_KEY": KEY,
            "WEB_CONCURRENCY": 2,
            "HEARTBEAT_S": 60,
        },
    )
    try:
        yield server.start()
    finally:
        server.stop()


def opened(server: LiveServer, path: str, token: str, **headers: str) -> RawClient:
    return RawClient(server.port).request("GET", path, (*headers_of(token), *headers.items()))


def headers_of(token: str) -> list[tuple[str, str]]:
    return list(bearer(token).items())


def test_a_file_that_is_answered_around_flask_needs_a_grant(closed: LiveServer) -> None:
    """Also for a range, and from the second request of a connection."""
    connection = http.client.HTTPConnection("127.0.0.1", closed.port, timeout=10)

    def get(token: str, **headers: str) -> int:
        connection.request("GET", "/api/download/poem.txt", headers=(bearer(token) if token else {}) | headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    try:
        assert [get(token) for token in ("", "x", "nobody", "reader", "")] == [401, 401, 403, 200, 401]
        assert get("reader", Range="bytes=0-9") == 206
        assert get("", Range="bytes=0-9") == 401
    finally:
        connection.close()


def test_a_token_in_a_link_is_written_down_nowhere(closed: LiveServer) -> None:
    """Not in the access log, an error's page, a failed stream's line or a metric; the answer is that without it."""
    good, bad = signed(use="link", read=["*"]), "a-secret-that-is-no-token"
    for token in (good, bad):
        for path in (
            "/api/stream?chunks=1",
            "/api/stream?chunks=0",
            "/api/stream-safe?fail_after=0",
            "/files",
            "/none?",
        ):
            status, body = closed.get(
                f"{path}{'&' if '?' in path else '?'}token={token}",
                headers={"Referer": f"http://localhost/x?token={token}"},
            )
            assert token.encode() not in body
    assert status == 401
    closed.wait_log("GET /none")
    assert good not in closed.log_text()
    assert bad not in closed.log_text()
    metrics = closed.get("/metrics", headers=bearer(ADMIN))[1]
    assert good.encode() not in metrics


def test_other_tokens_are_written_down_nowhere(closed: LiveServer) -> None:
    """Nor is a token of the header, a cookie, or of a login that failed."""
    secret = "a-secret-token-that-nobody-knows"
    jot = signed(read=["*"], for_s=-5)
    for token in (secret, jot):
        for headers in (bearer(token), {"Cookie": f"perennial={token}"}):
            status, body = closed.get("/api/stream", headers=headers)
            assert (status, token.encode() in body) == (401, False)
        with RawClient(closed.port) as client:
            body = json.dumps({"token": token}).encode()
            assert client.request("POST", "/api/login", body=body).read_to_end().status == 401
    assert secret not in closed.log_text()
    assert jot not in closed.log_text()


# Streams end with their token


STREAMS = [
    "/api/events?topic=a&follow=1",  # parked
    "/api/sse?count=1000&interval=0.1",  # busy
    "/v1/stream/s?offset=now&live=sse",
]


@pytest.mark.slow
@pytest.mark.parametrize("path", STREAMS)
def test_an_event_stream_ends_cleanly_with_its_token(closed: LiveServer, path: str) -> None:
    """At ``exp``, with a retry, also where its reader is parked or hears nothing; not before."""
    if path.startswith("/v1/stream"):
        with RawClient(closed.port) as client:
            client.request("PUT", "/v1/stream/s", headers_of(ADMIN), b"")
            assert client.read_to_end().status in (200, 201)
    token, ends_at = signed(read=["*"], for_s=1.5), time.time() + 1.5
    with opened(closed, path, token, Accept="text/event-stream") as client:
        answer = client.read_to_end()
    assert (answer.status, answer.end) == (200, "clean")
    assert ends_at - 0.2 <= time.time() <= ends_at + 5
    assert re.search(rb"retry: \d+\n(id: [^\n]*\n|:\n)?\n$", answer.body)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "end", "last"),
    [
        ("/api/stream?chunks=1000&interval=0.2", "cut", b"\n"),
        ("/api/stream-safe?count=1000&interval=0.2", "clean", b'{"error":"The token has expired."}\n'),
        ("/api/events?topic=a&follow=1", "clean", b'{"error":"The token has expired."}\n'),
    ],
)
def test_other_streams_end_as_what_they_are(closed: LiveServer, path: str, end: str, last: bytes) -> None:
    """In-band where the format has a word for it, by a cut where it has none: never as if they were whole."""
    with opened(closed, path, signed(read=["*"], for_s=1.2), Accept="application/x-ndjson") as client:
        answer = client.read_to_end()
    assert (answer.status, answer.end) == (200, end)
    assert answer.body.endswith(last)


@pytest.mark.slow
def test_a_parked_reader_loses_nothing_to_its_neighbours_token(closed: LiveServer) -> None:
    """One of two readers of a topic ends; the other goes on, and hears what comes then."""
    with (
        opened(closed, "/api/events?topic=n&follow=1", signed(read=["*"], for_s=1.2)) as short,
        opened(closed, "/api/events?topic=n&follow=1", ADMIN) as long,
    ):
        for client in (short, long):
            client.read_body_until(b"connected")
        assert short.read_to_end().end == "clean"
        with RawClient(closed.port) as publisher:
            publisher.request("POST", "/api/notifications?topic=n", headers_of(ADMIN), b"later")
            assert publisher.read_to_end().status == 201
        long.read_body_until(b"later")


def test_an_event_source_that_comes_back_with_an_expired_token_lives_on(closed: LiveServer) -> None:
    """200, a jittered retry of seconds, an event with the reason and a clean end; a first connect gets its 401."""
    expired = signed(read=["*"], for_s=-1)
    events = {"Accept": "text/event-stream"}
    assert closed.get("/api/events?follow=1", headers=bearer(expired) | events)[0] == 401
    assert closed.get("/api/events?follow=1", headers=bearer("x") | events | {"Last-Event-ID": "1"})[0] == 401
    assert closed.get("/api/events?after=1", headers=bearer(expired))[0] == 401
    waits = set()
    for way in (bearer(expired), {"Cookie": f"perennial={expired}"}):
        status, body = closed.get("/api/events?follow=1", headers=way | events | {"Last-Event-ID": "1"})
        assert status == 200
        [event] = parse_events(body)
        assert (event.type, json.loads(event.data)) == (
            "stream-error",
            {"error": "The token has expired.", "status": 401},
        )
        waits.add(int(re.match(rb"retry: (\d+)\n", body)[1]))  # type: ignore[index]  # or the test fails
    assert all(5000 <= wait <= 10_000 for wait in waits)
    link = signed(use="link", read=["*"], for_s=-1)
    assert closed.get(f"/api/events?follow=1&token={link}", headers=events | {"Last-Event-ID": "1"})[0] == 200


# Bodies


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "token", "status", "framing"),
    [
        ("/api/upload-progress", "x", 401, "length"),
        ("/api/upload-progress", "nobody", 403, "chunked"),
        ("/api/transform", "x", 401, "chunked"),
        ("/api/uploads", "nobody", 403, "length"),
        ("/api/video", "x", 401, "length"),
        ("/api/notifications", "nobody", 403, "chunked"),
    ],
)
def test_a_large_body_is_refused_without_a_stall(
    closed: LiveServer, path: str, token: str, status: int, framing: str
) -> None:
    """A client that writes 32 MiB before it looks gets its answer, and no reset eats it."""
    block, count = bytes(2**20), 32
    with RawClient(closed.port, timeout_s=30) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        head += (
            f"Content-Length: {count * len(block)}\r\n\r\n"
            if framing == "length"
            else "Transfer-Encoding: chunked\r\n\r\n"
        )
        client.send(head.encode(), "POST")
        for _ in range(count):
            client.send(block) if framing == "length" else client.send_chunk(block)
        if framing == "chunked":
            client.send_chunk(b"")
        answer = client.read_to_end()
    assert (answer.status, answer.header("connection")) == (status, "close")


@pytest.mark.slow
def test_a_gigabyte_is_refused_before_it_is_sent(closed: LiveServer, tmp_path: Path) -> None:
    """curl, which waits for 100-continue or does not: it sees its 401, and no reset eats it."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**30)
    for expect in ("Expect: 100-continue", "Expect:"):
        arguments = ["-sS", "-o", os.devnull, "-w", "%{http_code}", "-H", expect, "-X", "POST", "-T", file.name]
        told = subprocess.run(
            ["curl", *arguments, f"{closed.url}/api/video"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (told.stdout, told.stderr) == ("401", "")

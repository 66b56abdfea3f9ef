"""Limits: what one caller may have of the server, and that the others notice nothing. Refusals come before any work."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from streaming.errors import TooManyRequests, Unavailable, of_status
from streaming.shares import Shares
from tests.harness import LiveServer, RawClient, eventually, parse_events
from tests.redis_server import RedisServer, program
from tests.tokens import bearer, static

Live = Callable[..., LiveServer]
Make = Callable[..., FlaskClient]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, sample_database: str) -> Iterator[LiveServer]:
    """A server that takes ten bytes of each kind of body in an hour."""
    env = {
        "DATABASE_URL": sample_database,
        "CALLER_UPLOAD_BYTES": 10,
        "CALLER_TRANSFORM_BODY_BYTES": 10,
        "CALLER_APPEND_BYTES": 10,
        "MAX_STREAMS": 2,
    }
    server = LiveServer(tmp_path_factory.mktemp("strict"), env)
    try:
        yield server.start()
    finally:
        server.stop()


def refused(answer: TestResponse, status: int, name: str, quota: int) -> int:
    """Retry-After of a refusal that says which quota is used up (draft-ietf-httpapi-ratelimit-headers-10, 3 and 4)."""
    with answer:
        assert answer.status_code == status, answer.data
        assert re.match(f'"{name}";q={quota}(;w=\\d+)?$', answer.headers["RateLimit-Policy"])
        wait = int(answer.headers["Retry-After"])
        assert answer.headers["RateLimit"] == f'"{name}";r=0;t={wait}'
        assert answer.json["status"] == status
        assert wait > 0
        return wait


def test_places_are_counted_for_each_and_in_all() -> None:
    """One caller's last place is nobody else's; all of them together are the server's; each is given back once."""
    shares = Shares("things", 3, 2)
    leaves = [shares.enter("ann"), shares.enter("ann")]
    with pytest.raises(TooManyRequests):
        shares.enter("ann")
    leaves.append(shares.enter("bob"))
    with pytest.raises(Unavailable):
        shares.enter("eve")
    for leave in (leaves[0], leaves[0]):
        leave()
    shares.enter("ann")
    with pytest.raises(Unavailable):
        shares.enter("eve")


def test_who_is_to_come_again_is_always_told_when() -> None:
    """429 and 503 have a Retry-After also where nobody knows better: a model's own refusal, a run that was cut."""
    for status in (429, 503):
        assert of_status(status, "later").retry_after_s == 5
        assert of_status(status, "later", 0.5).retry_after_s == 0.5
    assert of_status(404, "never").retry_after_s is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),
    ],
)
def test_an_address_tells_callers_apart(make_client: Make, one: str, other: str, same: bool) -> None:
    """Whoever has one IPv6 address has 2**64 of them (RFC 4291, 2.5.1): they are one caller."""
    client = make_client(RATE_LIMIT="1/hour")
    statuses = []
    for address in (one, other):
        with client.get("/api/sse?count=1", environ_overrides={"REMOTE_ADDR": address}) as answer:
            statuses.append(answer.status_code)
    assert statuses == [200, 429 if same else 200]


def test_without_a_bound_nothing_is_counted() -> None:
    """Any number of places, and nothing is kept of them."""
    shares = Shares("things", 0, 0)
    for _ in range(10):
        shares.enter("ann")
    assert not shares.bounded


def test_a_caller_may_ask_so_often(make_client: Make) -> None:
    """429 beyond it, before any work; another caller has its own; health checks are not counted."""
    client = make_client(RATE_LIMIT="3/minute;1000/hour", API_TOKENS=static(ann="*", bob="*"))
    for _ in range(3):
        with client.get("/api/stream?chunks=1", headers=bearer("ann")) as answer:
            assert answer.status_code == 200
    # Another route, also one that would have refused it: the same purse.
    assert refused(client.get("/api/sse?count=0", headers=bearer("ann")), 429, "requests-per-caller", 3) <= 60
    with client.get("/api/sse?count=1", headers=bearer("bob")) as answer:
        assert answer.status_code == 200
    for _ in range(5):
        assert client.get("/healthz").status_code == 200


def test_an_event_source_that_asks_too_often_lives_on(make_client: Make) -> None:
    """A reconnect gets 200, a retry as long as the limit lasts, an event with the reason, and the end."""
    client = make_client(RATE_LIMIT="1/minute")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
    assert client.get("/api/sse?count=2&interval=0", headers=headers).status_code == 200
    with client.get("/api/sse?count=2&interval=0", headers=headers) as answer:
        [event] = parse_events(answer.data)
        assert (answer.status_code, event.type) == (200, "stream-error")
        assert '"status":429' in event.data


@pytest.mark.slow
@pytest.mark.skipif(program() is None, reason="there is no redis-server here")
def test_workers_count_together_in_redis(live_server: Live, tmp_path: Path) -> None:
    """With Redis the limit is one for all workers; when Redis goes away, everybody is let in, bytes not counted."""
    redis = RedisServer(tmp_path, appendonly="no").start()
    try:
        bytes_an_hour = {f"{name}_BYTES": 2**20 for name in ("UPLOAD", "APPEND", "SENT")}
        server = live_server(WEB_CONCURRENCY=2, RATE_LIMIT="5/hour", RATE_LIMIT_URL=redis.url, **bytes_an_hour)
        # The fixture's own look at /readyz is not counted.
        statuses = [server.get("/api/stream?chunks=1")[0] for _ in range(12)]
        assert sorted(statuses) == [200] * 5 + [429] * 7
    finally:
        redis.stop()
    assert server.get("/api/stream?chunks=1")[0] == 200
    for method, path in (("POST", "/api/upload-progress?filename=f"), ("PUT", "/v1/stream/s")):
        with RawClient(server.port) as known, RawClient(server.port) as chunked:
            known.request(method, path, [], b"x")
            chunked.request(method, path, [("Transfer-Encoding", "chunked")]).send_chunk(b"x").send_chunk(b"")
            assert {client.read_to_end().status for client in (known, chunked)} <= {200, 201}
    assert server.get("/v1/stream/s")[0] == 200


@pytest.mark.slow
def test_redis_that_hangs_lets_everybody_in(make_client: Make) -> None:
    """One that takes the connection and answers nothing: each question is given up long before a client would."""
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        url = f"redis://127.0.0.1:{hangs.getsockname()[1]}"
        client = make_client(RATE_LIMIT="1/hour", CALLER_UPLOAD_BYTES=1, RATE_LIMIT_URL=url)
        began = time.monotonic()
        with client.post("/api/upload-progress?filename=a", data=b"12345") as answer:
            assert answer.status_code == 201
        # Three questions of half a second; redis-py by itself gives up each after five.
        assert time.monotonic() - began < 14


def test_bytes_of_uploads_are_looked_for_before_they_are_read(make_client: Make) -> None:
    """Of each caller (429) and in all (503); nothing of what is refused is stored."""
    tokens = static(ann="*", bob="*", eve="*")
    client = make_client(CALLER_UPLOAD_BYTES=10, UPLOAD_BYTES=15, API_TOKENS=tokens)

    def upload(name: str, body: bytes) -> TestResponse:
        return client.post(f"/api/upload-progress?filename={name}{len(body)}", data=body, headers=bearer(name))

    assert upload("ann", b"12345678").status_code == 201
    assert refused(upload("ann", b"123"), 429, "upload-bytes-per-caller", 10) <= 3600
    assert upload("bob", b"123456").status_code == 201
    assert refused(upload("eve", b"123"), 503, "upload-bytes", 15) <= 3600
    stored = client.application.extensions["settings"].FILES_DIR / "uploads"
    assert sorted(path.name for path in stored.iterdir() if path.is_file() and path.name[0] != ".") == ["ann8", "bob6"]


def test_what_does_not_come_costs_nothing(make_client: Make) -> None:
    """A body that is refused unread (400, 409, 413), and one that ends early, but for what came of it."""
    client = make_client(CALLER_UPLOAD_BYTES=10, MAX_UPLOAD_BYTES=9)

    def upload(query: str, body: bytes, announced: int = 0) -> int:
        environ = {"CONTENT_LENGTH": str(announced or len(body))}
        with client.post(f"/api/upload-progress?{query}", data=body, environ_overrides=environ) as answer:
            return answer.status_code

    assert upload("filename=a", b"12") == 201
    for _ in range(5):
        assert upload("filename=../b", b"12345678") == 400
        assert upload("filename=a&exists=refuse", b"12345678") == 409
        assert upload("filename=b", b"", 8) == 400
    assert upload("filename=b", b"123", 8) == 400
    assert upload("filename=b", b"123456") == 429
    assert upload("filename=b", b"12345") == 201
    big = make_client(CALLER_UPLOAD_BYTES=100, MAX_UPLOAD_BYTES=9)
    for expected in (413, 413, 201):
        with big.post("/api/upload-progress?filename=c", data=b"x" * (60 if expected == 413 else 9)) as answer:
            assert answer.status_code == expected


@pytest.mark.slow
def test_a_head_alone_takes_nobody_s_hour(live_server: Live) -> None:
    """Who announces all that there is and leaves has paid for what was sent of it; the others go on."""
    everything = 2**30
    server = live_server(UPLOAD_BYTES=everything)

    def head(length: int) -> bytes:
        line = f"POST /api/upload-progress?id=i{length} HTTP/1.1"
        return f"{line}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()

    for length, came in ((everything, b""), (everything - 1, b"some"), (everything - 4, b"more")):
        with RawClient(server.port) as client:
            client.send(head(length) + came, "POST")
        assert b"failed" in server.get(f"/api/upload-progress/i{length}")[1]  # read to its end
    # 8 bytes have come by now, and so there are not so many left any more.
    with RawClient(server.port) as client:
        assert client.send(head(everything - 7), "POST").read_head().status == 503
    with RawClient(server.port) as client:
        assert client.send(head(9) + b"x" * 9, "POST").read_to_end().status == 201


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/transform", "transform-bytes"),
        ("/v1/stream/made", "append-bytes"),
        ("/api/notifications?topic=t", "append-bytes"),
    ],
)
def test_bytes_of_transforms_and_appends_are_paid_for_too(make_client: Make, path: str, name: str) -> None:
    """Each kind from a purse of its own; of each caller (429) and in all (503), before anything is done."""
    bounds = {
        f"{each}{kind}_BYTES": most
        for kind in ("TRANSFORM_BODY", "APPEND")
        for each, most in (("CALLER_", 10), ("", 15))
    }
    client = make_client(API_TOKENS=static(ann="*", bob="*", eve="*"), **bounds)
    method = "PUT" if path.startswith("/v1") else "POST"

    def sent(caller: str, body: bytes) -> TestResponse:
        return client.open(path, method=method, data=body, headers=bearer(caller) | {"Content-Type": "text/plain"})

    def is_taken(answer: TestResponse) -> bool:
        # Read to its end: a transform's body is read by a greenlet of its own, and paid for when that has ended.
        with answer:
            assert answer.data is not None
            return answer.status_code in (200, 201)

    assert is_taken(sent("ann", b"12345678"))
    assert refused(sent("ann", b"123"), 429, f"{name}-per-caller", 10) <= 3600
    assert is_taken(sent("bob", b"123456"))
    # What was refused for all has cost its caller nothing.
    for _ in range(5):
        assert refused(sent("eve", b"123"), 503, name, 15) <= 3600
    assert is_taken(sent("eve", b"1"))
    # Nothing is asked of who sends nothing, nor of another kind of body.
    assert client.get("/api/stream?chunks=1", headers=bearer("ann")).status_code == 200
    with client.post("/api/upload-progress?filename=f", data=b"x" * 100, headers=bearer("ann")) as answer:
        assert answer.status_code == 201


def test_bytes_that_are_sent_are_paid_for_at_their_end(make_client: Make) -> None:
    """Of streams, exports and files: to each caller (429) and in all (503); what it sends itself is none of it."""
    tokens = static(ann="*", bob="*", eve="*")
    client = make_client(CALLER_SENT_BYTES=100, SENT_BYTES=150, API_TOKENS=tokens)
    (client.application.extensions["settings"].FILES_DIR / "f").write_bytes(b"x" * 60)

    def read(path: str, name: str) -> TestResponse:
        answer = client.get(path, headers=bearer(name))
        assert answer.data  # to its end
        answer.close()
        return answer

    assert read("/api/stream?chunks=6&interval=0", "ann").status_code == 200  # 48 bytes
    with client.post("/api/upload-progress?filename=u", data=b"x" * 500, headers=bearer("ann")) as answer:
        assert answer.status_code == 201
    assert read("/api/download/f", "ann").status_code == 200
    assert refused(read("/api/download/f", "ann"), 429, "stream-bytes-per-caller", 100) <= 3600
    with client.post("/api/notifications", data=b"x", headers=bearer("ann")) as answer:
        assert answer.status_code == 201
    assert read("/api/export/users.csv?limit=9", "bob").status_code == 200
    assert refused(read("/api/sse?count=1", "eve"), 503, "stream-bytes", 150) <= 3600
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "request_line",
    ["POST /api/upload-progress?filename=c", "POST /api/transform", "PUT /v1/stream/paid"],
)
def test_a_body_of_unknown_length_is_paid_for_when_it_has_come(strict: LiveServer, request_line: str) -> None:
    """The next one is refused, before it is sent."""
    head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with RawClient(strict.port) as client:
        answer = client.send(head, "POST").send_chunk(b"x" * 12).send_chunk(b"").read_to_end()
        assert (answer.status in (200, 201), answer.end) == (True, "clean")

    def is_refused() -> bool:
        with RawClient(strict.port) as client:
            answer = client.send(head, "POST").read_head()
            return answer.status == 429 and int(answer.header("retry-after")) > 0

    # A transform's last byte may leave a moment before its body is paid for.
    eventually(is_refused)


@pytest.mark.slow
def test_durable_runs_of_a_caller_at_once(live_server: Live) -> None:
    """Beyond its own a caller gets a 429; its place is free when its run has ended, not when its reader leaves."""
    server = live_server(CALLER_RUNS=1, API_TOKENS=static(ann="*", bob="*"))
    path = "/api/stream?durable=1&chunks=2&interval="
    with RawClient(server.port) as client:
        client.request("GET", f"{path}2", list(bearer("ann").items())).read_head()
    statuses = [server.get(f"{path}0", headers=bearer(name))[0] for name in ("ann", "bob")]
    assert statuses == [429, 200]
    eventually(lambda: server.get(f"{path}0", headers=bearer("ann"))[0] == 200, 10)


@pytest.mark.slow
def test_streams_exports_and_uploads_of_a_caller_at_once(live_server: Live) -> None:
    """Beyond its own a caller gets a 429 with Retry-After, and has its place again when one of them has ended."""
    tokens = static(ann="*", bob="*")
    server = live_server(CALLER_STREAMS=2, CALLER_EXPORTS=1, CALLER_UPLOADS=1, API_TOKENS=tokens)

    def opened(path: str, token: str) -> RawClient:
        client = RawClient(server.port, receive_buffer_bytes=4096)
        client.request("GET", path, list(bearer(token).items())).read_head()
        return client

    ticks = "/api/sse?count=100&interval=10"
    with RawClient(server.port) as maker:
        assert maker.request("PUT", "/v1/stream/p", list(bearer("ann").items()), b"").read_to_end().status == 201
    with opened(ticks, "ann") as first, opened(ticks, "ann") as second:
        assert (first.answer.status, second.answer.status) == (200, 200)
        with opened(ticks, "ann") as third, opened(ticks, "bob") as other:
            assert (third.answer.status, third.answer.header("retry-after"), other.answer.status) == (429, "5", 200)
        with opened("/v1/stream/p?offset=now&live=long-poll", "ann") as poll:
            assert poll.answer.status == 429
        first.close()
        eventually(lambda: server.get("/api/stream?chunks=1", headers=bearer("ann"))[0] == 200)
    eventually(lambda: server.get("/healthz")[1].count(b'"streams":0'))
    (server.files / "large.bin").write_bytes(bytes(8 * 2**20))
    with opened("/api/download/large.bin", "ann") as file, opened(ticks, "ann"):
        # Files that are read in drops and streams share their places.
        with opened("/api/download/large.bin", "ann") as third, opened("/api/download/large.bin", "bob") as other:
            assert (file.answer.status, third.answer.status, other.answer.status) == (200, 429, 200)
        file.close()
        eventually(lambda: server.get("/api/download/poem.txt", headers=bearer("ann"))[0] == 200)
    assert server.get("/api/download/nothing", headers=bearer("ann"))[0] == 404
    eventually(lambda: server.get("/healthz")[1].count(b'"streams":0'))
    for _ in range(3):
        assert server.get("/api/download/poem.txt", headers=bearer("ann"))[0] == 200
    with opened("/api/export?table=users", "ann"), opened("/api/export?table=users", "ann") as second:
        assert second.answer.status == 429
    eventually(lambda: server.get("/api/export?table=users&limit=1", headers=bearer("ann"))[0] == 200)
    with RawClient(server.port) as slow:
        head = "POST /api/upload-progress?filename=s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann\r\n"
        slow.send(f"{head}Content-Length: 9\r\n\r\nhalf".encode(), "POST")
        statuses = []

        def upload() -> bool:
            with RawClient(server.port) as client:
                client.request("POST", "/api/upload-progress?filename=t", list(bearer("ann").items()), b"x")
                statuses.append(client.read_to_end().status)
            return statuses[-1] == 429

        eventually(upload)
    eventually(lambda: upload() or statuses[-1] == 201)


def test_a_full_server_sends_no_file_either(strict: LiveServer) -> None:
    """A file that is read in drops holds a place as a stream does: beyond MAX_STREAMS 503, before it is opened."""
    with RawClient(strict.port) as one, RawClient(strict.port) as two:
        for client in (one, two):
            client.request("GET", "/api/sse?count=2&interval=60").read_head()
        with RawClient(strict.port) as client:
            answer = client.request("GET", "/api/download/poem.txt").read_to_end()
            assert (answer.status, answer.header("retry-after")) == (503, "5")
    eventually(lambda: strict.streams() == 0)


# Slow connections: test_slow_writers.py


@pytest.mark.slow
def test_connections_that_only_wait_make_room_for_one_that_asks(live_server: Live, tmp_path: Path) -> None:
    """Three times as many silent and dropping connections as there are places: every request is answered, at once."""
    server = live_server(GUNICORN_CMD_ARGS="--worker-connections 150", HEADERS_S=60)
    silent: list[RawClient] = []
    try:
        for n in range(450):
            silent.append(RawClient(server.port))
            if n % 2:
                silent[-1].send(b"GET /healthz HTTP/1.1\r\n")
            if n % 50 == 49:
                assert server.get("/healthz", timeout_s=2)[0] == 200
    finally:
        for client in silent:
            client.close()


@pytest.mark.slow
def test_a_small_worker_keeps_its_connections(live_server: Live) -> None:
    """A worker with few places ends none that wait while most of them are free."""
    server = live_server(GUNICORN_CMD_ARGS="--worker-connections 40")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(20)]
        for _ in range(2):
            for client in clients:
                assert client.request("GET", "/healthz").read_to_end().status == 200
                client.received.clear()

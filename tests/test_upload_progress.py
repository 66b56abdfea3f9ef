"""/api/upload-progress: digests, names that exist, what is told while it runs, and refusals that are heard."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from settings import Settings
from tests.harness import Answer, LiveServer, RawClient, eventually, parse_events

Headers = list[tuple[str, str]]


def digest(content: bytes, algorithm: str = "sha-256") -> str:
    value = hashlib.new(algorithm.replace("-", ""), content).digest()
    return f"{algorithm}=:{base64.b64encode(value).decode()}:"


def post(server: LiveServer, query: str, body: bytes, headers: Headers = [], chunked: bool = False) -> Answer:  # noqa: B006 - only read
    with RawClient(server.port) as client:
        if not chunked:
            return client.request("POST", f"/api/upload-progress?{query}", headers, body).read_to_end()
        client.request("POST", f"/api/upload-progress?{query}", [*headers, ("Transfer-Encoding", "chunked")])
        return client.send_chunk(body[:10]).send_chunk(body[10:]).send_chunk(b"").read_to_end()


def form(content: bytes) -> tuple[bytes, Headers]:
    """A form with one file, as RFC 7578 has it."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n", [("Content-Type", "multipart/form-data; boundary=x")]


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def left_behind(server: LiveServer) -> list[str]:
    return [path.name for path in (server.files / "uploads").glob(".part-*")]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_a_digest_is_compared(server: LiveServer, name: str, field: str, algorithm: str, chunked: bool) -> None:
    """201 where it is right, 400 and nothing kept where one bit is wrong; however the body is framed."""
    content = os.urandom(300_000)
    wrong = digest(content[:-1] + bytes([content[-1] ^ 1]), algorithm)
    answer = post(server, f"filename={name}&id={name}", content, [(field, wrong)], chunked)
    assert answer.status == 400
    assert algorithm in answer.json["detail"]
    assert server.get(f"/api/download/uploads/{name}")[0] == 404
    assert left_behind(server) == []
    assert parse_events(server.get(f"/api/upload-progress/{name}")[1])[-1].type == "failed"
    assert post(server, f"filename={name}", content, [(field, digest(content, algorithm))], chunked).status == 201
    assert server.get(f"/api/download/uploads/{name}")[1] == content


@pytest.mark.parametrize("field", ["sha-256", "sha-256=:?:"])
def test_a_digest_that_cannot_be_read(server: LiveServer, name: str, field: str) -> None:
    """A 400 before anything is read, and the id can still be used."""
    assert post(server, f"id={name}", b"x", [("Content-Digest", field)]).json["parameter"] == "Content-Digest"
    assert post(server, f"id={name}", b"x", [("Content-Digest", "md5=:AAAA:")]).status == 201


def test_a_digest_is_told_on_request(server: LiveServer, name: str) -> None:
    """Want-Repr-Digest: that of the stored file, also where it came in a form; otherwise nothing is hashed."""
    content = b"never dry" * 10_000
    want = ("Want-Repr-Digest", "sha-512=1, sha-256=10")
    assert post(server, f"filename={name}", content, [want]).json["digest"] == digest(content)
    body, headers = form(content)
    assert post(server, f"filename={name}", body, [*headers, want]).json["digest"] == digest(content)
    assert "digest" not in post(server, f"filename={name}", content).json


def test_a_digest_of_a_form_is_that_of_the_body(server: LiveServer, name: str) -> None:
    """RFC 9530, 2: of the content of the message, which is the whole form."""
    body, headers = form(b"never dry")
    assert post(server, f"filename={name}", body, [*headers, ("Content-Digest", digest(body))]).status == 201
    assert post(server, f"filename={name}", body, [*headers, ("Content-Digest", digest(b"never dry"))]).status == 400


def test_a_name_that_may_not_be_changed(server: LiveServer, name: str) -> None:
    """exists=refuse: 409 for the second, which leaves nothing; the first is what it was."""
    assert post(server, f"filename={name}&exists=refuse", b"first").status == 201
    answer = post(server, f"filename={name}&exists=refuse&id={name}", b"second")
    assert (answer.status, answer.json["parameter"]) == (409, "filename")
    assert post(server, f"filename={name}&id={name}", b"third").json["filename"] == f"{name} (2)"
    assert server.get(f"/api/download/uploads/{name}")[1] == b"first"
    assert post(server, f"filename={name}&exists=maybe", b"x").json["parameter"] == "exists"


def test_a_name_that_is_taken_meanwhile(server: LiveServer, name: str) -> None:
    """Two at once with exists=refuse: one gets it, the other a 409 at its end."""
    with RawClient(server.port) as slow:
        head = f"POST /api/upload-progress?filename={name}&exists=refuse HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Length: 4\r\n\r\n"
        slow.send(head.encode() + b"sl", "POST")
        eventually(lambda: left_behind(server))
        assert post(server, f"filename={name}&exists=refuse", b"fast").status == 201
        assert slow.send(b"ow").read_to_end().status == 409
    assert server.get(f"/api/download/uploads/{name}")[1] == b"fast"
    assert left_behind(server) == []


def test_progress_says_how_fast_and_how_long(server: LiveServer, name: str) -> None:
    """Bytes, total, rate and the seconds left, at most ten times a second; the seconds fit the rate."""
    with RawClient(server.port) as client:
        head = f"POST /api/upload-progress?id={name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        client.send(head.encode(), "POST")
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 0.7:
            sent += len(piece := bytes(5000))
            client.send(piece)
            time.sleep(0.01)  # a client that sends at some 500 kB a second
        client.send(bytes(1_000_000 - sent))
        assert client.read_to_end().status == 201
        lasted = time.monotonic() - began
    events = parse_events(server.get(f"/api/upload-progress/{name}")[1])
    told = [json.loads(event.data) for event in events if event.type == "progress"]
    assert 2 <= len(told) <= 10 * lasted + 4
    assert [each["received"] for each in told] == sorted(each["received"] for each in told)
    for each in told[1:]:
        assert each["total"] == 1_000_000
        assert each["rate"] > 0
        assert each["left_s"] == pytest.approx((1_000_000 - each["received"]) / each["rate"], abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_line", "headers", "status", "mib"),
    [
        ("POST /api/upload-progress?filename=taken&exists=refuse", "", 409, 1024),
        ("POST /api/upload-progress?exists=x", "", 400, 64),
        ("POST /api/uploads", "Tus-Resumable: 1.0.0\r\nUpload-Length: 2000000000\r\n", 415, 64),
        ("PATCH /api/uploads/aaaaaaaaaaaaaaaaaaaaaaaa", "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n", 415, 64),
        ("PUT /v1/stream/runs/x", "Content-Type: text/plain\r\n", 403, 64),
    ],
)
def test_a_refusal_is_heard(server: LiveServer, request_line: str, headers: str, status: int, mib: int) -> None:
    """A client that writes up to 1 GiB before it reads gets its answer, and another request waits for nothing."""
    post(server, "filename=taken&exists=refuse", b"x")
    block = bytes(2**20)
    with RawClient(server.port, timeout_s=60) as client, Pulse(server) as pulse:
        client.send(
            f"{request_line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {mib * 2**20}\r\n\r\n".encode(),
            "POST",
        )
        for _ in range(mib):
            client.send(block)
        answer = client.read_to_end()
    assert (answer.status, answer.end, answer.header("connection")) == (status, "clean", "close")
    # A worker that drained such a body itself stood still for 30 seconds.
    assert pulse.longest_s < 3.0


@pytest.mark.slow
def test_a_body_beyond_the_limit_is_heard(live_server: Callable[..., LiveServer]) -> None:
    """413, for 1 GiB that is announced and for a body that is chunked."""
    server = live_server(MAX_UPLOAD_BYTES=2**20)
    block = bytes(2**20)
    for framing, mib in ((f"Content-Length: {2**30}", 1024), ("Transfer-Encoding: chunked", 64)):
        with RawClient(server.port, timeout_s=60) as client:
            client.send(f"POST /api/upload-progress HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode(), "POST")
            for _ in range(mib):
                client.send_chunk(block) if "chunked" in framing else client.send(block)
            assert client.read_to_end().status == 413
    assert left_behind(server) == []


class Pulse:
    """Asks /healthz over and over: ``longest_s`` is the worst answer."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest_s = 0.0

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._server.get("/healthz", timeout_s=60)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(0.01)  # one client among others, and not a load of its own


@pytest.mark.slow
def test_fifty_slow_writers_need_no_memory(live_server: Callable[..., LiveServer]) -> None:
    """Each sends a little now and then: the worker grows by less than 16 MiB, and all files come out whole."""
    server = live_server(LOG_LEVEL="WARNING")
    post(server, "filename=warm", bytes(2**20))
    before = server.rss_bytes()
    clients = [RawClient(server.port) for _ in range(50)]
    try:
        for number, client in enumerate(clients):
            head = f"POST /api/upload-progress?filename=slow-{number} HTTP/1.1\r\nHost: localhost\r\n"
            client.send(f"{head}Content-Length: 1000000\r\n\r\n".encode(), "POST")
        for _ in range(10):
            for client in clients:
                client.send(bytes(100_000))
        grown = server.rss_bytes() - before
        assert all(client.read_to_end(30).status == 201 for client in clients)
    finally:
        for client in clients:
            client.close()
    assert grown < 16 * 2**20
    sizes = [(server.files / "uploads" / f"slow-{number}").stat().st_size for number in range(50)]
    assert sizes == [1_000_000] * 50


def test_a_store_that_fails(client: FlaskClient, settings: Settings) -> None:
    """A 503 as of every other store, and those who watch are told its sentence."""
    (settings.FILES_DIR / "uploads").rename(settings.FILES_DIR / "elsewhere")
    answer = client.post("/api/upload-progress?id=x", data=b"content")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    told = parse_events(client.get("/api/upload-progress/x").data)[-1]
    assert (told.type, json.loads(told.data)) == ("failed", {"error": answer.json["detail"]})

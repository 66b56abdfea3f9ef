"""How the bytes of a file reach a client: sendfile, blocks, Flask, nginx; and what happens when it does not go well."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest

from settings import ROOT
from streaming.connections import RESPONSE
from streaming.ranges import Span
from streaming.senders import FileBody, _in_memory
from tests.certificates import self_signed
from tests.harness import LiveServer, RawClient
from tests.nginx import PROGRAM, nginx, proxy

MIB = 2**20
CONTENT = os.urandom(MIB) * 3 + b"tail"


@pytest.fixture
def large(server: LiveServer, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = server.files / f"{request.node.name}.bin".replace("[", "-").replace("]", "")
    path.write_bytes(CONTENT)
    yield path
    path.unlink(missing_ok=True)


def url(path: Path) -> str:
    return f"/api/download/{path.name}"


def test_the_access_log_counts_the_bytes(server: LiveServer, large: Path) -> None:
    """What the kernel sent is in the log, for the whole, a range, and parts, whose heads count too."""
    for asked, name in (("bytes=0-", "whole"), ("bytes=5-1000004", "part"), ("bytes=0-9,100-199", "parts")):
        with RawClient(server.port) as client:
            answer = client.request("GET", url(large), [("Range", asked)]).read_to_end()
            assert (answer.status, answer.end) == (206, "clean"), name
            logged = server.wait_log(rf'"GET {url(large)} HTTP/1.1" 206 {len(answer.body)} bytes')
            assert logged
    server.wait_log(rf'"GET {url(large)} HTTP/1.1" 206 {len(CONTENT)} bytes')


def test_a_slow_reader_gets_every_byte(server: LiveServer, large: Path) -> None:
    """A window of a few KiB makes sendfile stop and go on at any byte."""
    with RawClient(server.port, receive_buffer_bytes=4096) as client:
        client.request("GET", url(large))
        answer = client.read_to_end(30.0)
        assert (answer.end, hashlib.sha256(answer.body).digest()) == ("clean", hashlib.sha256(CONTENT).digest())


def test_parts_of_a_large_file_are_its_bytes(server: LiveServer, large: Path) -> None:
    """Also parts larger than a block, and larger than the socket takes at once."""
    with RawClient(server.port, receive_buffer_bytes=65536) as client:
        answer = client.request("GET", url(large), [("Range", "bytes=9-1500000,1600000-,0-0")]).read_to_end(30.0)
    assert (answer.status, answer.end) == (206, "clean")
    for first, end in ((9, 1_500_001), (1_600_000, len(CONTENT)), (0, 1)):
        head = f"Content-Range: bytes {first}-{end - 1}/{len(CONTENT)}\r\n\r\n".encode()
        begin = answer.body.index(head) + len(head)
        assert answer.body[begin : begin + end - first] == CONTENT[first:end]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("asked", ["whole", "part"])
def test_a_file_that_shrinks_cuts_the_connection(server: LiveServer, large: Path, version: str, asked: str) -> None:
    """Never a clean end, and never another answer's bytes in the place of those that are not there."""
    with large.open("r+b") as file:
        file.truncate(256 * MIB)
    fields = [] if asked == "whole" else [("Range", "bytes=1-")]
    with RawClient(server.port, receive_buffer_bytes=65536) as client:
        lines = [f"GET {url(large)} HTTP/{version}", "Host: localhost", *(f"{name}: {value}" for name, value in fields)]
        client.send("\r\n".join([*lines, "", ""]).encode() + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET")
        client.read_until(lambda answer: len(answer.body) > 100_000)
        os.truncate(large, 2 * MIB)
        answer = client.read_to_end(30.0)
        assert answer.end == "cut"
        assert len(answer.body) <= 2 * MIB
        assert b'"status"' not in answer.body
    server.wait_log(f"{url(large)} shrank while it was sent: cut")


def test_a_file_that_grows_keeps_its_length(server: LiveServer, large: Path) -> None:
    """What was announced is what is sent, and the connection goes on."""
    with large.open("r+b") as file:
        file.truncate(64 * MIB)
    with RawClient(server.port, receive_buffer_bytes=65536) as client:
        client.request("GET", url(large)).read_until(lambda answer: len(answer.body) > 100_000)
        with large.open("ab") as file:
            file.write(b"more")
        assert client.read_to_end(30.0).end == "clean"
        assert len(client.answer.body) == 64 * MIB
        assert client.request("GET", "/healthz").read_to_end().status == 200


def test_a_replaced_file_is_sent_as_it_was_opened(server: LiveServer, large: Path) -> None:
    """A rewrite by rename gives a new entity tag, and mixes no bytes into a running answer."""
    with RawClient(server.port, receive_buffer_bytes=4096) as client, RawClient(server.port) as other:
        client.request("GET", url(large)).read_head()
        new = large.with_suffix(".new")
        new.write_bytes(bytes(len(CONTENT)))
        new.replace(large)
        assert other.request("HEAD", url(large)).read_to_end().header("etag") != client.answer.header("etag")
        assert client.read_to_end(30.0).body == CONTENT


def test_every_rewrite_has_its_own_tag(server: LiveServer, large: Path) -> None:
    """Same size and same second are not the same file: nanoseconds, size and inode all count."""

    def tag() -> str:
        with RawClient(server.port) as client:
            return client.request("HEAD", url(large)).read_to_end().header("etag")

    os.utime(large, ns=(1, 1_700_000_000_000_000_000))
    tags = [tag()]
    os.utime(large, ns=(1, 1_700_000_000_000_000_001))
    tags.append(tag())
    os.truncate(large, 5)
    os.utime(large, ns=(1, 1_700_000_000_000_000_001))
    tags.append(tag())
    copy = large.with_suffix(".copy")
    copy.write_bytes(large.read_bytes())
    os.utime(copy, ns=(1, 1_700_000_000_000_000_001))
    copy.replace(large)
    tags.append(tag())
    assert len(set(tags)) == 4
    assert not any(each.startswith("W/") for each in tags)


# Without a server


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any]]:
    """A connection: the server's side as gunicorn has it, and the client's."""
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = gevent.socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16384)
    yield server, client
    server.close()
    client.close()


@pytest.mark.may_leak("the epoll set of streaming/wire.py stays for the process's life")
def test_a_quick_client_may_have_more_queued(pair: tuple[Any, Any], tmp_path: Path) -> None:
    """While its file is sent only: the next answer on the connection may be to one that does not read."""
    server, client = pair
    path = tmp_path / "large.bin"
    path.write_bytes(CONTENT * 8)
    environ = {"gunicorn.socket": server, RESPONSE: SimpleNamespace(sent=0), "SERVER_PROTOCOL": "HTTP/1.1"}
    limits, received = set(), hashlib.sha256()

    def read() -> None:
        left = 8 * len(CONTENT)
        while left:
            data = client.recv(256 * 1024)
            left -= len(data)
            received.update(data)
            limits.add(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))

    reader = gevent.spawn(read)
    with path.open("rb") as file:
        assert set(FileBody((Span(0, 8 * len(CONTENT)),), file, environ)) == {b""}
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16384
        reader.join()
    assert received.digest() == hashlib.sha256(path.read_bytes()).digest()
    assert environ[RESPONSE].sent == 8 * len(CONTENT)
    assert max(limits) > 16384


def test_a_file_that_is_not_in_memory_is_read_ahead(tmp_path: Path) -> None:
    """Before it is sent, in a thread: sendfile would hold up the worker for the disk. The bytes are the same."""
    path = tmp_path / "cold.bin"
    with path.open("wb") as file:
        file.write(CONTENT)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with path.open("rb") as file:
        if _in_memory(file.fileno(), len(CONTENT) - 1):
            pytest.skip("this file system keeps its files in memory, or does not tell")
        assert b"".join(FileBody((Span(0, len(CONTENT)),), file, {})) == CONTENT
        assert _in_memory(file.fileno(), len(CONTENT) - 1)


# Others than our own sender on a plain connection


@pytest.mark.slow
def test_over_tls_the_bytes_are_the_same(tmp_path: Path, sample_database: str) -> None:
    """Where sendfile would send past the encryption, blocks are sent: the whole, and a range."""
    key, certificate = self_signed(tmp_path)
    env = {"GUNICORN_CMD_ARGS": f"--keyfile {key} --certfile {certificate}", "DATABASE_URL": sample_database}
    server = LiveServer(tmp_path / "server", env, ssl.create_default_context(cafile=str(certificate)))
    try:
        (server.start().files / "large.bin").write_bytes(CONTENT)
        assert server.get("/api/download/large.bin") == (200, CONTENT)
        assert server.get("/api/download/large.bin", headers={"Range": "bytes=-9999"}) == (206, CONTENT[-9999:])
    finally:
        server.stop()


@pytest.mark.slow
def test_flasks_own_sender(live_server: Callable[..., LiveServer]) -> None:
    """SEND_FILES=flask is send_file(conditional=True): one range, a condition, 416, a shrinking file cut."""
    server = live_server(SEND_FILES="flask", FILES_CACHE_CONTROL="public, max-age=60")
    path = server.files / "large.bin"
    path.write_bytes(CONTENT)
    with RawClient(server.port) as client:
        whole = client.request("GET", "/api/download/large.bin").read_to_end()
        assert (whole.status, whole.body, whole.header("cache-control")) == (200, CONTENT, "public, max-age=60")
        assert whole.header("content-disposition") == "attachment; filename=large.bin"
        part = client.request("GET", "/api/download/large.bin", [("Range", "bytes=1000000-1999999")]).read_to_end()
        assert (part.status, part.body) == (206, CONTENT[1_000_000:2_000_000])
        assert part.header("content-range") == f"bytes 1000000-1999999/{len(CONTENT)}"
        known = client.request("GET", "/api/download/large.bin", [("If-None-Match", whole.header("etag"))])
        assert known.read_to_end().status == 304
        after = client.request("GET", "/api/download/large.bin", [("Range", "bytes=99999999-")]).read_to_end()
        assert (after.status, after.header("content-range")) == (416, f"bytes */{len(CONTENT)}")
    os.truncate(path, 64 * MIB)
    with RawClient(server.port, receive_buffer_bytes=65536) as client:
        client.request("GET", "/api/download/large.bin").read_until(lambda answer: len(answer.body) > 100_000)
        os.truncate(path, MIB)
        assert client.read_to_end(30.0).end == "cut"


@pytest.mark.slow
def test_nginx_sends_the_file(live_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    """SEND_FILES=x-accel-redirect with deploy/nginx-files.conf: nginx sends what Perennial named, as it said it."""
    if PROGRAM is None:
        pytest.skip("nginx is not installed")
    server = live_server(SEND_FILES="x-accel-redirect", FILES_CACHE_CONTROL="public, max-age=60")
    names = {"large.bin": CONTENT, "Grüße 100%? – 川#.txt": b"Gruss", "page.html": b"<script>alert(1)</script>"}
    for name, content in names.items():
        (server.files / name).write_bytes(content)
    (server.files / "link.txt").symlink_to("/etc/passwd")
    snippet = (ROOT / "deploy" / "nginx-files.conf").read_text()
    internal = snippet.replace("/srv/perennial/files", str(server.files))
    assert internal != snippet
    with nginx(tmp_path / "nginx", proxy(server.port) + internal) as port, RawClient(port) as client:
        whole = client.request("GET", "/api/download/large.bin").read_to_end()
        assert (whole.status, whole.body, whole.header("cache-control")) == (200, CONTENT, "public, max-age=60")
        assert whole.header("content-disposition") == "attachment; filename=large.bin"
        assert whole.header("x-content-type-options") == "nosniff"
        assert "x-accel-redirect" not in dict(whole.headers)
        part = client.request("GET", "/api/download/large.bin", [("Range", "bytes=-5")]).read_to_end()
        assert (part.status, part.body) == (206, CONTENT[-5:])
        known = client.request("GET", "/api/download/large.bin", [("If-None-Match", whole.header("etag"))])
        assert known.read_to_end().status == 304
        odd = client.request(
            "GET", "/api/download/Gr%C3%BC%C3%9Fe%20100%25%3F%20%E2%80%93%20%E5%B7%9D%23.txt"
        ).read_to_end()
        assert (odd.status, odd.body) == (200, b"Gruss")
        page = client.request("GET", "/api/download/page.html", [("Want-Repr-Digest", "sha-256=1")]).read_to_end()
        assert "sandbox" in page.header("content-security-policy")
        assert page.header("content-disposition").startswith("attachment")
        digest = base64.b64encode(hashlib.sha256(names["page.html"]).digest()).decode()
        assert page.header("repr-digest") == f"sha-256=:{digest}:"
        film = client.request("GET", "/api/video/sample", [("Range", "bytes=0-9")]).read_to_end()
        assert (film.status, film.header("content-type")) == (206, "video/mp4")
        for path in (
            "/api/download/link.txt",
            "/api/download/missing",
            "/_files/large.bin",
            "/api/download/..%2fapp.py",
        ):
            assert client.request("GET", path).read_to_end().status == 404, path
    # Nobody but Perennial's answer leads to the files, so this is all that a client without nginx sees.
    with RawClient(server.port) as client:
        told = client.request(
            "GET", "/api/download/Gr%C3%BC%C3%9Fe%20100%25%3F%20%E2%80%93%20%E5%B7%9D%23.txt"
        ).read_to_end()
        assert (told.status, told.body) == (200, b"")
        assert told.header("x-accel-redirect") == "/_files/Gr%C3%BC%C3%9Fe%20100%25%3F%20%E2%80%93%20%E5%B7%9D%23.txt"


@pytest.mark.slow
def test_many_slow_readers_cost_no_memory(live_server: Callable[..., LiveServer]) -> None:
    """Fifty that take a few KiB at a time, of a file of 1 GiB: the worker grows by less than 16 MiB."""
    server = live_server()
    with (server.files / "large.bin").open("wb") as file:
        file.truncate(1024 * MIB)
    before = server.rss_bytes()
    clients = [RawClient(server.port, receive_buffer_bytes=8192) for _ in range(50)]
    try:
        for number, client in enumerate(clients):
            client.request("GET", "/api/download/large.bin", [("Range", f"bytes={number}-")])
        for _ in range(20):
            for client in clients:
                client.receive(limit_bytes=4096)
        assert all(client.answer.status == 206 for client in clients)
        assert server.streams() == 50
        assert server.rss_bytes() - before < 16 * MIB
        assert server.get("/healthz")[0] == 200
    finally:
        for client in clients:
            client.close()


def test_a_drain_lets_a_download_end(live_server: Callable[..., LiveServer]) -> None:
    """SIGTERM while sendfile waits for a slow reader: all of it still comes."""
    server = live_server(GRACEFUL_TIMEOUT=30)
    (server.files / "large.bin").write_bytes(CONTENT)
    with RawClient(server.port, receive_buffer_bytes=4096) as client:
        client.request("GET", "/api/download/large.bin").read_head()
        server.signal(signal.SIGTERM)
        answer = client.read_to_end(30.0)
    assert (answer.end, answer.body) == ("clean", CONTENT)
    assert server.wait_exit() == 0


def test_a_digest_is_computed_once_for_many(server: LiveServer, large: Path) -> None:
    """Ten that ask at the same time all get the digest of the whole, beside the range that they asked for."""
    os.truncate(large, 64 * MIB)
    expected = base64.b64encode(hashlib.sha256(large.read_bytes()).digest()).decode()
    found: list[str] = []

    def ask() -> None:
        with RawClient(server.port) as client:
            fields = [("Range", "bytes=0-9"), ("Want-Repr-Digest", "sha-512=5, sha-256=3")]
            found.append(client.request("GET", url(large), fields).read_to_end().header("repr-digest"))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [f"sha-256=:{expected}:"] * 10

"""tus 1.0 at /api/uploads, black-box against a real server: what the protocol's text says, and what can go wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import pytest

from tests.harness import Answer, LiveServer, RawClient, eventually, parse_events

VERSION = ("Tus-Resumable", "1.0.0")
PIECE = ("Content-Type", "application/offset+octet-stream")
Headers = list[tuple[str, str]]


def ask(server: LiveServer, method: str, path: str, headers: Headers = [], body: bytes | None = None) -> Answer:  # noqa: B006 - only read
    """One request of tus 1.0 over a connection of its own."""
    with RawClient(server.port) as client:
        return client.request(method, path, [VERSION, *headers], body).read_to_end()


def create(server: LiveServer, length: int | None, *headers: tuple[str, str], body: bytes = b"") -> str:
    """The URL of a new upload; None is a length that nobody knows yet."""
    said = ("Upload-Length", str(length)) if length is not None else ("Upload-Defer-Length", "1")
    answer = ask(server, "POST", "/api/uploads", [said, *headers], body)
    assert answer.status == 201, answer
    return answer.header("location")


def patch(server: LiveServer, url: str, offset: int, body: bytes, *headers: tuple[str, str]) -> Answer:
    return ask(server, "PATCH", url, [PIECE, ("Upload-Offset", str(offset)), *headers], body)


def offset(server: LiveServer, url: str) -> int:
    answer = ask(server, "HEAD", url)
    assert answer.status == 200, answer
    return int(answer.header("upload-offset"))


def named(name: str) -> tuple[str, str]:
    return "Upload-Metadata", f"filename {base64.b64encode(name.encode()).decode()}"


def stored(server: LiveServer, name: str) -> bytes:
    return server.get(f"/api/download/uploads/{name}")[1]


@contextmanager
def patching(server: LiveServer, url: str, at: int, length: int, sent: bytes) -> Iterator[RawClient]:
    """A PATCH of ``length`` bytes of which only ``sent`` have been."""
    with RawClient(server.port) as client:
        head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {at}\r\n"
        head += f"Content-Type: {PIECE[1]}\r\nContent-Length: {length}\r\n\r\n"
        yield client.send(head.encode() + sent, "PATCH")


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex}.bin"


def test_what_the_server_can(server: LiveServer) -> None:
    """OPTIONS tells version, extensions, checksums and limit; it needs no version itself."""
    with RawClient(server.port) as client:
        answer = client.request("OPTIONS", "/api/uploads").read_to_end()
    assert answer.status == 204
    assert (answer.header("tus-version"), answer.header("tus-resumable")) == ("1.0.0", "1.0.0")
    extensions = set(answer.header("tus-extension").split(","))
    assert extensions >= {"creation", "creation-with-upload", "creation-defer-length", "termination", "checksum"}
    assert extensions >= {"expiration", "concatenation", "concatenation-unfinished"}
    assert "sha1" in answer.header("tus-checksum-algorithm").split(",")
    assert int(answer.header("tus-max-size")) == 10 * 2**30


def test_an_upload_in_two_pieces(server: LiveServer, name: str) -> None:
    """Created, appended twice, asked after each; then it is a file, and a notification tells of it."""
    url = create(server, 11, named(name))
    assert offset(server, url) == 0
    first = patch(server, url, 0, b"hello ")
    assert (first.status, first.header("upload-offset"), first.header("tus-resumable")) == (204, "6", "1.0.0")
    assert server.get(f"/api/download/uploads/{name}")[0] == 404
    last = patch(server, url, 6, b"world")
    assert (last.status, last.header("upload-offset")) == (204, "11")
    assert last.header("content-location") == f"/api/download/uploads/{name}"
    assert stored(server, name) == b"hello world"
    head = ask(server, "HEAD", url)
    assert (head.header("upload-offset"), head.header("upload-length")) == ("11", "11")
    assert head.header("upload-metadata") == named(name)[1]
    assert head.header("cache-control") == "no-store"
    events = server.get("/api/events")[1]
    assert name.encode() in events
    assert url.rpartition("/")[2].encode() not in events, "who may go on with an upload is nobody else's business"
    progress = parse_events(server.get(f"/api/upload-progress/{url.rpartition('/')[2]}")[1])
    assert (progress[0].type, progress[-1].type) == ("progress", "complete")


def test_another_version_is_refused(server: LiveServer) -> None:
    """412 with the version that is spoken here, and nothing is done."""
    with RawClient(server.port) as client:
        answer = client.request("POST", "/api/uploads", [("Upload-Length", "1")], b"").read_to_end()
        assert (answer.status, answer.header("tus-version")) == (412, "1.0.0")
        answer = client.request("HEAD", "/api/uploads/x", [("Tus-Resumable", "0.2.2")]).read_to_end()
        assert (answer.status, answer.header("tus-version")) == (412, "1.0.0")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([PIECE, ("Upload-Offset", "1")], b"x", 409),
        ([("Upload-Offset", "0")], b"x", 415),
        ([PIECE], b"x", 400),
        ([PIECE, ("Upload-Offset", "0")], b"x" * 11, 413),
        ([PIECE, ("Upload-Offset", "0"), ("Upload-Length", "9")], b"x", 400),
        ([PIECE, ("Upload-Offset", "0"), ("Upload-Checksum", "none AAAA")], b"x", 400),
        ([PIECE, ("Upload-Offset", "0"), ("Upload-Checksum", "sha1 AAAA")], b"x", 460),
        ([PIECE, ("Upload-Offset", "0"), ("Content-Digest", "sha-256=:AAAA:")], b"x", 400),
    ],
)
def test_a_piece_that_is_refused(server: LiveServer, headers: Headers, body: bytes, status: int) -> None:
    """Each with its status, and the offset stays what it was."""
    url = create(server, 10)
    answer = ask(server, "PATCH", url, headers, body)
    assert (answer.status, answer.json["status"]) == (status, status)
    assert offset(server, url) == 0


def test_an_upload_that_is_not_there(server: LiveServer) -> None:
    """404 for every method, whatever the id is."""
    for id in ("a" * 32, "..%2f..%2fx", "%00", "short"):
        for method in ("HEAD", "DELETE"):
            assert ask(server, method, f"/api/uploads/{id}").status == 404
        assert patch(server, f"/api/uploads/{id}", 0, b"x").status == 404


def test_an_upload_that_cannot_be_opened(server: LiveServer) -> None:
    """503, to come again, and not 404, after which a client begins anew; then it is there as it was."""
    url = create(server, 6)
    patch(server, url, 0, b"abc")
    file = server.files / "uploads" / ".resumable" / url.rpartition("/")[2]
    aside = file.rename(server.files / "aside")
    file.symlink_to(file.name)
    for answer in (ask(server, "HEAD", url), patch(server, url, 3, b"def")):
        assert (answer.status, answer.header("retry-after")) == (503, "1")
    aside.replace(file)
    assert offset(server, url) == 3


def test_an_empty_file(server: LiveServer, name: str) -> None:
    """Upload-Length: 0 is complete at once."""
    url = create(server, 0, named(name))
    assert offset(server, url) == 0
    assert (server.get(f"/api/download/uploads/{name}")) == (200, b"")


def test_a_creation_with_its_bytes(server: LiveServer, name: str) -> None:
    """creation-with-upload: the whole or a part; the answer says how much was taken."""
    answer = ask(server, "POST", "/api/uploads", [PIECE, ("Upload-Length", "5"), named(name)], b"hello")
    assert (answer.status, answer.header("upload-offset")) == (201, "5")
    assert stored(server, name) == b"hello"
    part = ask(server, "POST", "/api/uploads", [PIECE, ("Upload-Length", "9")], b"hello")
    assert (part.status, part.header("upload-offset")) == (201, "5")
    assert offset(server, part.header("location")) == 5
    assert ask(server, "POST", "/api/uploads", [("Upload-Length", "5")], b"hello").status == 415


def test_a_length_that_comes_later(server: LiveServer, name: str) -> None:
    """creation-defer-length: said once, with any piece, and not below what is there."""
    url = create(server, None, named(name))
    head = ask(server, "HEAD", url)
    assert (head.header("upload-defer-length"), head.header("upload-length", "none")) == ("1", "none")
    assert patch(server, url, 0, b"hello").status == 204
    assert patch(server, url, 5, b"", ("Upload-Length", "4")).status == 400
    assert patch(server, url, 5, b" w", ("Upload-Length", "11")).status == 204
    assert patch(server, url, 7, b"", ("Upload-Length", "12")).status == 400
    assert ask(server, "HEAD", url).header("upload-length") == "11"
    assert patch(server, url, 7, b"orld").status == 204
    assert stored(server, name) == b"hello world"


def test_a_chunked_piece(server: LiveServer, name: str) -> None:
    """Without a Content-Length; what goes beyond the upload's length is a 413."""
    for pieces, status in (([b"hello ", b"world"], 204), ([b"hello ", b"world", b"!"], 413)):
        url = create(server, 11, named(name))
        with RawClient(server.port) as client:
            head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            client.send(f"{head}Content-Type: {PIECE[1]}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(), "PATCH")
            for piece in [*pieces, b""]:
                client.send_chunk(piece)
            assert client.read_to_end().status == status
    assert stored(server, name) == b"hello world"


def test_a_piece_with_its_checksum(server: LiveServer, name: str) -> None:
    """Every algorithm; what does not match is not kept, and the right piece is taken after it."""
    url = create(server, 11, named(name))
    # The protocol's own example: SHA-1 of "hello world".
    assert patch(server, url, 0, b"hello_world", ("Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=")).status == 460
    assert offset(server, url) == 0
    assert patch(server, url, 0, b"hello world", ("Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=")).status == 204
    assert stored(server, name) == b"hello world"
    url = create(server, 100)
    for at, (algorithm, digest) in enumerate(
        [("md5", hashlib.md5), ("sha1", hashlib.sha1), ("sha256", hashlib.sha256), ("sha512", hashlib.sha512)]
    ):
        checksum = base64.b64encode(digest(b"x").digest()).decode()
        assert patch(server, url, at, b"x", ("Upload-Checksum", f"{algorithm} {checksum}")).status == 204


def test_an_upload_that_is_ended(server: LiveServer) -> None:
    """termination: 204, then 404; those who watch are told."""
    url = create(server, 11)
    patch(server, url, 0, b"hello")
    assert ask(server, "DELETE", url).status == 204
    assert ask(server, "HEAD", url).status == 404
    assert patch(server, url, 5, b" world").status == 404
    assert b"event: failed" in server.get(f"/api/upload-progress/{url.rpartition('/')[2]}")[1]


def test_a_finished_upload_that_is_ended(server: LiveServer, name: str) -> None:
    """Its file goes too: the protocol lets a client end what it has completed."""
    url = create(server, 5, named(name), PIECE, body=b"hello")
    assert stored(server, name) == b"hello"
    assert ask(server, "DELETE", url).status == 204
    assert server.get(f"/api/download/uploads/{name}")[0] == 404


def test_a_method_in_a_header(server: LiveServer, name: str) -> None:
    """X-HTTP-Method-Override for clients that know no PATCH."""
    url = create(server, 5, named(name))
    override = ("X-HTTP-Method-Override", "PATCH")
    assert ask(server, "POST", url, [override, PIECE, ("Upload-Offset", "0")], b"hello").status == 204
    assert stored(server, name) == b"hello"
    assert ask(server, "POST", url, [("X-HTTP-Method-Override", "DELETE")], b"").status == 204
    assert ask(server, "POST", url, [("X-HTTP-Method-Override", "TRACE")], b"").status == 405


def test_when_it_expires(server: LiveServer) -> None:
    """Every answer to POST and PATCH says when, a day after the last write."""
    answer = ask(server, "POST", "/api/uploads", [("Upload-Length", "9")], b"")
    for expires in (answer, patch(server, answer.header("location"), 0, b"x")):
        left_s = parsedate_to_datetime(expires.header("upload-expires")).timestamp() - time.time()
        assert 86000 < left_s <= 86401


@pytest.mark.slow
def test_what_has_expired(live_server: Callable[..., LiveServer]) -> None:
    """It is swept by the next worker that starts, and is a 404; what was finished stays."""
    server = live_server(UPLOAD_KEEP_S=0.2)
    url = create(server, 9)
    create(server, 5, named("kept.txt"), PIECE, body=b"hello")
    time.sleep(0.3)  # what is waited for is the time itself
    server.restart()
    # Not asked for by HEAD, which holds the upload while it looks: the sweep passes by what is held.
    eventually(lambda: not list((server.files / "uploads" / ".resumable").iterdir()))
    assert ask(server, "HEAD", url).status == 404
    assert stored(server, "kept.txt") == b"hello"
    assert b"expired" in server.get(f"/api/upload-progress/{url.rpartition('/')[2]}")[1]


def test_a_limit(live_server: Callable[..., LiveServer]) -> None:
    """MAX_UPLOAD_BYTES holds for the length, and for pieces of an upload without one."""
    server = live_server(MAX_UPLOAD_BYTES=10)
    assert ask(server, "POST", "/api/uploads", [("Upload-Length", "11")], b"").status == 413
    url = create(server, None)
    assert patch(server, url, 0, b"x" * 11).status == 413
    assert patch(server, url, 0, b"x", ("Upload-Length", "11")).status == 413
    assert patch(server, url, 0, b"x" * 10).status == 204


# Concatenation


def partial(server: LiveServer, content: bytes) -> str:
    return create(server, len(content), ("Upload-Concat", "partial"), PIECE, body=content)


def test_parts_make_a_file(server: LiveServer, name: str) -> None:
    """In their order, one of them twice, URLs absolute or not; partial uploads are no files of their own."""
    before = {path.name for path in (server.files / "uploads").iterdir()}
    hello, world = partial(server, b"hello "), partial(server, b"world")
    assert {path.name for path in (server.files / "uploads").iterdir()} - before <= {".resumable"}
    assert ask(server, "HEAD", hello).header("upload-concat") == "partial"
    concat = ("Upload-Concat", f"final;{hello} {server.url}{world} {hello}")
    answer = ask(server, "POST", "/api/uploads", [concat, named(name)], b"")
    assert answer.status == 201
    assert stored(server, name) == b"hello worldhello "
    head = ask(server, "HEAD", answer.header("location"))
    assert (head.header("upload-length"), head.header("upload-offset")) == ("17", "17")
    assert head.header("upload-concat") == concat[1]
    assert patch(server, answer.header("location"), 17, b"x").status == 403
    assert offset(server, hello) == 6


def test_parts_that_are_not_whole_yet(server: LiveServer, name: str) -> None:
    """concatenation-unfinished: the request that completes the last of them makes the file."""
    hello, world = partial(server, b"hello "), create(server, 5, ("Upload-Concat", "partial"))
    concat = ("Upload-Concat", f"final;{hello} {world}")
    final = ask(server, "POST", "/api/uploads", [concat, named(name)], b"").header("location")
    head = ask(server, "HEAD", final)
    assert (head.status, head.header("upload-length"), head.header("upload-offset", "none")) == (200, "11", "none")
    assert patch(server, final, 0, b"x").status == 403
    assert patch(server, world, 0, b"world").status == 204
    assert stored(server, name) == b"hello world"
    assert offset(server, final) == 11


def test_what_is_no_part(server: LiveServer) -> None:
    """One that is not there or not partial: a 400; one that goes before it is joined takes the final one along."""
    for url in (create(server, 5), "/api/uploads/" + "a" * 32):
        answer = ask(server, "POST", "/api/uploads", [("Upload-Concat", f"final;{url}")], b"")
        assert answer.status == 400
    part = create(server, 5, ("Upload-Concat", "partial"))
    final = ask(server, "POST", "/api/uploads", [("Upload-Concat", f"final;{part}")], b"").header("location")
    assert ask(server, "DELETE", part).status == 204
    assert ask(server, "HEAD", final).status == 404
    assert b"event: failed" in server.get(f"/api/upload-progress/{final.rpartition('/')[2]}")[1]


# What can go wrong


@pytest.mark.parametrize("ending", ["close", "reset", "half_close"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_every_byte_that_arrived_is_kept(server: LiveServer, ending: str, framing: str) -> None:
    """The client goes, with or without a word: what it had sent is there, and the rest makes it whole."""
    content = os.urandom(3_000_000)
    url, sent = create(server, len(content), named(name := f"{uuid.uuid4().hex}.bin")), 2_345_678
    with RawClient(server.port) as client:
        head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        head += f"Content-Type: {PIECE[1]}\r\n"
        if framing == "length":
            client.send(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:sent], "PATCH")
        else:
            client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), "PATCH").send_chunk(content[:sent])
        # A reset throws away what has not been sent yet: wait until the kernel has sent all.
        part = server.files / "uploads" / ".resumable" / url.rpartition("/")[2]
        eventually(lambda: part.stat().st_size == sent) if ending == "reset" else None
        getattr(client, ending)()
        eventually(lambda: offset(server, url) == sent)
    assert patch(server, url, sent, content[sent:]).status == 204
    assert stored(server, name) == content


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_request_takes_it_over(live_server: Callable[..., LiveServer], workers: int) -> None:
    """From one that still waits for its client, within a second, on any worker, with every byte that had come."""
    server = live_server(WEB_CONCURRENCY=workers)
    for method in ("HEAD", "PATCH", "DELETE"):
        url = create(server, 1000)
        with patching(server, url, 0, 1000, b"x" * 400) as client:
            part = server.files / "uploads" / ".resumable" / url.rpartition("/")[2]
            eventually(lambda part=part: part.stat().st_size == 400)
            began = time.monotonic()
            answer = patch(server, url, 400, b"y" * 600) if method == "PATCH" else ask(server, method, url)
            # A second is what a client may wait; ten times as much is a server that did not let go.
            assert time.monotonic() - began < 10
            assert answer.status in (200, 204)
            if method != "DELETE":
                assert answer.header("upload-offset") == ("400" if method == "HEAD" else "1000")
            old = client.read_to_end()
            assert (old.status, old.header("connection")) == (409, "close")


def test_a_client_that_never_stops_is_taken_over_too(server: LiveServer) -> None:
    """The newest request wins, also against one that still sends."""
    url = create(server, 10**10)
    over = threading.Event()
    with patching(server, url, 0, 10**10, b"") as client:

        def send() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    client.send(bytes(2**16))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            part = server.files / "uploads" / ".resumable" / url.rpartition("/")[2]
            eventually(lambda: part.stat().st_size > 2**20)
            assert offset(server, url) > 2**20
        finally:
            over.set()
            client.socket.shutdown(socket.SHUT_RDWR)
            sender.join(10)
    assert ask(server, "DELETE", url).status == 204


def test_a_body_that_stalls(live_server: Callable[..., LiveServer]) -> None:
    """408 after BODY_TIMEOUT_S without a byte; what had come is kept."""
    server = live_server(BODY_TIMEOUT_S=0.5)
    url = create(server, 10)
    with patching(server, url, 0, 10, b"half") as client:
        assert client.read_to_end().status == 408
    assert offset(server, url) == 4


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_loses_nothing(live_server: Callable[..., LiveServer], workers: int) -> None:
    """What had been written is there, at once on the other worker, and the upload goes on."""
    server = live_server(WEB_CONCURRENCY=workers)
    content = os.urandom(2_000_000)
    url = create(server, len(content), named("killed.bin"))
    with patching(server, url, 0, len(content), content[:1_500_000]):
        part = server.files / "uploads" / ".resumable" / url.rpartition("/")[2]
        eventually(lambda: part.stat().st_size == 1_500_000)
        for pid in server.pids():
            server.signal(signal.SIGKILL, pid)

        def at() -> int:
            try:
                return offset(server, url)
            except (OSError, AssertionError):
                return 0

        assert eventually(at, 15) == 1_500_000
    assert patch(server, url, 1_500_000, content[1_500_000:]).status == 204
    assert stored(server, "killed.bin") == content


def test_progress_of_an_upload_that_pauses(server: LiveServer) -> None:
    """Who watches sees where it stands when its connection is lost, and then how it goes on."""
    url = create(server, 10)
    id = url.rpartition("/")[2]
    with RawClient(server.port) as watcher:
        watcher.request("GET", f"/api/upload-progress/{id}")
        with patching(server, url, 0, 10, b"half"):
            pass
        watcher.read_body_until(b'"received":4,"total":10,"rate":0')
        assert patch(server, url, 4, b" again").status == 204
        watcher.read_body_until(b"event: complete")
        watcher.read_to_end()


def test_a_full_disk(live_server: Callable[..., LiveServer]) -> None:
    """507, and it can be continued when there is room again; of /api/upload-progress nothing is left."""
    server = small_disk(live_server)
    try:
        ballast = server.files / "uploads" / "ballast"
        ballast.write_bytes(bytes(700_000))
        url = create(server, 600_000, named("big.bin"))
        with patching(server, url, 0, 600_000, b"x" * 600_000) as client:
            assert client.read_to_end().status == 507
        at = offset(server, url)
        assert 0 < at < 600_000
        with RawClient(server.port) as client:
            answer = client.request("POST", "/api/upload-progress?filename=too-big", [], bytes(600_000)).read_to_end()
        assert answer.status == 507
        assert {path.name for path in (server.files / "uploads").iterdir()} == {"ballast", ".resumable"}
        ballast.unlink()
        assert patch(server, url, at, b"x" * (600_000 - at)).status == 204
        assert stored(server, "big.bin") == b"x" * 600_000
    finally:
        server.stop()
        subprocess.run(["umount", "--lazy", str(server.files / "uploads")], check=False)


def small_disk(live_server: Callable[..., LiveServer]) -> LiveServer:
    """A server whose uploads lie on a disk of 1 MiB."""
    server = live_server()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(server.files / "uploads")]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    return server

"""``/api/transform`` on a real server: archives and tables in flight, bombs, clients that are slow on either side."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming.compression import zstd
from tests.harness import LiveServer, RawClient, eventually

pytestmark = pytest.mark.slow


def begin(client: RawClient, to: str, headers: str = "") -> RawClient:
    """Begin a chunked request whose chunks leave at once."""
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST /api/transform?to={to} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    return client.send(head.encode(), "POST")


def curl(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--max-time", "60", *arguments]
    return subprocess.run(command, capture_output=True, timeout=90, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "to", ["gzip", "zstd", "csv-to-ndjson", "ndjson-to-csv", "lines", "nfc", "sha256", "gzip,zstd"]
)
def test_the_answer_begins_before_the_request_has_ended(server: LiveServer, to: str) -> None:
    """Something of the first piece is there while more is to come, also of an archive."""
    first, second = {"csv-to-ndjson": (b"a\n1\n", b"2\n"), "ndjson-to-csv": (b'{"a":1}\n', b'{"a":2}\n')}.get(
        to, (b"one\n", b"two\n")
    )
    with RawClient(server.port) as client:
        begin(client, to).send_chunk(first).read_until(lambda answer: answer.body)
        assert client.send_chunk(second).send_chunk(b"").read_to_end().end == "clean"


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed (Debian: apt install zstd)")
def test_the_tools_agree(server: LiveServer, tmp_path: Path) -> None:
    """A file through curl, gzip, zstd and sha256sum, there and back, is the same."""
    body = "".join(f"{n},Grüße vom Fluss {n % 97}\n" for n in range(60_000)).encode()
    (tmp_path / "plain").write_bytes(body)

    def sent(name: str, to: str) -> bytes:
        done = curl("--fail", "-T", str(tmp_path / name), "-X", "POST", f"{server.url}/api/transform?to={to}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    for to, tool in (("gzip", "gzip"), ("zstd", "zstd")):
        (tmp_path / to).write_bytes(sent("plain", to))
        assert subprocess.run([tool, "-dc", tmp_path / to], capture_output=True, check=True).stdout == body
        (tmp_path / "back").write_bytes(subprocess.run([tool, "-c", tmp_path / "plain"], capture_output=True).stdout)
        assert sent("back", f"un{to}".replace("ungzip", "gunzip")) == body
    assert sent("plain", "sha256") == body + f"{hashlib.sha256(body).hexdigest()}  -\n".encode()


def test_a_table_in_an_archive(server: LiveServer) -> None:
    """The line of the documentation: unpacked, made objects of, packed again."""
    body = gzip.compress(b"id,name\r\n1,Rhine\r\n2,\r\n", mtime=0)
    done = curl(
        "--data-binary", "@-", f"{server.url}/api/transform?to=gunzip,csv-to-ndjson,gzip", "-D", "-", input=body
    )
    head, _, data = done.stdout.partition(b"\r\n\r\n")
    assert b"content-type: application/gzip" in head.lower()
    assert b"content-encoding" not in head.lower()
    assert gzip.decompress(data) == b'{"id":"1","name":"Rhine"}\n{"id":"2","name":null}\n'


def test_a_live_archive_does_not_wait_for_its_end(server: LiveServer) -> None:
    """What was written is there within a second or two, though the compressor would rather wait for more."""
    with RawClient(server.port) as client:
        begin(client, "gzip").send_chunk(b"one").read_until(lambda answer: answer.body)
        client.send_chunk(b"two")
        reader = zlib_reader()
        client.read_until(lambda answer: reader(answer.body) == b"onetwo", 5.0)
        client.send_chunk(b"").read_to_end()
        assert gzip.decompress(client.answer.body) == b"onetwo"


def zlib_reader() -> Callable[[bytearray], bytes]:
    """What of an archive's beginning can be read."""
    import zlib

    return lambda data: zlib.decompressobj(31).decompress(bytes(data))


# Failures


def test_a_failure_of_a_table_is_told_and_cut(server: LiveServer) -> None:
    """NDJSON can say it, in a line of its own; and it is cut, since readers of files look at the end."""
    with RawClient(server.port) as client:
        begin(client, "csv-to-ndjson").send_chunk(b"a,b\n1,2\n3").read_body_until(b"}\n")
        answer = client.send_chunk(b",4\n5\n").read_to_end()
        assert answer.end == "cut"
        assert answer.header("content-type") == "application/x-ndjson"
        *rows, last = answer.body.splitlines()
        assert rows == [b'{"a":"1","b":"2"}', b'{"a":"3","b":"4"}']
        assert json.loads(last) == {"error": "Record 4 has not as many fields as the header, which has 2."}


@pytest.mark.parametrize(
    ("to", "good", "bad"),
    [
        ("ndjson-to-csv", b'{"a":1}\n', b"no json\n"),
        ("gunzip", gzip.compress(b"good", mtime=0), b"and garbage behind it, long enough"),
        ("unzstd", zstd.compress(b"good"), b"and garbage"),
        ("gunzip", gzip.compress(b"good", mtime=0)[:-1], b""),
        ("upper,gzip", b"good", b"\xff"),
    ],
)
def test_any_other_failure_is_a_cut(server: LiveServer, to: str, good: bytes, bad: bytes) -> None:
    """Half an archive is never passed off as a whole one."""
    with RawClient(server.port) as client:
        begin(client, to).send_chunk(good).read_until(lambda answer: answer.body)
        if bad:
            client.send_chunk(bad)
        assert client.send_chunk(b"").read_to_end().end == "cut"


def test_a_refusal_before_the_first_byte_is_a_problem(server: LiveServer) -> None:
    """With the sentence of the transform that refuses."""
    done = curl("--data-binary", "no archive, whatever it says", f"{server.url}/api/transform?to=gunzip,upper")
    assert json.loads(done.stdout)["status"] == 400
    assert json.loads(done.stdout)["detail"].startswith("gunzip: The body is no gzip data")


# Bombs


@pytest.mark.parametrize("to", ["gunzip", "unzstd", "gunzip,gzip", "gunzip,sha256"])
def test_a_bomb_is_cut(server: LiveServer, to: str) -> None:
    """A GiB in a few KB ends after the bound, out of constant memory, while others are answered."""
    block = bytes(2**20)
    if to.startswith("gunzip"):
        import zlib

        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = b"".join(packer.compress(block) for _ in range(64)) + packer.flush()
    else:
        body = zstd.compress(block * 64)
    bomb, before, times = body * 8, server.rss_bytes(), []
    done: list[int] = []

    def send() -> None:
        with RawClient(server.port, timeout_s=60.0) as client:
            begin(client, to).send_chunk(bomb)
            answer = client.send_chunk(b"").read_to_end()
            done.append(len(answer.body) if answer.end == "cut" or answer.status == 413 else -1)

    thread = threading.Thread(target=send)
    thread.start()
    grown = 0
    while thread.is_alive():
        begun = time.monotonic()
        assert server.get("/healthz")[0] == 200
        times.append(time.monotonic() - begun)
        grown = max(grown, server.rss_bytes() - before)
    thread.join()
    assert 0 <= done[0] <= 2**24 + 200 * len(bomb)
    assert grown < 32 * 2**20
    assert max(times) < 1.0


# Slow and stuck clients


def test_a_client_may_write_for_longer_than_a_write_may_wait(live_server: Callable[..., LiveServer]) -> None:
    """It reads nothing before it has written everything, slowly: to send is progress, and it gets its whole answer."""
    server = live_server(SEND_TIMEOUT_S=1)
    block, sent = b"a" * 200_000, 0
    with RawClient(server.port, receive_buffer_bytes=8192, timeout_s=30.0) as client:
        begin(client, "upper")
        begun = time.monotonic()
        while time.monotonic() - begun < 6.0:
            client.send_chunk(block)
            sent += len(block)
            select.select([], [], [], 0.1)  # a pace, not a wait: this writer is slow
        answer = client.send_chunk(b"").read_to_end()
        assert (answer.end, len(answer.body)) == ("clean", sent)


def test_a_client_that_is_stuck_is_ended(live_server: Callable[..., LiveServer]) -> None:
    """It has written everything and takes nothing: the deadline ends it, with its spool."""
    server = live_server(SEND_TIMEOUT_S=1)
    with RawClient(server.port, receive_buffer_bytes=8192, timeout_s=30.0) as client:
        begin(client, "upper")
        for _ in range(40):
            client.send_chunk(b"a" * 500_000)
        client.send_chunk(b"")
        eventually(lambda: server.streams() == 0, 15.0)
        eventually(lambda: spooled(server) == 0, 2.0)


def spooled(server: LiveServer) -> int:
    """How many files without a name the worker holds open."""
    (pid,) = server.pids()
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(str(entry.readlink()))
    return sum(link.endswith("(deleted)") and "/wgunicorn" not in link for link in links)


@pytest.mark.parametrize("to", ["gzip,gunzip", "zstd,unzstd,upper"])
def test_a_client_may_write_all_before_it_reads(server: LiveServer, to: str) -> None:
    """48 MiB that stay as large, through two or three transforms; memory stays as it was."""
    line = "".join(f"{n * n} Grüße vom Fluß\n" for n in range(40_000)).encode()
    times, before = 48 * 2**20 // len(line), server.rss_bytes()
    with RawClient(server.port, timeout_s=60.0) as client:
        begin(client, to)
        for _ in range(times):
            client.send_chunk(line)
        client.send_chunk(b"")
        grown = server.rss_bytes() - before
        expected = line.decode().upper().encode() if to.endswith("upper") else line
        answer = client.read_to_end()
        assert (answer.end, len(answer.body)) == ("clean", times * len(expected))
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(expected * times).digest()
    assert grown < 48 * 2**20


def test_a_client_that_leaves_ends_it(server: LiveServer) -> None:
    """In the middle of a row of transforms: no stream and no file is left."""
    before = spooled(server)
    with RawClient(server.port, receive_buffer_bytes=8192) as client:
        begin(client, "upper,gzip,gunzip").send_chunk(b"a" * 4_000_000)
        client.read_until(lambda answer: answer.body)
    eventually(lambda: server.streams() == 0, 3.0)
    eventually(lambda: spooled(server) == before, 2.0)


def test_a_durable_archive(server: LiveServer) -> None:
    """?durable=1: the same bytes at its Location, with the type of the last transform."""
    done = curl("-D", "-", "--data-binary", "river" * 1000, f"{server.url}/api/transform?to=upper,gzip&durable=1")
    head, _, data = done.stdout.partition(b"\r\n\r\n")
    location = next(line[10:] for line in head.decode().splitlines() if line.lower().startswith("location: "))
    again = curl("-D", "-", f"{server.url}{location}").stdout
    head, _, found = again.partition(b"\r\n\r\n")
    assert b"content-type: application/gzip" in head.lower()
    assert gzip.decompress(found) == gzip.decompress(data) == b"RIVER" * 1000

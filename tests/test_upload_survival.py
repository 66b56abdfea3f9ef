"""Uploads killed at random: by their client, with the worker, by a full disk. They are whole, or can be continued.

Each round has its own seed, so that one that fails can be run again alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import LiveServer, RawClient

DISK_BYTES = 16 * 2**20
HEAD = "Host: localhost\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"


@pytest.fixture
def server(live_server: Callable[..., LiveServer], tmp_path: Path) -> Iterator[LiveServer]:
    """Two workers; where that is allowed, their uploads lie on a disk of 16 MiB."""
    server = live_server(WEB_CONCURRENCY=2, LOG_LEVEL="ERROR")
    uploads = server.files / "uploads"
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(uploads)]
    mounted = not os.geteuid() and not subprocess.run(command, capture_output=True, check=False).returncode
    yield server
    server.stop()
    if mounted:
        subprocess.run(["umount", "--lazy", str(uploads)], check=False)


class Upload:
    """A client that never gives up. ``told``: the greatest offset that it was told."""

    def __init__(self, server: LiveServer, content: bytes) -> None:
        self._server = server
        self._content = content
        self.told = 0
        answer = self._ask(f"POST /api/uploads HTTP/1.1\r\n{HEAD}Upload-Length: {len(content)}\r\n\r\n", "POST")
        assert answer is not None
        assert answer[0] == 201
        self.url = answer[1]["location"]

    def _ask(self, head: str, method: str, body: bytes = b"") -> tuple[int, dict[str, str]] | None:
        """Status and headers, None when the connection was lost before there were any."""
        with contextlib.suppress(OSError), RawClient(self._server.port, timeout_s=30) as client:
            client.send(head.encode() + body, method)
            answer = client.read_to_end()
            return (answer.status, dict(answer.headers)) if answer.status else None
        return None

    def patch(self, at: int) -> tuple[int, dict[str, str]] | None:
        rest = self._content[at:]
        return self._ask(
            f"PATCH {self.url} HTTP/1.1\r\n{HEAD}Upload-Offset: {at}\r\nContent-Length: {len(rest)}\r\n\r\n",
            "PATCH",
            rest,
        )

    def reset_after(self, count: int) -> None:
        """Send so many bytes of the rest, and reset the connection."""
        with contextlib.suppress(OSError), RawClient(self._server.port) as client:
            rest = self._content[self.told :]
            head = (
                f"PATCH {self.url} HTTP/1.1\r\n{HEAD}Upload-Offset: {self.told}\r\nContent-Length: {len(rest)}\r\n\r\n"
            )
            client.send(head.encode() + rest[:count])
            client.reset()

    def offset(self) -> int:
        """What the server says now; it never goes back behind what it has told."""
        deadline = time.monotonic() + 30
        while (answer := self._ask(f"HEAD {self.url} HTTP/1.1\r\n{HEAD}\r\n", "HEAD")) is None or answer[0] != 200:
            assert time.monotonic() < deadline, f"no answer to HEAD: {answer}"
            time.sleep(0.05)
        at = int(answer[1]["upload-offset"])
        assert self.told <= at <= len(self._content)
        self.told = at
        return at

    def complete(self) -> None:
        """Continue until it is whole."""
        deadline = time.monotonic() + 60
        while (at := self.offset()) < len(self._content):
            assert time.monotonic() < deadline, f"at {at} of {len(self._content)}"
            self.patch(at)


def by_its_client(server: LiveServer, upload: Upload, dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 4)):
        upload.reset_after(dice.randrange(0, 2_000_000))
        upload.offset()


def with_the_worker(server: LiveServer, upload: Upload, dice: random.Random) -> None:
    sender = threading.Thread(target=upload.patch, args=(upload.told,))
    sender.start()
    time.sleep(dice.uniform(0, 0.03))  # the moment is the dice's
    for pid in server.pids():
        with contextlib.suppress(ProcessLookupError):
            server.signal(signal.SIGKILL, pid)
    sender.join(30)
    assert not sender.is_alive()


def by_a_full_disk(server: LiveServer, upload: Upload, dice: random.Random) -> None:
    ballast = server.files / "uploads" / "ballast"
    free = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
    if free > DISK_BYTES:
        return by_its_client(server, upload, dice)  # no disk of its own: what fills it would fill the machine's
    ballast.write_bytes(bytes(max(0, free - dice.randrange(0, 2_000_000))))
    try:
        upload.patch(upload.told)
        upload.offset()
    finally:
        ballast.unlink()


def survive(server: LiveServer, seed: int) -> bool:
    """Kill an upload, complete it, compare it; return whether it had been interrupted."""
    dice = random.Random(seed)
    content = dice.randbytes(dice.randrange(1, 4_000_000))
    before = {path.name for path in (server.files / "uploads").iterdir()}
    upload = Upload(server, content)
    (by_its_client, with_the_worker, by_a_full_disk)[seed % 3](server, upload, dice)
    interrupted = upload.offset() < len(content)
    upload.complete()
    new = {path.name for path in (server.files / "uploads").iterdir()} - before - {".resumable"}
    (name,) = new  # one file came of it, however often it was killed
    stored = server.files / "uploads" / name
    assert stored.read_bytes() == content, f"seed {seed}"
    stored.unlink()
    return interrupted


@pytest.mark.slow
def test_uploads_killed_at_random(server: LiveServer) -> None:
    """Fifteen times; and killing them did interrupt some."""
    assert sum(survive(server, seed) for seed in range(15)) >= 4


@pytest.mark.slow_suite
@pytest.mark.timeout(1800)
def test_uploads_killed_at_random_often(server: LiveServer) -> None:
    """Two hundred times."""
    assert sum(survive(server, seed) for seed in range(1000, 1200)) >= 60


@pytest.mark.slow
def test_an_upload_in_one_request_is_whole_or_not_there(server: LiveServer) -> None:
    """/api/upload-progress, killed with its worker at random: never a shorter file, and what is left is swept."""
    for seed in range(6):
        dice = random.Random(seed)
        content = dice.randbytes(2_000_000)
        head = f"POST /api/upload-progress?filename=x-{seed} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        answered = []

        def send(head: str = head, content: bytes = content, answered: list[int] = answered) -> None:
            with contextlib.suppress(OSError), RawClient(server.port, timeout_s=30) as client:
                answered.append(client.send(head.encode() + content, "POST").read_to_end().status)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(dice.uniform(0, 0.03))  # the moment is the dice's
        for pid in server.pids():
            with contextlib.suppress(ProcessLookupError):
                server.signal(signal.SIGKILL, pid)
        sender.join(30)
        stored = server.files / "uploads" / f"x-{seed}"
        if stored.exists():
            assert stored.read_bytes() == content
        else:
            assert answered in ([], [0])

"""Bytes on their way into a file: whole, in order, and hashed, however they come."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from stores.disk import Disk, GrowingFile
from stores.errors import StoreError


@pytest.fixture
def file(tmp_path: Path) -> Iterator[GrowingFile]:
    disk = Disk()
    file = GrowingFile(disk, os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o644))
    yield file
    file.close()
    disk.dispose()


def arriving(content: bytes, sizes: list[int]) -> Callable[[memoryview], int | None]:
    """What a socket does: so many bytes at a time (0: not yet), at last the end."""
    at = 0

    def receive(block: memoryview) -> int | None:
        nonlocal at
        if at == len(content):
            return 0
        size = sizes.pop(0) if sizes else len(block)
        piece = content[at : at + min(size, len(block))]
        block[: len(piece)] = piece
        at += len(piece)
        return len(piece) or None

    return receive


@pytest.mark.parametrize("seed", range(6))
def test_what_arrives_is_written_and_hashed(file: GrowingFile, tmp_path: Path, seed: int) -> None:
    """In small pieces, in large ones and with pauses: the file and its digest are those of what was sent."""
    dice = random.Random(seed)
    content = dice.randbytes(9_000_000)
    sizes = [dice.choice([0, 1, 1000, 300_000, 10**9]) for _ in range(40)]
    receive, digest, ended, moved = arriving(content, sizes), hashlib.sha256(), False, 0
    while not ended:
        count, ended = file.fill(receive, dice.randrange(1, 5_000_000), digest)
        moved += count
        assert file.size == moved
    assert (tmp_path / "file").read_bytes() == content
    assert digest.digest() == hashlib.sha256(content).digest()


def test_many_at_once(tmp_path: Path) -> None:
    """More files than threads, hashed, at the same time: no block is two files'."""
    disk = Disk()
    contents = [random.Random(n).randbytes(3_000_000) for n in range(12)]

    def store(number: int) -> str:
        file = GrowingFile(disk, os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT, 0o644))
        receive, digest, ended = arriving(contents[number], [400_000, 0, 700_000, 0]), hashlib.sha256(), False
        while not ended:
            _, ended = file.fill(receive, 2**20, digest)
        file.close()
        return digest.hexdigest()

    jobs = [gevent.spawn(store, number) for number in range(12)]
    gevent.joinall(jobs, timeout=60, raise_error=True)
    assert [job.value for job in jobs] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert [(tmp_path / str(number)).read_bytes() for number in range(12)] == contents
    disk.dispose()


@pytest.mark.parametrize("size", [2**20, 10**7])
def test_what_is_fed_fails(file: GrowingFile, size: int) -> None:
    """A hash that cannot go on is a failure of the upload, and nothing waits for ever."""

    class Broken:
        def update(self, data: bytes | memoryview) -> None:
            raise OSError("broken")

    with pytest.raises(StoreError):
        file.fill(arriving(bytes(size), []), size, Broken())


def test_the_end_is_told_from_a_pause(file: GrowingFile) -> None:
    """None is "not yet", 0 is the end; at most what was asked for is taken."""
    receive = arriving(b"abcdef", [2, 0, 2])
    assert file.fill(receive, 100) == (2, False)
    assert file.fill(receive, 1) == (1, False)
    assert file.fill(receive, 100) == (3, True)

"""An answer that is written while its request is read: the spool between the two, and the source in memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
import gevent.event
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import ROOT
from streaming.compression import Gunzip, zstd
from streaming.duplex import Spool, duplex
from streaming.errors import BadRequest, DiskFull, TooLarge
from streaming.pipeline import Limits, Pipeline
from streaming.wire import DUPLEX

BODY = "Straße, ΟΔΥΣΣΕΥΣ, 日本語 🙂, ".encode() * 100
LIMITS = Limits(bytes=2**30, ratio=100)


# The spool


@given(st.lists(st.one_of(st.binary(max_size=12), st.integers(1, 20)), max_size=60))
def test_a_spool_gives_what_it_got(steps: list[bytes | int]) -> None:
    """Any writes and reads in any order, through memory and files: the same bytes in the same order."""
    spool, expected = Spool(memory_bytes=10, file_bytes=16), deque[int]()
    for step in steps:
        if isinstance(step, bytes):
            spool.write(step)
            expected.extend(step)
        elif expected:
            data = spool.read(step)
            assert 1 <= len(data) <= step
            assert data == bytes(expected.popleft() for _ in data)
        assert len(spool) == len(expected)
    spool.close()


def disk_bytes() -> int:
    """What this process holds in files that have no name."""
    fds = [int(fd) for fd in os.listdir("/proc/self/fd")]
    total = 0
    for fd in fds:
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        total += status.st_size if status.st_nlink == 0 else 0
    return total


def test_a_spool_in_use_does_not_grow() -> None:
    """What was read is given back, also when the spool is never empty: or all that passes would stay on the disk."""
    spool = Spool(memory_bytes=1000, file_bytes=10_000)
    before, most = disk_bytes(), 0
    spool.write(b"x" * 20_000)
    for _ in range(500):
        spool.write(b"x" * 1000)
        left = 1000
        while left:
            left -= len(spool.read(left))
        most = max(most, disk_bytes() - before)
    assert len(spool) == 20_000
    assert most <= 20_000 + 2 * 10_000 + 1000
    spool.close()
    assert disk_bytes() == before


def test_an_empty_spool_goes_back_to_memory() -> None:
    """After a burst, no file is left behind."""
    spool = Spool(memory_bytes=10)
    before = disk_bytes()
    spool.write(b"x" * 100)
    assert disk_bytes() > before
    while len(spool):
        spool.read(7)
    assert disk_bytes() == before
    spool.write(b"y")
    assert disk_bytes() == before
    assert spool.read(5) == b"y"
    spool.close()
    spool.close()


def test_a_full_disk_is_no_shorter_answer() -> None:
    """A write that takes only a part, as the last one before a full disk does, is not taken for a whole one."""
    code = """
        import resource
        from streaming.duplex import Spool
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        spool = Spool(memory_bytes=0)
        spool.write(b"a" * 900)
        try:
            spool.write(b"b" * 900)
        except OSError as error:
            print("refused", error.errno)
        else:
            print("took", len(spool))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout.split()[0] == "refused"


def test_a_full_disk_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for what the client does not read, it gets the status for that, as long as it can."""
    # full(4): every write is ENOSPC
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b", buffering=0))  # noqa: SIM115
    monkeypatch.setattr("streaming.duplex.Spool", partial(Spool, memory_bytes=0))
    source = duplex(iter([b"x" * 2**20] * 3), Pipeline(["identity"], LIMITS), {}, 2**28)
    with pytest.raises(DiskFull):
        list(source)


# The source


def answer(
    pieces: Iterator[bytes], names: str = "upper", spool_bytes: int = 2**20, limits: Limits = LIMITS
) -> Iterator[bytes]:
    source = duplex(pieces, Pipeline(names.split(","), limits), {}, spool_bytes)
    return (item.data for item in source if item is not None)


@pytest.mark.parametrize("name", ["upper", "lower", "casefold", "identity"])
@pytest.mark.parametrize("size", [1, 7, 1000, len(BODY)])
def test_the_answer_is_the_body_transformed(name: str, size: int) -> None:
    """Whatever the pieces."""
    pieces = (BODY[at : at + size] for at in range(0, len(BODY), size))
    expected = {"upper": str.upper, "lower": str.lower, "casefold": str.casefold, "identity": str}[name](BODY.decode())
    assert b"".join(answer(pieces, name)) == expected.encode()


def test_an_answer_larger_than_memory() -> None:
    """Through the spool's files, byte for byte."""
    block = os.urandom(2**16).hex().encode()
    assert b"".join(answer(iter([block] * 40))) == block.upper() * 40


def test_beyond_the_bound_the_body_waits_for_the_answer() -> None:
    """Nothing is read ahead of what is taken, beyond the spool's bound and a piece."""
    read = []

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            read.append(True)
            yield b"x" * 1000

    out = answer(pieces(), spool_bytes=5000)
    total = 0
    for data in out:
        total += len(data)
        gevent.sleep(0)
        assert len(read) * 1000 <= total + 5000 + 2 * 1000
    assert total == 100_000


def test_the_answer_begins_before_the_body_ends() -> None:
    """A client that reads while it writes: each piece comes back before the next one is sent."""
    may_go_on = gevent.event.Event()

    def pieces() -> Iterator[bytes]:
        yield b"first"
        may_go_on.wait()
        yield b"second"

    out = answer(pieces())
    with gevent.Timeout(5):
        assert next(out) == b"FIRST"
        may_go_on.set()
        assert b"".join(out) == b"SECOND"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_no_utf_8_is_a_bad_request(at: int) -> None:
    """Wherever it stands, and with the byte's place."""
    pieces = [b"ab", b"cd", b"ef"]
    pieces[at] = b"a\xff"
    with pytest.raises(BadRequest, match=f"^Byte {2 * at + 1} of the body is not UTF-8"):
        list(answer(iter(pieces)))
    with pytest.raises(BadRequest, match=r"^Byte 2 of"):
        list(answer(iter([b"ab\xe2"])))


def test_what_came_before_a_failure_is_given() -> None:
    """Once an answer has begun, all that was right leaves, and then the failure is told."""
    rest = gevent.event.Event()

    def pieces() -> Iterator[bytes]:
        yield b"first,"
        rest.wait()
        yield b"second,"
        yield b"third" * 50_000
        yield b"\xff"

    out = answer(pieces())
    came = [next(out)]
    rest.set()
    with pytest.raises(BadRequest, match=r"^Byte 250013 of"):
        came.extend(out)
    assert b"".join(came) == b"FIRST,SECOND," + b"THIRD" * 50_000


def test_a_bomb_fills_no_spool() -> None:
    """A step at a time is made, and no more than the spool's bound ahead of what is taken."""
    bomb, total, made = gzip.compress(bytes(2**24)), 0, []

    class Counted(Gunzip):
        def decode(self, data: bytes) -> Iterator[bytes]:
            for step in super().decode(data):
                made.append(len(step))
                yield step

    pipeline = Pipeline(["gunzip"], Limits(bytes=2**30, ratio=10_000))
    pipeline._stages[0]._codec = Counted()
    for item in duplex(iter([bomb]), pipeline, {}, 2**18):
        total += len(item.data) if item else 0
        gevent.sleep(0)
        assert sum(made) <= total + 2**18 + 2**16
    assert total == 2**24


def test_a_bomb_is_refused() -> None:
    """Beyond the ratio, with what was made until then and a sentence."""
    sizes: list[int] = []
    with pytest.raises(TooLarge, match="100 bytes out of each"):
        sizes.extend(map(len, answer(iter([gzip.compress(bytes(2**26))]), "gunzip")))
    assert 2**24 <= sum(sizes) < 2**24 + 100 * 2**17


SLOW = {
    "csv-to-ndjson,gzip": b"a,b\n" + b"1,2\n" * 2**17,
    "gunzip,upper,lines": gzip.compress(b"\n" * 2**20),
    "gzip,gunzip,nfc,lower": "Straße, Việt Nam, ΟΔΥΣΣΕΥΣ\n".encode() * 2**15,
    "unzstd": zstd.compress(b"") * 5000,
}


@pytest.mark.parametrize("names", SLOW)
def test_other_work_is_done_beside_a_long_piece(names: str) -> None:
    """One piece that takes long is worked on in slices: another greenlet has its turn every few milliseconds."""
    gaps = []

    def other() -> None:
        while True:
            begun = time.thread_time()  # of this thread: another process's work is none of it
            gevent.sleep(0.0001)
            gaps.append(time.thread_time() - begun)

    greenlet = gevent.spawn(other)
    try:
        for _ in answer(iter([SLOW[names]]), names):
            gevent.sleep(0)
    finally:
        greenlet.kill()
    assert len(gaps) > 2
    assert sorted(gaps)[-2] < 0.05  # 5 ms were measured; one full collection of garbage is let pass


def test_what_a_compressor_holds_back_leaves_when_nothing_comes() -> None:
    """A reader of a live body need not wait for its end, nor for the compressor's window to be full."""
    more, reader = gevent.event.Event(), Gunzip()

    def pieces() -> Iterator[bytes]:
        yield b"first"
        yield b"second"
        more.wait()
        yield b"third"

    came = b""
    with gevent.Timeout(10):
        for data in answer(pieces(), "upper,gzip"):
            came += b"".join(reader.decode(data))
            if came == b"FIRSTSECOND":
                more.set()
    assert came == b"FIRSTSECONDTHIRD"
    assert reader.flush() == b""


def test_each_piece_is_progress() -> None:
    """Whoever watches for clients that are stuck learns when the body came last."""
    environ: dict[str, Any] = {}
    begun = time.monotonic()
    times = [environ[DUPLEX] for _ in duplex(iter([b"a", b"b"]), Pipeline(["upper"], LIMITS), environ, 2**20)]
    assert begun <= times[0] <= times[-1] <= time.monotonic()


def test_what_reading_the_body_raises_is_raised() -> None:
    """The sentence of the body reader is that of the answer."""

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise BadRequest("The body ended before its last chunk.")

    with pytest.raises(BadRequest, match="last chunk"):
        list(answer(pieces()))


def test_close_ends_the_reading() -> None:
    """A client that leaves: the body's reader is closed where it waits, and no file is left open."""
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"a" * 2**21
            gevent.sleep(30)
        finally:
            closed.append(True)

    before = disk_bytes()
    source = duplex(pieces(), Pipeline(["upper"], LIMITS), {}, 2**30)
    assert next(source) is None
    gevent.sleep(0.05)
    source.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert disk_bytes() == before

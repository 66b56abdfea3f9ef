"""gzip and zstd beside the command-line tools: any cuts, several parts, bombs, and what is damaged."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming.compression import STEP_BYTES, Gunzip, Gzip, Unzstd, Zstd, gzipped, zstd
from tests.pieces import CUTS, cut, fed, outcome, same, singly

TEXT = b"".join(b"%d,user%d,user%d@example.org\n" % (n, n, n * n % 977) for n in range(5000))
BODIES = st.one_of(st.binary(max_size=300), st.integers(0, 3000).map(lambda size: TEXT[:size]))
DECODERS = {Gzip: Gunzip, Zstd: Unzstd}
TOOLS = {Gzip: ["gzip", "-dc"], Zstd: ["zstd", "-dcq"]}
BOTH = pytest.mark.parametrize("encoder", [Gzip, Zstd], ids=["gzip", "zstd"])
needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed (Debian: apt install zstd)")


def piped(data: bytes, *command: str) -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=30).stdout


def compressed(encoder: Any, data: bytes) -> bytes:
    """By the field's own library, not by ours."""
    return gzip.compress(data, 6, mtime=0) if encoder is Gzip else zstd.compress(data, 3)


# Compressing


@BOTH
@needs_zstd
def test_the_tool_reads_what_we_write(encoder: Any) -> None:
    """``gzip -d`` and ``zstd -d`` give the body back, whatever its pieces."""
    for pieces in ([TEXT], cut(TEXT, range(0, len(TEXT), 997)), singly(TEXT[:300]), [], [b"", b""]):
        assert piped(fed(encoder(), pieces), *TOOLS[encoder]) == b"".join(pieces)


@given(BODIES)
def test_a_whole_body_comes_back(data: bytes) -> None:
    """The library reads it; nothing in it tells when it was made (RFC 1952, 2.3.1): the same body is the same bytes."""
    made = gzipped(data)
    assert gzip.decompress(made) == data
    assert made[4:8] == bytes(4)


@BOTH
@given(data=BODIES, cuts=CUTS)
def test_any_body_comes_back(encoder: Any, data: bytes, cuts: list[int]) -> None:
    """At any cuts on the way in and on the way back."""
    made = fed(encoder(), cut(data, cuts))
    assert same(DECODERS[encoder], made, cuts) == data
    assert (zlib.decompress(made, 31) if encoder is Gzip else zstd.decompress(made)) == data


@BOTH
def test_the_first_piece_leaves_at_once(encoder: Any) -> None:
    """All of it can be read before anything follows; later pieces are kept together until they are much."""
    codec, reader = encoder(), DECODERS[encoder]()
    assert b"".join(reader.decode(codec.encode(b"first"))) == b"first"
    assert len(codec.encode(b"second")) < 20


@BOTH
def test_what_is_held_back_can_be_let_out(encoder: Any) -> None:
    """After ``sync`` the reader has all that was written, and more can follow."""
    codec, reader = encoder(), DECODERS[encoder]()
    list(reader.decode(codec.encode(b"first")))
    for text in (b"second", b"third"):
        assert b"".join(reader.decode(codec.encode(text) + codec.sync())) == text
    assert b"".join(reader.decode(codec.flush())) == b""
    assert reader.flush() == b""


@BOTH
def test_a_body_of_any_size_takes_the_same_memory(encoder: Any) -> None:
    """A compressor keeps a window and no more."""
    codec, block = encoder(), random.Random(1).randbytes(2**16)
    for _ in range(32):
        codec.encode(block)
    tracemalloc.start()
    for _ in range(200):
        codec.encode(block)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**21


# Decompressing


@needs_zstd
@pytest.mark.parametrize("level", ["-1", "-9", "-19"])
@BOTH
def test_we_read_what_the_tool_writes(encoder: Any, level: str) -> None:
    """Of every level, at any cuts."""
    tool, level = ("gzip", level.replace("-19", "-9")) if encoder is Gzip else ("zstd", level)
    data = piped(TEXT, tool, level, "-c")
    assert same(DECODERS[encoder], data, range(0, len(data), 501)) == TEXT


@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_a_gzip_header_may_hold_anything(flags: int) -> None:
    """RFC 1952, 2.3: extra fields, a name, a comment and a checksum of them all, at every cut. (ISA-L fails here.)"""
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\x03"
    head += struct.pack("<H", 5) + b"extra" if flags & 4 else b""
    head += b"name.txt\0" if flags & 8 else b""
    head += b"a comment\0" if flags & 16 else b""
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
    data = head + gzip.compress(TEXT[:100], 6, mtime=0)[10:]
    for at in range(len(head) + 2):
        assert same(Gunzip, data, [at]) == TEXT[:100]


@BOTH
@given(bodies=st.lists(st.binary(max_size=50), min_size=1, max_size=5), cuts=CUTS)
def test_several_parts_are_one_body(encoder: Any, bodies: list[bytes], cuts: list[int]) -> None:
    """Members (RFC 1952, 2.2) and frames (RFC 8878, 3.1) that follow one another, empty ones too."""
    data = b"".join(compressed(encoder, body) for body in bodies)
    assert same(DECODERS[encoder], data, cuts) == b"".join(bodies)


@given(st.lists(st.one_of(st.binary(max_size=9), st.integers(0, 15)), max_size=6), CUTS)
def test_skippable_frames_give_nothing(parts: list[bytes | int], cuts: list[int]) -> None:
    """RFC 8878, 3.1.2: sixteen magic numbers, a length and anything, before, between and after frames."""
    data, expected = b"", b""
    for part in [*parts, b"last", 3]:
        if isinstance(part, bytes):
            data, expected = data + zstd.compress(part), expected + part
        else:
            data += struct.pack("<II", 0x184D2A50 + part, part) + os.urandom(part)
    assert same(Unzstd, data, cuts) == expected


def test_zeros_behind_a_gzip_member_are_passed_over() -> None:
    """As gzip and Python do: they are what a tape's last block is filled with. Before the first member they are not."""
    member = gzip.compress(b"one", mtime=0)
    assert same(Gunzip, member + bytes(700) + member + bytes(3), [20, 400]) == b"oneone"
    assert "no gzip data" in str(same(Gunzip, bytes(3) + member))


@BOTH
def test_what_follows_and_is_no_part_is_refused(encoder: Any) -> None:
    """Trailing garbage is no part of the body: who sent it meant something else than what we would give."""
    data = compressed(encoder, TEXT)
    for garbage in (b"garbage that is long enough to be looked at", b"<html></html>...", data[8:]):
        found = same(DECODERS[encoder], data + garbage, [len(data), len(data) + 1])
        assert "after 1 whole parts" in str(found)
    assert isinstance(same(DECODERS[encoder], data + b"\x1f"), str)


@BOTH
def test_what_is_cut_off_is_refused(encoder: Any) -> None:
    """At every byte: half a body is never taken for a whole one, also when only its checksum is missing."""
    data = compressed(encoder, TEXT[:1000])
    for end in range(len(data)):
        assert isinstance(outcome(DECODERS[encoder](), [data[:end]]), str), end
    assert same(DECODERS[encoder], data) == TEXT[:1000]


@BOTH
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cuts=CUTS)
def test_what_is_damaged_is_refused_or_right(encoder: Any, at: int, bit: int, cuts: list[int]) -> None:
    """One wrong bit anywhere, at any cuts: the checksum tells, or it stood where nothing depends on it."""
    data = bytearray(fed(encoder(), [TEXT[:600], TEXT[600:1200]]))
    data[at % len(data)] ^= 1 << bit
    assert same(DECODERS[encoder], bytes(data), cuts) == TEXT[:1200] or isinstance(
        outcome(DECODERS[encoder](), [bytes(data)]), str
    )


@BOTH
@given(data=st.binary(max_size=200), cuts=CUTS)
@example(data=b"", cuts=[])
@example(data=b"\x1f\x8b\x08", cuts=[])
@example(data=b"\x28\xb5\x2f\xfd", cuts=[])
def test_any_bytes_are_refused(encoder: Any, data: bytes, cuts: list[int]) -> None:
    """With a sentence, whatever they are."""
    assert isinstance(same(DECODERS[encoder], data, cuts), str)


# Bombs


@BOTH
def test_a_step_gives_little(encoder: Any) -> None:
    """However much a body becomes, no step gives more than 64 KiB, and nothing is made before it is asked for."""
    bomb = compressed(encoder, bytes(2**25))
    assert len(bomb) < 2**25 // 900
    tracemalloc.start()
    decoder, total = DECODERS[encoder](), 0
    for step in decoder.decode(bomb):
        assert len(step) <= STEP_BYTES
        total += len(step)
    assert decoder.flush() == b""
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 2**25
    assert most < 2**20


@BOTH
def test_many_small_parts_are_many_steps(encoder: Any) -> None:
    """Empty parts give nothing, and each is a step all the same: whoever drives it can rest in between."""
    data = compressed(encoder, b"") * 2000
    assert sum(1 for _ in DECODERS[encoder]().decode(data)) >= 2000


def test_a_window_of_more_than_8_mib_is_refused() -> None:
    """RFC 9659: a frame may say that it needs gigabytes of memory, and so does not get them."""
    large: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    small: dict[int, int] = {zstd.CompressionParameter.window_log: 23}
    body = random.Random(1).randbytes(2**20) * 9
    compressor = zstd.ZstdCompressor(options=large)
    assert "memory" in str(outcome(Unzstd(), [compressor.compress(body) + compressor.flush()]))
    compressor = zstd.ZstdCompressor(options=small)
    assert outcome(Unzstd(), [compressor.compress(body) + compressor.flush()]) == body


def test_headers_without_end_take_no_memory() -> None:
    """A name in a gzip header, and a skippable frame of zstd, of any length: they are passed over as they come."""
    name, frame = b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", struct.pack("<II", 0x184D2A50, 2**31)
    for decoder, head in ((Gunzip(), name), (Unzstd(), frame)):
        tracemalloc.start()
        assert b"".join(decoder.decode(head)) == b""
        for _ in range(100):
            assert b"".join(decoder.decode(b"x" * 2**16)) == b""
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2**20

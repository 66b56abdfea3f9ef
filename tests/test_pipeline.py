"""Transforms by name and in a row: what each is, what they make together, and what a bomb may cost."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.compression import zstd
from streaming.errors import TooLarge
from streaming.pipeline import FREE_BYTES, TRANSFORMS, Limits, Pipeline
from tests.pieces import CUTS, cut, singly

LIMITS = Limits(bytes=2**40, ratio=200)
TABLE = "id,name\r\n" + "".join(f'{n},"Grüße, {n}"\r\n' for n in range(200))
OBJECTS = [{"id": str(n), "name": f"Grüße, {n}"} for n in range(200)]


def made(names: Sequence[str], pieces: Sequence[bytes], limits: Limits = LIMITS) -> bytes:
    pipeline = Pipeline(names, limits)
    steps = [step for piece in pieces for step in pipeline.decode(piece)]
    return b"".join([*steps, *pipeline.flush()])


def test_several_in_a_row() -> None:
    """What each of them makes goes into the next: a compressed table comes back as compressed objects."""
    data = gzip.compress(TABLE.encode())
    for pieces in ([data], singly(data), cut(data, range(0, len(data), 37))):
        lines = zstd.decompress(made(["gunzip", "csv-to-ndjson", "zstd"], pieces)).decode().splitlines()
        assert [json.loads(line) for line in lines] == OBJECTS


def test_there_and_back() -> None:
    """Every transform that can be undone, undone."""
    names = ["gzip", "zstd", "unzstd", "gunzip", "csv-to-ndjson", "ndjson-to-csv"]
    rows = list(csv.reader(io.StringIO(made(names, [TABLE.encode()]).decode(), newline="")))
    assert rows == list(csv.reader(io.StringIO(TABLE, newline="")))


@given(
    names=st.lists(st.sampled_from(["upper", "lower", "casefold", "nfc", "lines"]), min_size=1, max_size=4),
    text=st.text(st.sampled_from("aÉéß\u0301ΣΑ'\n ŉ")),
    cuts=CUTS,
)
def test_a_row_is_each_after_the_other(names: list[str], text: str, cuts: list[int]) -> None:
    """The same as one pipeline for each, whole."""
    expected = text.encode()
    for name in names:
        expected = made([name], [expected])
    assert made(names, cut(text.encode(), cuts)) == expected


@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_empty_body(name: str) -> None:
    """Nothing becomes nothing, an empty archive or an empty digest; what must be an archive is refused."""
    if name in ("gunzip", "unzstd"):
        with pytest.raises(ValueError, match="ends before its end"):
            made([name], [])
    else:
        found = made([name], [b""])
        expected = {"gzip": gzip.decompress, "zstd": zstd.decompress}.get(name, bytes)(found)
        assert expected == (hashlib.sha256().hexdigest().encode() + b"  -\n" if name == "sha256" else b"")


@pytest.mark.parametrize(
    ("names", "content_type"),
    [
        ("upper", "text/plain; charset=utf-8"),
        ("gunzip,lines", "text/plain; charset=utf-8"),
        ("csv-to-ndjson", "application/x-ndjson"),
        ("ndjson-to-csv", "text/csv; charset=utf-8; header=present"),  # RFC 7111
        ("csv-to-ndjson,gzip", "application/gzip"),  # RFC 6713
        ("zstd", "application/zstd"),  # RFC 8878
        ("gunzip", "application/octet-stream"),
        ("sha256", "application/octet-stream"),
    ],
)
def test_the_last_one_says_what_it_is(names: str, content_type: str) -> None:
    """The content type, as registered."""
    assert Pipeline(names.split(","), LIMITS).content_type == content_type


@pytest.mark.parametrize(
    ("names", "data", "sentence"),
    [
        ("upper", b"a\xff", "Byte 1 of the body is not UTF-8."),
        ("gunzip,upper", gzip.compress(b"ab\xff", mtime=0), "upper: Byte 2 of the body is not UTF-8."),
        ("gunzip,upper", b"plain text, and no gzip", "gunzip: The body is no gzip data"),
        ("gunzip,csv-to-ndjson", gzip.compress(b"a\n1,2\n", mtime=0), "csv-to-ndjson: Record 2"),
        ("gunzip,upper", gzip.compress(b"abc", mtime=0)[:-1], "gunzip: The gzip data ends before its end."),
        ("upper,lower", b"ab\xe2", "upper: Byte 2 of the body is not UTF-8."),
    ],
)
def test_a_failure_says_whose_it_is(names: str, data: bytes, sentence: str) -> None:
    """In a row, the name of the transform stands before its sentence."""
    for pieces in ([data], singly(data)):
        with pytest.raises(ValueError, match=f"^{sentence[:20]}") as failure:
            made(names.split(","), pieces)
        assert sentence in str(failure.value)


# Bombs


BOMBS = {
    "gunzip": gzip.compress(bytes(2**25)),
    "unzstd": zstd.compress(bytes(2**25)),
    "csv-to-ndjson": b"n" * 1_000_000 + b"\n" + b"x\n" * 4000,
    "ndjson-to-csv": b"{" + b",".join(b'"%d":1' % n for n in range(16_000)) + b"}\n" + b"{}\n" * 60_000,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("pieces", [1, 5])
def test_a_bomb_is_refused_before_it_is_there(name: str, pieces: int) -> None:
    """After 16 MiB and so many bytes of each that came, whatever makes them, and however it is sent."""
    data, limits = BOMBS[name], Limits(bytes=2**40, ratio=10)
    pipeline, sizes = Pipeline([name], limits), list[int]()
    steps = chain.from_iterable(map(pipeline.decode, cut(data, range(0, len(data), len(data) // pieces))))
    with pytest.raises(TooLarge, match=f"^{name} makes more than 10 bytes out of each that came"):
        sizes.extend(map(len, steps))
    assert sum(sizes) <= FREE_BYTES + 10 * len(data)


def test_a_bomb_in_a_row_is_found_where_it_bursts() -> None:
    """What is made in the middle counts, though it is packed again at the end."""
    with pytest.raises(TooLarge, match=r"^gunzip makes more"):
        made(["gunzip", "gzip"], [BOMBS["gunzip"]])
    twice = gzip.compress(BOMBS["gunzip"])
    with pytest.raises(TooLarge, match=r"^gunzip makes more"):
        made(["gunzip", "gunzip", "sha256"], [twice])


def test_there_is_a_most_that_is_made() -> None:
    """Also of a body that is as large as what it becomes."""
    limits = Limits(bytes=100_000, ratio=200)
    assert len(made(["upper"], [b"x" * 100_000], limits)) == 100_000
    with pytest.raises(TooLarge, match=r"^upper makes more than the 100000 bytes"):
        made(["upper"], [b"x" * 60_000, b"x" * 60_000], limits)


def test_what_compresses_well_is_no_bomb() -> None:
    """16 MiB out of almost nothing, and any file that makes less of its bytes than the bound."""
    assert len(made(["gunzip"], [gzip.compress(bytes(FREE_BYTES))])) == FREE_BYTES
    log = "".join(f"2026-11-23 12:00:{n % 60:02d} GET /api/stream 200 {n}\n" for n in range(20_000)).encode() * 20
    assert made(["gunzip"], [gzip.compress(log)]) == log


# Letting out what is held back


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_sync_lets_out_what_came(name: str) -> None:
    """Once for what came since the last, through all that follow; then there is nothing more."""
    pipeline = Pipeline(["upper", name, {"gzip": "gunzip", "zstd": "unzstd"}[name]], LIMITS)
    assert b"".join(pipeline.sync()) == b""
    out = b"".join(pipeline.decode(b"one")) + b"".join(pipeline.decode(b"two"))
    assert out == b"ONE"
    assert b"".join(pipeline.sync()) == b"TWO"
    assert b"".join(pipeline.sync()) == b""
    assert b"".join(pipeline.decode(b"three")) + b"".join(pipeline.flush()) == b"THREE"


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_step_is_bounded(name: str) -> None:
    """A piece of a MiB is many steps, none of them large."""
    body = {"csv-to-ndjson": b"a\n" * 2**17, "ndjson-to-csv": b'{"a":1}\n' * 2**16}.get(name, b"ab\n" * 2**18)
    body = {"gunzip": gzip.compress, "unzstd": zstd.compress}.get(name, bytes)(body)
    sizes = [len(step) for step in Pipeline([name], LIMITS).decode(body)]
    assert len(sizes) >= {"gunzip": 2, "unzstd": 2, "upper": 3, "casefold": 3}.get(name, 6)
    assert max(sizes) <= 2**19


def test_ascii_is_mapped_in_larger_steps() -> None:
    """A megabyte of ASCII is four steps; one letter that is none makes it steps of 64 KiB, which take as long."""
    plain, mixed = b"a" * 2**20, b"a" * (2**20 - 2) + "é".encode()
    assert [len(made) for made in Pipeline(["upper"], LIMITS).decode(plain)] == [2**18] * 4
    assert [len(made) for made in Pipeline(["upper"], LIMITS).decode(mixed)] == [2**16] * 16
    assert b"".join(Pipeline(["upper"], LIMITS).decode(mixed)) == b"A" * (2**20 - 2) + "É".encode()

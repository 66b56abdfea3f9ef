"""Digests of what passes, and their fields: values from RFC 9530, the tus protocol and the algorithms' own texts."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.digests import CHECKSUMS, FIELDS, Digests, parse, wanted, write
from streaming.errors import BadRequest

# RFC 9530, appendix B.1: {"hello": "world"} and a line feed.
CONTENT = b'{"hello": "world"}\n'
SHA_256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_the_digest_of_the_rfc() -> None:
    """The RFC's own content has the RFC's own digest, read and written."""
    digests = Digests(parse(SHA_256, "Content-Digest"), wanted=["sha-256"])
    digests.update(CONTENT)
    assert digests.mismatch() == ""
    assert write({"sha-256": digests.digest("sha-256")}) == SHA_256


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_cuts_change_nothing(content: bytes, cuts: list[int]) -> None:
    """Fed whole or in pieces, as bytes or as a view: the same digests, of every algorithm we know."""
    edges = sorted({0, *(cut for cut in cuts if cut < len(content)), len(content)})
    for known in (FIELDS, CHECKSUMS):
        whole, pieces = Digests(wanted=known, known=known), Digests(wanted=known, known=known)
        whole.update(content)
        for begin, end in itertools.pairwise(edges):
            pieces.update(memoryview(content)[begin:end])
        assert [whole.digest(name) for name in known] == [pieces.digest(name) for name in known]


def test_what_was_changed_is_named() -> None:
    """One wrong digest among right ones is found, and named."""
    right, wrong = hashlib.sha256(b"a").digest(), hashlib.sha512(b"b").digest()
    digests = Digests({"sha-256": right}, {"sha-512": wrong})
    digests.update(b"a")
    assert digests.mismatch() == "sha-512"


def test_two_announcements_of_one_algorithm() -> None:
    """Content-Digest and Repr-Digest may both be there: both are compared."""
    digests = Digests({"sha-256": hashlib.sha256(b"a").digest()}, {"sha-256": hashlib.sha256(b"b").digest()})
    digests.update(b"a")
    assert digests.mismatch() == "sha-256"


def test_a_digest_of_nothing() -> None:
    """Without an announcement nothing is hashed; an empty content has a digest too."""
    assert not Digests()
    assert Digests({"sha-256": hashlib.sha256(b"").digest()}).mismatch() == ""


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("crc32", bytes.fromhex("cbf43926")),  # the check value of CRC-32/ISO-HDLC, of "123456789"
        ("md5", bytes.fromhex("25f9e794323b453885f5181f1b624d0b")),
        ("sha1", bytes.fromhex("f7c3bc1d808e04732adf679965ccc34ca7ae3441")),
    ],
)
def test_checksums_of_tus(name: str, digest: bytes) -> None:
    """Each is what others compute of "123456789"."""
    digests = Digests({name: digest}, known=CHECKSUMS)
    digests.update(b"123456789")
    assert digests.mismatch() == ""


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("", []),
        (SHA_256, ["sha-256"]),
        (f" {SHA_256} ,\tsha-512=:AAAA:;a=1", ["sha-256", "sha-512"]),
        ("md5=:AAAA:, unixsum=:AA==:", []),  # known to nobody here: passed over (RFC 9530, 2)
    ],
)
def test_a_field_is_read(field: str, names: list[str]) -> None:
    """Lists, blanks and parameters of a dictionary of structured fields (RFC 9651, 3.2)."""
    assert list(parse(field, "Content-Digest")) == names


@pytest.mark.parametrize(
    "field", ["sha-256", "sha-256=AAAA", "sha-256=:A:", "sha-256=:AA:", "sha-256=:A?==:", ",", "x y"]
)
def test_a_field_that_cannot_be_read(field: str) -> None:
    """Whoever announces a digest wants it compared: a 400 that names the field."""
    with pytest.raises(BadRequest) as refused:
        parse(field, "Content-Digest")
    assert refused.value.parameter == "Content-Digest"


@pytest.mark.parametrize(
    ("field", "algorithm"),
    [
        ("", ""),
        ("sha-256=1", "sha-256"),
        ("sha-512=3, sha-256=10, unixsum=9", "sha-256"),  # RFC 9530, 4
        ("sha-256=0", ""),
        ("md5=10", ""),
    ],
)
def test_what_is_wanted(field: str, algorithm: str) -> None:
    """The greatest weight of those we know; 0 is "not that one"."""
    assert wanted(field, "Want-Repr-Digest") == algorithm


@pytest.mark.parametrize("field", ["sha-256", "sha-256=11", "sha-256=-1", "sha-256=a"])
def test_what_cannot_be_wanted(field: str) -> None:
    """Weights are from 0 to 10."""
    with pytest.raises(BadRequest):
        wanted(field, "Want-Repr-Digest")


def test_base64_is_what_it_says() -> None:
    """A digest is written in the alphabet of RFC 4648, 4, with its padding."""
    assert base64.b64encode(bytes(range(250, 256))).decode() in write({"sha-256": bytes(range(250, 256))})

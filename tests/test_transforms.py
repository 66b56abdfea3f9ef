"""Transforms of a text cut anywhere give what Python's own mapping, ``cat -n`` and ``sha256sum`` give of the whole."""

from __future__ import annotations

import subprocess
import time
import unicodedata
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streaming.pipeline import TRANSFORMS
from streaming.transforms import Digest, Lower, Numbered
from tests.pieces import CUTS, cut, fed, same, singly

WHOLE: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "casefold": str.casefold,
    "identity": str,
}
# Letters around a sigma, what is passed over beside it (case-ignorable), what ends a word, and what grows.
TRICKY = "ΣσςΑAaß İŉǰﬁΐ1 .':·\u00ad\u0301\u0345\u02b0\u2019^`_\n日🙂Ⅷⓐ\U0001d400"
TEXTS = st.one_of(st.text(st.sampled_from(TRICKY)), st.text(st.characters(exclude_categories=["Cs"])))
SIGMAS = [
    "ΟΔΥΣΣΕΥΣ",
    "ΑΣ ΑΣ. ΑΣ, Σ Σ",
    "ΑΣ'",
    "ΑΣ'Α",
    "ΑΣ.Σ.Σ",
    "'Σ",
    "Α'Σ'",
    "Α'Σ'1",
    "Α1Σ",
    "ΑΣ\u0301\u0345Α",
    "aΣ\u00ad\u00adb",
    "ΣΣΣ",
    "ʰΣ",
    "AʰΣʰ",
    "Σ\u0345Σ\u0345",
    "ⅧΣ",
    "日Σ",
    "🙂ΑΣ🙂",
]


def run(name: str, pieces: Iterable[bytes]) -> bytes:
    return fed(TRANSFORMS[name].make(), pieces)


@pytest.mark.parametrize("name", WHOLE)
@given(text=TEXTS, cuts=CUTS)
def test_any_text_at_any_cuts(name: str, text: str, cuts: list[int]) -> None:
    """Whole, byte by byte and at random cuts: the same bytes as the mapping of the whole text."""
    assert same(TRANSFORMS[name].make, text.encode(), cuts) == WHOLE[name](text).encode()


@pytest.mark.parametrize("text", SIGMAS)
def test_a_final_sigma_is_right_at_every_cut(text: str) -> None:
    """Unicode, 3.13, Final_Sigma: what decides between ς and σ may come in another piece, before or after it."""
    data, expected = text.encode(), text.lower().encode()
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert run("lower", [data[:first], data[first:second], data[second:]]) == expected


@given(st.lists(st.text(st.sampled_from("ΣΑA'.\u0301 1"), max_size=4), max_size=8))
def test_final_sigma_between_any_pieces(pieces: list[str]) -> None:
    """Sigmas, letters, ignorable characters and word ends, in every order and cut everywhere."""
    assert run("lower", map(str.encode, pieces)) == "".join(pieces).lower().encode()


def test_every_character_beside_a_sigma() -> None:
    """For each character of Unicode: before and after a sigma, cut on both sides, and with a letter beyond it."""
    every = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) not in ("Cs", "Cn", "Co", "Lo", "So")]
    assert len(every) > 10_000
    for character in every:
        text = f"Α{character}Σ{character} {character}Σ{character}Α "
        pieces = [each.encode() for each in text]
        assert run("lower", pieces) == text.lower().encode(), hex(ord(character))


# What is no UTF-8 (RFC 3629; Unicode, table 3-7): the bytes, and which of them cannot be.
INVALID = [
    (b"\x80", 0),  # a continuation without a start
    (b"\xc0\xaf", 0),  # overlong
    (b"\xe0\x80\x80", 0),
    (b"\xed\xa0\x80", 0),  # a surrogate
    (b"\xf4\x90\x80\x80", 0),  # beyond U+10FFFF
    (b"\xf8\x88\x80\x80\x80", 0),
    (b"\xff", 0),
    (b"\xe2\x82x", 0),  # broken off by another character
    (b"\xe2\x82", 0),  # broken off by the end
    (b"\xf0\x9f\x99", 0),
    (b"\xc3", 0),
]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("before", ["", "abc", "aß日🙂Σ'"])
@pytest.mark.parametrize(("bad", "at"), INVALID)
def test_what_is_no_utf_8_is_named(name: str, before: str, bad: bytes, at: int) -> None:
    """At every place and every cut, the sentence names the first byte, from 0, that is not UTF-8."""
    data = before.encode() + bad
    sentence = f"Byte {len(before.encode()) + at} of the body is not UTF-8."
    for first in range(len(data) + 1):
        with pytest.raises(ValueError, match=sentence):
            run(name, [data[:first], data[first:]])
    with pytest.raises(ValueError, match=sentence):
        run(name, singly(data))


@given(st.binary(max_size=40), st.lists(st.integers(0, 50), max_size=4))
@example(b"a\xe2\x82\xacb\xe2\x82", [2])
def test_any_bytes_are_right_or_refused(data: bytes, cuts: list[int]) -> None:
    """Bytes of any kind come out as the whole text would, or fail at the place that Python names for the whole."""
    try:
        expected = data.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(ValueError, match=f"^Byte {error.start} of"):
            run("lower", cut(data, cuts))
    else:
        assert run("lower", cut(data, cuts)) == expected.lower().encode()


# Time and memory


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_held_back_without_need(name: str) -> None:
    """What is decided leaves with the piece that decides it: only a begun character or a sigma stays."""
    codec = TRANSFORMS[name].make()
    assert codec.encode("aé".encode()) == WHOLE[name]("aé").encode()
    assert codec.encode("日".encode()[:2]) == b""
    assert codec.encode("日".encode()[2:]) == "日".encode()
    assert codec.encode(b"x.'") == WHOLE[name]("x.'").encode()


def test_only_the_last_sigma_waits() -> None:
    """An undecided sigma holds back itself and what follows it, and not what stood before."""
    codec = Lower()
    assert codec.encode("ΑΣΑΣ'".encode()) == "ασα".encode()
    assert codec.encode(b" ") == "ς' ".encode()


def test_what_decides_nothing_is_not_held_for_ever() -> None:
    """A sigma before endless apostrophes is given up with a sentence, before it takes memory."""
    codec = Lower()
    codec.encode("ΑΣ".encode())
    with pytest.raises(ValueError, match="sigma"):
        any(codec.encode(b"'" * 4096) for _ in range(1024))


def test_what_is_held_is_not_looked_at_again() -> None:
    """Pieces of one byte behind an undecided sigma: each costs the same, or one small request would hold a worker."""
    codec = Lower()
    codec.encode("ΑΣ".encode() + b"'" * 50_000)
    begun = time.thread_time()
    for _ in range(1000):
        codec.encode(b"'")
    # Looking at 50,000 characters in each of the 1,000 took 3 s.
    assert time.thread_time() - begun < 0.5


@pytest.mark.parametrize("text", ["'" * 2**18, "é" + "." * 2**18, "\u0301" * 2**17], ids=["ascii", "dots", "accents"])
def test_a_block_without_letters_is_fast(text: str) -> None:
    """A block of 256 KiB is one step, in which no other stream runs: also one in which nothing decides anything."""
    data = text.encode()
    times = []
    for _ in range(3):
        codec = Lower()
        begun = time.thread_time()
        assert codec.encode(data) == text.lower().encode()
        times.append(time.thread_time() - begun)
    assert min(times) < 0.012


# Line numbers and digests: the command-line tools know


def piped(data: bytes, *command: str) -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=30).stdout


LINES = ["", "\n", "a", "a\n", "\n\na", "a\n\nb\n\n", "grüße\r\nfluss\r\n", "a\rb\n", "\t\n \n", "x\u2028y\u0085z\n"]


@pytest.mark.parametrize("text", LINES)
def test_lines_are_numbered_as_cat_does(text: str) -> None:
    """``cat -n``: an LF ends a line and nothing else does, an empty line has its number, a last one without LF too."""
    expected = piped(text.encode(), "cat", "-n")
    for at in range(len(text.encode()) + 1):
        assert same(Numbered, text.encode(), [at]) == expected


@settings(max_examples=30)
@given(text=st.text(st.sampled_from("a\n\r é"), max_size=60), cuts=CUTS)
def test_any_lines_are_numbered_as_cat_does(text: str, cuts: list[int]) -> None:
    """Whatever the lines and the cuts."""
    assert same(Numbered, text.encode(), cuts) == piped(text.encode(), "cat", "-n")


def test_numbers_grow_beyond_their_width() -> None:
    """The millionth line pushes its text to the right, as in ``cat -n``; and lines across blocks count on."""
    block = b"\n" * 1_000_001
    assert fed(Numbered(), cut(block, range(0, len(block), 30_011))) == piped(block, "cat", "-n")


@settings(max_examples=30)
@given(data=st.binary(max_size=200), cuts=CUTS)
def test_a_digest_follows_any_body(data: bytes, cuts: list[int]) -> None:
    """The body, an LF where it has none at its end, and the line that ``sha256sum`` prints of the body."""
    gap = b"" if data.endswith(b"\n") or not data else b"\n"
    assert same(Digest, data, cuts) == data + gap + piped(data, "sha256sum")


def test_a_digest_can_be_checked_with_the_tools() -> None:
    """``head -n -1 | sha256sum`` is the last line again, for a text that ends with LF."""
    answer = fed(Digest(), [b"grow\n", b"river\n"])
    assert piped(piped(answer, "head", "-n", "-1"), "sha256sum") == answer.splitlines(keepends=True)[-1]

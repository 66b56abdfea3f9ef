"""NFC of a text cut anywhere is that of the whole, and a run of marks without end takes no memory without end."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.normal_form import JOINER, NFC, RUN_MARKS
from tests.pieces import CUTS, fed, same

# Letters and marks of several classes that are composed in any order, what is composed of starters alone (Hangul,
# Bengali, Chakma, Tamil), what may never be composed, marks that are two, and what decomposes to more than one letter.
TRICKY = (
    "aAeéêȩ ễΐ\n1=日🙂ﬁﷺÅΩ"
    "\u0301\u0302\u0303\u0323\u0327\u0338\u0345\u034f\u0344\u0f71\u0f73\u0f74\u0fb2\u3099かﾞ"
    "\u1100\u1161\u11a8가각\u09c7\u09be\u09d7\u1025\u102e\u0bc6\u0bbe\u0dd9\u0dcf\u0dca"
    "\u05e9\u05bc\u05c1שּׁ\ufb1d\u0915\u093c\u0958"
    "\U00011131\U00011127\U00011099\U000110ba\U0001d157\U0001d165"
)
TEXTS = st.one_of(st.text(st.sampled_from(TRICKY)), st.text(st.characters(exclude_categories=["Cs"])))
# The conformance cases of UAX #15: table 4 (singletons, composites, multiple marks), Hangul, and its section on the
# order of marks.
CASES = {
    "\u212b": "\u00c5",
    "\u2126": "\u03a9",
    "A\u030a": "\u00c5",
    "o\u0302": "\u00f4",
    "s\u0323\u0307": "\u1e69",
    "\u1e0b\u0323": "\u1e0d\u0307",
    "q\u0307\u0323": "q\u0323\u0307",
    "\ufb01": "\ufb01",
    "\u1112\u1161\u11ab": "한",
    "\u0958": "\u0915\u093c",
    "\u00e9\u0327": "\u0229\u0301",
}


def stream_safe(text: str) -> str:
    """The Stream-Safe Text Process, step by step as UAX #15 has it under D4, over the whole text."""
    out, count = [], 0
    for character in text:
        marks = [unicodedata.combining(each) != 0 for each in unicodedata.normalize("NFKD", character)]
        initial = marks.index(False) if False in marks else len(marks)
        if count + initial > 30:
            out.append("\u034f")
            count = 0
        out.append(character)
        count = marks[::-1].index(False) if False in marks else count + len(marks)
    return "".join(out)


@given(text=TEXTS, cuts=CUTS)
def test_any_text_at_any_cuts(text: str, cuts: list[int]) -> None:
    """Whole, byte by byte and at random cuts: what Python makes of the whole."""
    assert same(NFC, text.encode(), cuts) == unicodedata.normalize("NFC", stream_safe(text)).encode()


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=lambda text: text.encode("unicode_escape").decode())
def test_the_cases_of_the_standard(text: str, expected: str) -> None:
    """UAX #15, at every cut."""
    for at in range(len(text.encode())):
        assert same(NFC, text.encode(), [at]) == expected.encode()


@given(
    st.lists(st.tuples(st.sampled_from(["a", "é", "\u0344", "\u0f73", "ﾞ", "\u0301", "ﷺ"]), st.integers(0, 40))), CUTS
)
def test_runs_of_marks_are_made_stream_safe(runs: list[tuple[str, int]], cuts: list[int]) -> None:
    """Marks beyond the thirtieth, counted as the standard counts them, get a joiner before them, at every cut."""
    text = "".join(character * count for character, count in runs)
    assert same(NFC, text.encode(), cuts) == unicodedata.normalize("NFC", stream_safe(text)).encode()


def test_thirty_marks_are_as_they_were() -> None:
    """The bound changes no text that is stream-safe already; one more mark, and there is a joiner before it."""
    text = "q" + "\u0323" * RUN_MARKS
    assert fed(NFC(), [text.encode()]).decode() == text
    assert fed(NFC(), [(text + "\u0323").encode()]).decode() == text + JOINER + "\u0323"


@pytest.mark.parametrize("character", ["\u0301", "\u1161", "\u09be", "ﾞ", "\U000110ba"])
def test_what_could_go_on_for_ever_is_not_held(character: str) -> None:
    """A MiB of marks, or of vowels that would be composed with a consonant, leaves as it comes."""
    codec = NFC()
    came = codec.encode(("가q" + character * 2000).encode())
    for _ in range(100):
        came += codec.encode((character * 2000).encode())
    total = len(character.encode()) * 202_000
    assert len(came) > total - 200
    assert sys.getsizeof(codec._held) < 1000


@pytest.mark.parametrize("text", ["a line\n", "日本語。", "1 ", "각", "я", "🙂"])
def test_what_is_decided_leaves_at_once(text: str) -> None:
    """A line end, a digit, a sign, a syllable that is full: nothing is ever composed with it, so it does not wait."""
    assert NFC().encode(text.encode()) == text.encode()


@pytest.mark.parametrize("text", ["cafe", "가", "ᄀ", "é", "="])
def test_what_may_still_be_composed_waits(text: str) -> None:
    """The last letter waits, and no other."""
    codec = NFC()
    assert codec.encode(text.encode()) == text[:-1].encode()
    assert codec.flush() == text[-1].encode()


def test_every_letter_that_takes_a_mark_waits_for_it() -> None:
    """For each composition that Unicode has: the first half, a cut, the second one."""
    pairs = [unicodedata.decomposition(chr(code)).split() for code in range(0x110000)]
    texts = {chr(int(pair[0], 16)) + chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<"}
    assert len(texts) > 900
    for text in texts:
        assert fed(NFC(), [each.encode() for each in text]).decode() == unicodedata.normalize("NFC", text), ascii(text)


@pytest.mark.parametrize("bad", [b"\xff", b"e\xcc", b"\xed\xa0\x80"])
def test_what_is_no_utf_8_is_named(bad: bytes) -> None:
    """By the place of its byte, whatever the cuts."""
    at = 3 if bad[0] > 0x7F else 4
    assert same(NFC, b"e\xcc\x81" + bad, [2, 4]) == f"Byte {at} of the body is not UTF-8."


@pytest.mark.parametrize(
    "text", ["e\u0301" * 2**14, "\u0301" * 2**14, "\u1161" * 2**13, "—" * 2**13, "ﾞ" * 2**13, "abc " * 2**13]
)
def test_no_text_is_slow(text: str) -> None:
    """A slice of 32 KiB is one step, in which no other stream runs."""
    data = text.encode()[: 32 * 1024]
    times = []
    for _ in range(3):
        codec = NFC()
        begun = time.thread_time()
        codec.encode(data)
        times.append(time.thread_time() - begun)
    assert min(times) < 0.05

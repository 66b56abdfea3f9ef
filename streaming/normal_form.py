"""Normalisation Form C (UAX #15), piece by piece.

Rules:
- A character waits until nothing that follows can change it: in a text that is normalised so far, that is all before
  its last starter. Also that one leaves when nothing can be composed with it: a line end, a space, a digit.
- Without end, marks could pile up on one letter. As the Stream-Safe Text Format has it (UAX #15, 13), a combining
  grapheme joiner is put in before the 31st: that is where a run is cut, and so the only difference to the whole text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

from streaming.utf8 import Utf8

RUN_MARKS = 30
JOINER = "\u034f"


class NFC:
    def __init__(self) -> None:
        self._decoder = Utf8()
        self._safe = StreamSafe()
        self._held = ""

    def encode(self, data: bytes) -> bytes:
        text = unicodedata.normalize("NFC", self._held + self._safe.encode(self._decoder.decode(data)))
        cut = _decided(text)
        self._held = text[cut:]
        return text[:cut].encode()

    def flush(self) -> bytes:
        self._decoder.flush()
        return self._held.encode()


def _decided(text: str) -> int:
    """Return how much of a normalised ``text`` no continuation changes."""
    at = len(text) - 1
    while at >= 0 and unicodedata.combining(text[at]):
        at -= 1
    # A starter that was not composed with what is before it never will be; what follows is composed with it.
    return len(text) if at == len(text) - 1 and at >= 0 and not _composes(text[at]) else max(at, 0)


def _composes(starter: str) -> bool:
    """Whether something that follows could be composed with ``starter``, or with what it is composed of."""
    code = ord(starter)
    if 0xAC00 <= code <= 0xD7A3:
        return (code - 0xAC00) % 28 == 0  # a Hangul syllable takes a final consonant when it has none
    leading = 0x1100 <= code <= 0x1112  # and a leading consonant a vowel
    # A mark of a lower class goes before that of é: e with acute and cedilla is ȩ with acute.
    return leading or starter in _firsts() or unicodedata.normalize("NFD", starter) != starter


@cache
def _firsts() -> frozenset[str]:
    """The first halves of all compositions. They lie in these ranges; looking at every character took 100 ms."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in (*range(0xC0, 0x3100), *range(0x11000, 0x12000)))
    return frozenset(chr(int(pair[0], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<")


class StreamSafe:
    """The Stream-Safe Text Process (UAX #15, D4): a joiner before each mark that makes a run of more than 30."""

    # A character adds 3 at most, so a run that is too long has a row of characters that are marks and nothing else.
    _ROW = 6
    # All of them are in this class, but two halfwidth voice marks, and other signs are too: then each is looked at.
    _row = re.compile(r"[^\w\x00-\x7f]" * _ROW)

    def __init__(self) -> None:
        self._before = ""
        self._run = 0

    def encode(self, text: str) -> str:
        seen = self._before + text
        self._before = seen[-self._ROW :]
        if self._may_have_row(seen):
            return self._marked(text)
        # The run at its end begins after a starter that is still in view.
        self._run = 0
        self._marked(self._before)
        return text

    def _may_have_row(self, text: str) -> bool:
        # A row has a character at every sixth place: so most texts are seen to have none at 6 times the speed.
        if text.isascii() or all(_marks(each)[2] for each in set(text[:: self._ROW])):
            return False
        return bool(self._row.search(text)) or "\uff9e" in text or "\uff9f" in text

    def _marked(self, text: str) -> str:
        out = []
        for character in text:
            initial, final, starters = _marks(character)
            if self._run + initial > RUN_MARKS:
                out.append(JOINER)
                self._run = 0
            out.append(character)
            self._run = final if starters else self._run + final
        return "".join(out)


@lru_cache(maxsize=4096)
def _marks(character: str) -> tuple[int, int, bool]:
    """How many non-starters the NFKD of ``character`` begins and ends with, and whether it has a starter."""
    marks = [unicodedata.combining(each) > 0 for each in unicodedata.normalize("NFKD", character)]
    starters = not all(marks)
    initial = marks.index(False) if starters else len(marks)
    final = marks[::-1].index(False) if starters else len(marks)
    return initial, final, starters

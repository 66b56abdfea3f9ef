"""Transforms of a text, piece by piece: ``encode(bytes) -> bytes`` and ``flush() -> bytes``.

Rules:
- Pure codecs: the pieces may be cut anywhere, inside a character too, and the joined output is the same.
- What is no UTF-8 raises ValueError with a sentence that says where.
- What is decided leaves at once; what is held back is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from streaming.utf8 import Utf8


class CaseMap:
    """A mapping of every character on its own: ``str.upper`` and ``str.casefold`` look at no neighbour."""

    def __init__(self, convert: Callable[[str], str], convert_ascii: Callable[[bytes], bytes]) -> None:
        self._convert = convert
        self._convert_ascii = convert_ascii
        self._decoder = Utf8()

    def encode(self, data: bytes) -> bytes:
        # bytes.upper runs at 2.4 GB/s, decoding and encoding at 0.1.
        if self._decoder.passes(data):
            return self._convert_ascii(data)
        return self._convert(self._decoder.decode(data)).encode()

    def flush(self) -> bytes:
        self._decoder.flush()
        return b""


class Lower:
    """``str.lower``, which writes a capital sigma as ς at the end of a word and as σ elsewhere.

    The rule (Unicode, 3.13, Final_Sigma) looks over any number of case-ignorable characters to both sides: there must
    be a cased letter before the sigma and none after it. So of what came before, one bit is kept, and a sigma with
    nothing but ignorable characters behind it is held back until something decides it.
    """

    # A text of one sigma and a megabyte of apostrophes is no text.
    HELD_CHARACTERS = 2**16

    def __init__(self) -> None:
        self._decoder = Utf8()
        self._after_cased = False
        self._held = ""

    def encode(self, data: bytes) -> bytes:
        if not self._held and self._decoder.passes(data):
            self._after_cased = _ends_cased(data.decode("ascii"), self._after_cased)
            return data.lower()
        new = self._decoder.decode(data)
        if self._held and _kind(new) == "ignorable":
            # Nothing is decided. What is held is not looked at again: a MiB of it, byte by byte, took hours.
            done, self._held = "", self._held + new
        else:
            text = self._held + new
            cut = _undecided_at(text)
            done, self._held = text[:cut], text[cut:]
        if len(self._held) > self.HELD_CHARACTERS:
            raise ValueError(f"More than {self.HELD_CHARACTERS} characters do not decide the form of a sigma.")
        # What is held begins with a sigma, a cased letter; an A in its place decides an earlier one in the same way.
        return self._lower(done, "A" if self._held else "").encode()

    def flush(self) -> bytes:
        self._decoder.flush()
        return self._lower(self._held, "").encode()

    def _lower(self, text: str, follower: str) -> str:
        leader = "A" if self._after_cased else ""
        lowered = (leader + text + follower).lower()
        self._after_cased = _ends_cased(text, self._after_cased)
        return lowered[len(leader) : len(lowered) - len(follower)]


def _undecided_at(text: str) -> int:
    """Return where the last sigma stands, if only case-ignorable characters follow it; else the length."""
    at = text.rfind("Σ")
    return at if at >= 0 and _kind(text[at + 1 :]) == "ignorable" else len(text)


# Python does not tell the two properties, so these ask ``str.lower`` itself how it sees a text beside a sigma: of the
# near end first, and of all of it only where that decides nothing. (A loop over 256 KiB of dots took 14 ms.)
_NEAR = 64


def _ends_cased(text: str, before: bool) -> bool:
    """Whether the last character of ``text`` that is not case-ignorable is cased; ``before`` when there is none."""
    for part in (text[-_NEAR:], text):
        if (part + "Σ").lower()[-1] == "ς":
            return True
        if ("A" + part + "Σ").lower()[-1] == "σ":
            return False
    return before


def _kind(text: str) -> str:
    """Whether the first character of ``text`` that is not case-ignorable is "cased" or "other"; else "ignorable"."""
    for part in (text[:_NEAR], text):
        if ("AΣ" + part).lower()[1] == "σ":
            return "cased"
        if ("AΣ" + part + "A").lower()[1] == "ς":
            return "other"
    return "ignorable"


class Identity:
    """The body as it is, which must be UTF-8 all the same."""

    def __init__(self) -> None:
        self._decoder = Utf8()

    def encode(self, data: bytes) -> bytes:
        return data if self._decoder.passes(data) else self._decoder.decode(data).encode()

    def flush(self) -> bytes:
        self._decoder.flush()
        return b""


class Numbered:
    """Every line with its number before it, as ``cat -n`` writes it; LF ends a line."""

    def __init__(self) -> None:
        self._text = Identity()
        self._number = 0
        self._begun = False

    def encode(self, data: bytes) -> bytes:
        *ended, rest = self._text.encode(data).split(b"\n")
        out = []
        if self._begun and ended:
            out.append(ended.pop(0) + b"\n")
            self._begun = False
        out += [b"%6d\t%b\n" % pair for pair in enumerate(ended, self._number + 1)]
        self._number += len(ended)
        if rest and not self._begun:
            self._begun = True
            self._number += 1
            rest = b"%6d\t%b" % (self._number, rest)
        return b"".join(out) + rest

    def flush(self) -> bytes:
        return self._text.flush()


class Digest:
    """The body as it is, of any bytes, and at its end a line with its SHA-256, as ``sha256sum`` writes it.

    Where the body does not end with LF, one is put between the two; it does not count.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = b""

    def encode(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._last = data[-1:] or self._last
        return data

    def flush(self) -> bytes:
        line = self._hash.hexdigest().encode() + b"  -\n"
        return line if self._last in (b"", b"\n") else b"\n" + line

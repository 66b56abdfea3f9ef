"""The offsets of a stream: the number of an event, and the life of the stream that gave it out.

Rules:
- They sort as text in the order of the events: the number comes first, with leading zeros.
- The life is drawn anew when a stream comes into being, so an offset from a stream that was deleted, or from another
  server's store, is recognised and never taken for a place in this one.
- A fork goes on counting where its source was left, in a life of its own: what it inherited keeps the source's
  offsets, and what the source appends later is no place in the fork.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stores.base import START
from stores.errors import UnknownOffset

_DIGITS = 12
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_OFFSET = re.compile(rf"([0-9]{{{_DIGITS}}})-([{_ALPHABET}]{{6}})")


class Link(NamedTuple):
    """A stream in a chain of forks: it holds the events after number ``base`` itself, those before are its source's."""

    stream: int
    life: str
    base: int


class Segment(NamedTuple):
    """The events after number ``after`` up to ``upto``, which are held by one stream of the chain."""

    stream: int
    life: str
    after: int
    upto: int


def new_life() -> str:
    # One draw of the system's random bytes, not six.
    return "".join(_ALPHABET[byte % 32] for byte in secrets.token_bytes(6))


def write(number: int, life: str) -> str:
    return f"{number:0{_DIGITS}d}-{life}"


def segments(links: Iterable[Link], tail: int) -> list[Segment]:
    """Return who holds which events up to ``tail``, in their order; ``links`` begins with the fork itself."""
    found = []
    for link in links:
        if tail > link.base:
            found.append(Segment(link.stream, link.life, link.base, tail))
            tail = link.base
    return found[::-1]


def of_number(number: int, chain: Sequence[Segment]) -> str:
    """Return the offset of event ``number``; 0 is START."""
    if chain and chain[-1].after < number == chain[-1].upto:  # the tail, which is asked for most
        return write(number, chain[-1].life)
    life = next((each.life for each in chain if each.after < number <= each.upto), "")
    return write(number, life) if number else START


def to_number(offset: str, chain: Sequence[Segment]) -> int:
    """Return the number in ``offset``; START is 0. Raises UnknownOffset when this chain never gave it out."""
    if offset == START:
        return 0
    if match := _OFFSET.fullmatch(offset):
        number = int(match[1])
        if any(each.life == match[2] and each.after < number <= each.upto for each in chain):
            return number
    raise UnknownOffset(f"{offset[:40]!r} is no offset of this stream.")

"""The offsets of a log: the number of an event, and the life of the log that gave it out.

Rules:
- They sort as text in the order of the events: the number comes first, with leading zeros.
- The life is drawn anew when a log comes into being, so an offset from a log that was deleted, or from another
  server's store, is recognised and never taken for a place in this one.
"""

from __future__ import annotations

import re
import secrets

from stores.base import START, UnknownOffset

_DIGITS = 12
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_life() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(6))


def write(number: int, life: str) -> str:
    return f"{number:0{_DIGITS}d}-{life}"


def read(offset: str, life: str, tail: int) -> int:
    """Return the number in ``offset``; START is 0. Raises UnknownOffset when this life never gave it out."""
    if offset == START:
        return 0
    match = re.fullmatch(rf"([0-9]{{{_DIGITS}}})-{life}", offset)
    if match is None or int(match[1]) > tail:
        raise UnknownOffset(f"{offset[:40]!r} is no offset of this log.")
    return int(match[1])

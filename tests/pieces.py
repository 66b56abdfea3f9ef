"""Bytes cut in every way, and a codec fed with them: whole, one by one, at random cuts.

Rules:
- What comes out must not depend on where the bytes were cut, and neither must what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hypothesis import strategies as st

CUTS = st.lists(st.integers(0, 10**6), max_size=8)


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The bytes in pieces, some of them empty."""
    places = sorted(each % (len(data) + 1) for each in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def singly(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def fed(codec: Any, pieces: Iterable[bytes]) -> bytes:
    """All that a codec makes of the pieces: one that encodes, or one that decodes in steps."""
    out = bytearray()
    for piece in pieces:
        if hasattr(codec, "decode"):
            for step in codec.decode(piece):
                out += step
        else:
            out += codec.encode(piece)
    return bytes(out) + codec.flush()


def outcome(codec: Any, pieces: Iterable[bytes]) -> bytes | str:
    """What it makes, or the sentence with which it refuses."""
    try:
        return fed(codec, pieces)
    except ValueError as error:
        return str(error)


def every_way(make: Callable[[], Any], data: bytes, cuts: Iterable[int] = ()) -> Iterator[bytes | str]:
    """The outcome of the whole, of single bytes, and of the pieces between the cuts."""
    for pieces in ([data], singly(data), cut(data, cuts)):
        yield outcome(make(), pieces)


def same(make: Callable[[], Any], data: bytes, cuts: Iterable[int] = ()) -> bytes | str:
    """The outcome, which must be the same in every way."""
    first, *others = every_way(make, data, cuts)
    assert others == [first] * len(others)
    return first

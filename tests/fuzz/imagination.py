"""A parser fed by Hypothesis: with its own words in any order, and with bytes of any kind between them.

Rules:
- What is found is made small, and told as the input itself: it replays.
"""

from __future__ import annotations

import re
import time

import hypothesis
from hypothesis import strategies as st

from tests.fuzz.parsers import Parser

_ROUND = 300


class Found(AssertionError):
    """An input of a parser, and what it raised."""

    def __init__(self, name: str, data: bytes, error: BaseException) -> None:
        super().__init__(
            f"{name}: {type(error).__name__}: {str(error)[:500]}\n"
            f"the input: {data!r}\nagain: python -m tests.fuzz --replay '{name}' {data.hex() or '-'}"
        )
        self.data = data


def inputs(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Bytes that resemble ``seeds``, more or less."""
    words = sorted({word for seed in seeds for word in re.findall(rb"(?s)[A-Za-z0-9]+|.", seed)} | set(seeds))
    word = st.one_of(st.sampled_from(words), st.sampled_from(words), st.binary(max_size=6))
    return st.one_of(st.lists(word, max_size=24).map(b"".join), st.binary(max_size=64))


def imagine(name: str, parser: Parser, seconds: float, least: int = 1) -> int:
    """Feed it for so long, and with ``least`` inputs; return how many there were. Raises Found."""
    fed = [0]
    last = [b""]

    @hypothesis.settings(
        max_examples=min(_ROUND, least) if not seconds else _ROUND,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(inputs(parser.seeds))
    def run(data: bytes) -> None:
        fed[0] += 1
        last[0] = data
        parser.feed(data)

    until = time.monotonic() + seconds
    try:
        for last[0] in parser.seeds:
            parser.feed(last[0])
        while fed[0] < least or time.monotonic() < until:
            run()
    except Exception as error:
        raise Found(name, last[0], error) from error  # the smallest is run last
    return fed[0]

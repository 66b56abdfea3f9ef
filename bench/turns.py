"""Ways to do one thing, measured in turn, so that a machine that changes its speed changes all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# So many pairs have a middle half that says more than their extremes.
MANY = 10


def in_turn(
    ways: Mapping[str, Callable[[], float]], runs: int, after: Callable[[], None] = lambda: None, warm: bool = True
) -> dict[str, list[float]]:
    """Return what each way returned, ``runs`` times: A B C, then C B A. ``after`` each of them something is cleared.

    With ``warm`` a first round is not kept: files come into the cache, connections into the pool.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1 if warm else 0, runs):
        order = list(ways.items())
        for name, way in order if number % 2 == 0 else reversed(order):
            taken = way()
            after()
            if number >= 0:
                times[name].append(taken)
    return times


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of pairs that were measured next to each other: their median, and between what they lie.

    Those are the least and the most; of ten pairs or more, the ends of their middle half.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"**{self.median:.2f}**{self.spread}"

    @property
    def spread(self) -> str:
        """`` (0.91 to 1.07)``; nothing where there was one pair."""
        return f" ({self.low:.2f} to {self.high:.2f})" if self.low < self.high else ""


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return how many times ``theirs`` ours is, pair by pair."""
    each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    if len(each) >= MANY:
        return Ratio(statistics.median(each), *statistics.quantiles(each, n=4)[::2])
    return Ratio(statistics.median(each), each[0], each[-1])


def spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """``15.3 µs (14.9 to 16.0)``: the median, in bold, with the least and the most."""
    text = f"**{statistics.median(values):.{digits}f}{unit and f' {unit}'}**"
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{text} ({low} to {high})" if low != high else text

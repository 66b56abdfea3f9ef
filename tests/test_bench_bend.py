"""bench/bend.py: a bend is found where it was put, and nowhere else."""

from __future__ import annotations

import pytest

from bench.bend import bend, doubling, sentence
from bench.plot import number

XS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


def test_a_shared_cost_bends_where_it_is_shared_enough() -> None:
    """1/x up to 100 and flat beyond: each doubling halves it, then leaves it as it is."""
    found = bend([(x, 1000 / min(x, 100)) for x in XS])
    assert found is not None
    assert found.at == 100
    assert (found.before, found.after) == pytest.approx((0.5, 1.0))


def test_a_fixed_cost_bends_where_the_size_begins_to_count() -> None:
    """Flat up to 300 and proportional beyond: a doubling costs nothing, then twice as much."""
    found = bend([(x, max(x, 300)) for x in XS])
    assert found is not None
    assert found.at == 300
    assert (found.before, found.after) == pytest.approx((1.0, 2.0))


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.5, 1.0])
def test_a_straight_line_has_no_bend(slope: float) -> None:
    """Whatever its slope: of a power of x each doubling is worth the same."""
    points = [(x, 7 * x**slope) for x in XS]
    assert bend(points) is None
    assert doubling(points) == pytest.approx(2**slope)


def test_what_runs_differ_by_is_no_bend() -> None:
    """A tenth up and down around a flat line is noise."""
    noise = (1.0, 0.92, 1.05, 0.95, 1.08, 1.0, 0.93, 1.06, 0.97)
    assert bend([(x, 10 * y) for x, y in zip(XS, noise, strict=True)]) is None
    wild = (1.0, 1.8, 0.6, 1.7, 0.5, 1.6, 0.7, 1.9, 0.5)
    assert bend([(x, 10 * y) for x, y in zip(XS, wild, strict=True)]) is None, "two lines fit no better than one"


@pytest.mark.parametrize("count", [1, 2])
def test_two_points_cannot_bend(count: int) -> None:
    """A short run has no place in between."""
    assert bend([(x, 1.0 + x) for x in XS[:count]]) is None


def test_the_sentence_is_made_of_the_figures() -> None:
    """From where to where, the place of the bend, and what each doubling does on both sides of it."""
    points = [(x, 1000 / min(x, 100)) for x in XS]
    assert sentence(points, "subscribers", "the CPU of a delivery", number, lambda us: f"{us:.0f} µs") == (
        "From 1 to 10,000 subscribers, the CPU of a delivery goes from 1000 µs to 10 µs; it bends at 100: "
        "up to there each doubling multiplies it by 0.50, beyond by 1.00."
    )


def test_the_sentence_says_that_there_is_no_bend() -> None:
    """A straight line has one factor, and two points have none that is worth saying."""
    flat = [(x, 5.0) for x in XS]
    assert sentence(flat, "logs", "an append", number, number) == (
        "From 1 to 10,000 logs, an append goes from 5 to 5, without a bend: each doubling multiplies it by 1.00."
    )
    assert sentence(flat[:2], "", "an append", number, number) == "From 1 to 3, an append goes from 5 to 5."

"""How far a part is from its limit: the same work by bare system calls, measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report import Report
from bench.turns import ratio


@dataclass(frozen=True, slots=True)
class Limit:
    """``ours`` and ``bare``: what each took, pair by pair, in ``unit``; less is better. ``by``: the bare work."""

    what: str
    by: str
    ours: Sequence[float]
    bare: Sequence[float]
    unit: str


def tell(report: Report, *limits: Limit) -> None:
    """Add the table; what remains is what our own work costs beyond the bare one: the median of the pairs."""
    report.table("The limit", "of", "what it is", "Perennial", "the limit", "times the limit", "what remains")
    for each in limits:
        ours, bare = statistics.median(each.ours), statistics.median(each.bare)
        report.row(
            each.what, each.by, _written(ours, each.unit), _written(bare, each.unit), ratio(each.ours, each.bare),
            _remains(each),
        )  # fmt: skip


def _remains(limit: Limit) -> str:
    """Of pairs, as the ratio beside it: a difference of medians may say nothing where the pairs say something."""
    more = statistics.median(a - b for a, b in zip(limit.ours, limit.bare, strict=True))
    return _written(more, limit.unit) if more > 0 else "nothing"


def _written(value: float, unit: str) -> str:
    """Three digits that count."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"

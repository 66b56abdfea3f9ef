"""Where a curve bends: two straight lines over logarithmic axes that meet in one of the measured points.

Pure. What costs the same for each is a line of slope 1, a fixed cost that is shared a line of slope -1, and what does
not depend on the number a flat one; a bend is where one of them hands over to the next.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
# Two slopes nearer to each other than this are one: a fifth more or less for each doubling is what runs differ by.
SAME = 0.3
# Two lines must leave less than this share of one line's squared error.
BETTER = 0.5


@dataclass(frozen=True, slots=True)
class Bend:
    """``before`` and ``after``: by what each doubling of x multiplies y, on the left of ``at`` and on its right."""

    at: float
    before: float
    after: float


def bend(points: Sequence[Point]) -> Bend | None:
    """Return where two lines fit best (least squares of the logarithms), None where one line does or there are too few.

    All values must be above 0, and the points in the order of x.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points]
    fits = [(*_hinge(logs, knot), knot) for knot in range(1, len(logs) - 1)]
    if not fits:
        return None
    error, before, after, knot = min(fits)
    if abs(after - before) < SAME or error > BETTER * _line(logs)[0]:
        return None
    return Bend(points[knot][0], 2**before, 2**after)


def doubling(points: Sequence[Point]) -> float:
    """By what each doubling of x multiplies y, over all points: one straight line."""
    return float(2 ** _line([(math.log(x), math.log(y)) for x, y in points])[1])


def _line(logs: list[Point]) -> tuple[float, float]:
    """Return the squared error of one line, and its slope."""
    slope, height = statistics.linear_regression(*zip(*logs, strict=True))
    return sum((y - height - slope * x) ** 2 for x, y in logs), slope


def _hinge(logs: list[Point], knot: int) -> tuple[float, float, float]:
    """Return the squared error of two lines that meet at the knot's x, and their slopes."""
    middle = logs[knot][0]
    rows = [((1.0, min(x - middle, 0.0), max(x - middle, 0.0)), y) for x, y in logs]
    matrix = [[sum(r[i] * r[j] for r, _ in rows) for j in range(3)] for i in range(3)]
    height, before, after = _solved(matrix, [sum(r[i] * y for r, y in rows) for i in range(3)])
    error = sum((y - height - before * r[1] - after * r[2]) ** 2 for r, y in rows)
    return error, before, after


def _solved(matrix: list[list[float]], values: list[float]) -> list[float]:
    """Solve a system of linear equations (Cramer's rule would do; elimination is as short)."""
    rows = [[*row, value] for row, value in zip(matrix, values, strict=True)]
    for i in range(len(rows)):
        for j in range(len(rows)):
            if j != i:
                times = rows[j][i] / rows[i][i]
                rows[j] = [a - times * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]


def sentence(points: Sequence[Point], of: str, what: str, x: Callable[[float], str], y: Callable[[float], str]) -> str:
    """Return how ``what`` grows with the number of ``of``, and where it bends, in words.

    ``of`` is empty where ``x`` says it; ``x`` and ``y`` write a value with its unit.
    """
    (first_x, first_y), (last_x, last_y) = points[0], points[-1]
    said = f"From {x(first_x)} to {x(last_x)}{of and f' {of}'}, {what} goes from {y(first_y)} to {y(last_y)}"
    if found := bend(points):
        return (
            f"{said}; it bends at {x(found.at)}: up to there each doubling multiplies it by {found.before:.2f}, "
            f"beyond by {found.after:.2f}."
        )
    if len(points) < 3:
        return f"{said}."
    return f"{said}, without a bend: each doubling multiplies it by {doubling(points):.2f}."

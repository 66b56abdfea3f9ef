"""A plot as SVG: curves over logarithmic axes, with units, and with words for who does not see it.

Rules:
- Pure: points in, text out; the same text for the same points.
- It stands alone: its own ground and letters, light or dark as the reader's system is, no script and no font to load.
- Curves differ by their marks too, not by colour alone. What is drawn is also said: ``<title>`` and ``<desc>``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.bend import Point

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 84, 700, 76, 352

# Of a ground, its letters, the grid, and four curves, each at least 4.5 : 1 on the ground.
_LIGHT = ("#ffffff", "#1f2328", "#d1d9e0", ("#0550ae", "#a04100", "#116329", "#6639ba"))
_DARK = ("#0d1117", "#e6edf3", "#30363d", ("#79c0ff", "#ffa657", "#7ee787", "#d2a8ff"))
_MARKS = ("M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z", "M-4,-4h8v8h-8z", "M0,-5l5,9h-10z", "M0,-5l5,5l-5,5l-5,-5z")


def number(value: float) -> str:
    """``0.5``, ``20``, ``1,000``, ``10 M``"""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,.0f}" if value >= 100 else f"{value:g}"


def size(value: float) -> str:
    """Of bytes: ``1 KB``, ``100 MB``, ``10 GiB``"""
    if value >= 2**30 and value % 2**30 == 0:
        return f"{value / 2**30:,.0f} GiB"
    name, unit = next((pair for pair in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)) if value >= pair[1]), ("B", 1))
    return f"{value / unit:.3g} {name}"


@dataclass(frozen=True, slots=True)
class Curve:
    """``points``: (x, y), both above 0, by growing x."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """``x`` and ``y`` name the axes with their units; ``said``: the picture in words; ``bend``: an x to be marked."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    said: str
    bend: float | None = None
    x_label: Callable[[float], str] = number


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis: ``low`` is drawn at ``begin`` and ``high`` at ``end``, in pixels."""

    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        return self.begin + (self.end - self.begin) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Whole decades; their halves and fifths, or all nine of a decade's numbers, where that would be too few."""
        found: list[float] = []
        for steps in ((1,), (1, 2, 5), range(1, 10)):
            found = [value for value in _multiples(self.low, self.high, steps) if _between(value, self)]
            if len(found) >= 3:
                break
        return found


def _between(value: float, axis: Axis) -> bool:
    return axis.low * 0.999 <= value <= axis.high * 1.001


def _multiples(low: float, high: float, steps: tuple[int, ...] | range) -> Iterator[float]:
    for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (step * 10.0**decade for step in steps)


def _y_axis(values: list[float]) -> Axis:
    """At least a decade high: what is nearly flat must look flat."""
    ends = sorted(_multiples(min(values) / 10, max(values) * 10, (1, 2, 5)))
    low = max(end for end in ends if end <= min(values) * 1.001)
    high = min(end for end in ends if end >= max(values) * 0.999)
    while high / low < 10:
        if max(values) / low > high / min(values):
            high = min(end for end in [*ends, high * 10] if end > high)
        else:
            low = max(end for end in [*ends, low / 10] if end < low)
    return Axis(low, high, BOTTOM, TOP)


def _x_axis(values: list[float]) -> Axis:
    low, high = min(values), max(values)
    return Axis(low, high if high > low else low * 10, LEFT + 16, RIGHT - 16)


def svg(plot: Plot) -> str:
    """Return the plot as an SVG document. Raises ValueError where there is nothing to draw."""
    points = [point for curve in plot.curves for point in curve.points]
    if not points or min(min(point) for point in points) <= 0:
        raise ValueError("A plot over logarithmic axes needs points, all above 0.")
    x, y = _x_axis([point[0] for point in points]), _y_axis([point[1] for point in points])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(plot.title)}</title>',
        f'<desc id="desc">{escape(plot.said)}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="head" x="{LEFT}" y="26">{escape(plot.title)}</text>',
        *_grid(plot, x, y),
        *_bend(plot, x),
        *_legend(plot),
    ]
    for number_, curve in enumerate(plot.curves):
        parts += _curve(curve, f"c{number_ % 4}", _MARKS[number_ % 4], x, y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _style() -> str:
    return f"{_colours(*_LIGHT)}@media (prefers-color-scheme:dark){{{_colours(*_DARK)}}}"


def _colours(ground: str, letters: str, grid: str, curves: tuple[str, ...]) -> str:
    rules = f".ground{{fill:{ground}}}text{{fill:{letters};font:13px system-ui,sans-serif}}.head{{font-size:16px}}"
    rules += f".grid{{stroke:{grid}}}.bend{{stroke:{letters};stroke-dasharray:3 4}}"
    rules += "".join(f".c{n}{{fill:{colour};stroke:{colour}}}" for n, colour in enumerate(curves))
    return rules + ".line{fill:none;stroke-width:2}"  # last: a curve's colour fills its marks only


def _grid(plot: Plot, x: Axis, y: Axis) -> Iterator[str]:
    for value in x.ticks():
        at = f"{x.at(value):.1f}"
        yield f'<path class="grid" d="M{at},{TOP}V{BOTTOM}"/>'
        yield f'<text x="{at}" y="{BOTTOM + 20}" text-anchor="middle">{escape(plot.x_label(value))}</text>'
    for value in y.ticks():
        at = f"{y.at(value):.1f}"
        yield f'<path class="grid" d="M{LEFT},{at}H{RIGHT}"/>'
        yield f'<text x="{LEFT - 8}" y="{at}" dy="4" text-anchor="end">{escape(number(value))}</text>'
    middle = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    yield f'<text x="{middle[0]:.0f}" y="{BOTTOM + 48}" text-anchor="middle">{escape(plot.x)}</text>'
    turned = f'transform="translate(18,{middle[1]:.0f}) rotate(-90)"'
    yield f'<text {turned} text-anchor="middle">{escape(plot.y)}</text>'


def _bend(plot: Plot, x: Axis) -> Iterator[str]:
    if plot.bend is not None:
        at = f"{x.at(plot.bend):.1f}"
        yield f'<path class="bend" d="M{at},{TOP}V{BOTTOM}"/>'
        yield f'<text x="{at}" y="{TOP - 6}" text-anchor="middle">bends at {escape(plot.x_label(plot.bend))}</text>'


def _legend(plot: Plot) -> Iterator[str]:
    """In one line below the title; a letter is some 7.5 pixels wide."""
    at = float(LEFT + 6)
    for number_, curve in enumerate(plot.curves):
        yield f'<path class="c{number_ % 4}" transform="translate({at:.0f},46)" d="{_MARKS[number_ % 4]}"/>'
        yield f'<text x="{at + 12:.0f}" y="50">{escape(curve.name)}</text>'
        at += 40 + 7.5 * len(curve.name)


def _curve(curve: Curve, colour: str, mark: str, x: Axis, y: Axis) -> Iterator[str]:
    places = [(f"{x.at(a):.1f}", f"{y.at(b):.1f}") for a, b in curve.points]
    line = " ".join(f"{a},{b}" for a, b in places)
    yield f'<polyline class="{colour} line" points="{line}"/>'
    yield from (f'<path class="{colour}" transform="translate({a},{b})" d="{mark}"/>' for a, b in places)

"""bench/plot.py: what is measured is where it should be in the picture, and can be read without seeing it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from bench.plot import BOTTOM, LEFT, RIGHT, TOP, Axis, Curve, Plot, number, size, svg

SVG = "{http://www.w3.org/2000/svg}"
PLOT = Plot(
    "CPU of a delivery",
    "subscribers",
    "µs of CPU",
    (Curve("Perennial", ((1, 100.0), (10, 31.6), (100, 10.0))), Curve("bare <send> & co", ((1, 20.0), (100, 10.0)))),
    "It falls from 100 to 10 µs.",
    bend=10,
)


def parsed(plot: Plot = PLOT) -> ElementTree.Element:
    return ElementTree.fromstring(svg(plot))


def places(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    lines = root.findall(f"{SVG}polyline")
    return [[tuple(map(float, each.split(","))) for each in line.attrib["points"].split()] for line in lines]


def texts(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.findall(f"{SVG}text")]


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    """Of three decades over 300 pixels each takes 100: 10 is at 100, 100 at 200; the half decade √10 at 50."""
    axis = Axis(1, 1000, 0, 300)
    assert [axis.at(value) for value in (1, 10, 100, 1000)] == pytest.approx([0, 100, 200, 300])
    assert axis.at(10**0.5) == pytest.approx(50)


def test_points_lie_where_their_values_say() -> None:
    """y falls from one decade's line to the next in a straight line, and x is spread evenly over two decades."""
    first, second = places(parsed())
    (x1, y1), (x2, y2), (x3, y3) = first
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
    assert y1 < y2 < y3, "in SVG, less is higher"
    assert second[-1] == first[-1], "both end at (100, 10)"
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for line in (first, second) for x, y in line)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 10_000, [1, 10, 100, 1000, 10_000]),
        (1, 20, [1, 2, 5, 10, 20]),
        (1, 4, [1, 2, 3, 4]),
        (1e3, 2**30 * 10, [10.0**n for n in range(3, 11)]),
        (0.2, 20, [0.2, 0.5, 1, 2, 5, 10, 20]),
    ],
)
def test_ticks_are_round_and_at_least_three(low: float, high: float, ticks: list[float]) -> None:
    """Decades where there are enough of them, else 1 2 5, else every number."""
    assert Axis(low, high, 0, 100).ticks() == pytest.approx(ticks)


def test_what_is_nearly_flat_looks_flat() -> None:
    """Values that differ by a tenth are not drawn over the whole height: the axis has at least a decade."""
    ((_, y1), (_, y2)) = places(parsed(replace(PLOT, curves=(Curve("flat", ((1, 1.0), (10, 1.1))),))))[0]
    assert abs(y1 - y2) <= (BOTTOM - TOP) * 0.05


def test_a_single_point_can_be_drawn() -> None:
    """A run that was cut short has one value, and no range."""
    assert len(places(parsed(replace(PLOT, curves=(Curve("one", ((5, 7.0),)),), bend=None)))[0]) == 1


def test_the_picture_is_said_in_words() -> None:
    """A screen reader gets the title and the sentence; a role makes of the whole one image."""
    root = parsed()
    ids = root.attrib["aria-labelledby"].split()
    said = {each.attrib["id"]: each.text for each in root.iter() if "id" in each.attrib}
    assert root.attrib["role"] == "img"
    assert [said[id] for id in ids] == [PLOT.title, PLOT.said]


def test_axes_have_their_units_and_curves_their_names() -> None:
    """Both axes, each curve and the bend are named; what would be markup is text."""
    found = texts(parsed())
    assert {"subscribers", "µs of CPU", "Perennial", "bare <send> & co", "bends at 10"} <= set(found)
    assert {"1", "10", "100"} <= set(found)


def test_curves_differ_by_more_than_colour() -> None:
    """Who sees no colours tells two curves by their marks."""
    marks = [path.attrib for path in parsed().findall(f"{SVG}path") if path.attrib["class"].startswith("c")]
    by_colour = {each["class"]: {one["d"] for one in marks if one["class"] == each["class"]} for each in marks}
    assert len(by_colour) == 2
    assert all(len(shapes) == 1 for shapes in by_colour.values())
    assert len(set.union(*by_colour.values())) == 2


def test_letters_and_curves_can_be_read_on_both_grounds() -> None:
    """4.5 : 1 between the ground and all that is drawn to be read (WCAG 2.2, 1.4.3), in light and in dark."""
    style = parsed().find(f"{SVG}style")
    assert style is not None
    light, dark = (style.text or "").split("@media (prefers-color-scheme:dark)")
    for rules in (light, dark):
        colours = dict(re.findall(r"(?:^|[}{])([.\w]+)\{(?:fill|stroke):(#\w{6})", rules))
        ground = luminance(colours.pop(".ground"))
        colours.pop(".grid")
        assert {"text", ".c0", ".c1", ".c2", ".c3"} <= set(colours)
        assert {name for name, colour in colours.items() if contrast(luminance(colour), ground) < 4.5} == set()


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_a_curve_is_a_line_and_no_surface() -> None:
    """The rule that leaves it unfilled comes after those that colour it: of two equal rules the later one counts."""
    style = parsed().find(f"{SVG}style")
    assert style is not None
    for rules in (style.text or "").split("@media"):
        assert rules.index(".line{fill:none") > rules.rindex(".c3{fill:")


def test_it_stands_alone() -> None:
    """No script, no address but the namespace: it can be shown from anywhere."""
    text = svg(PLOT)
    assert "<script" not in text
    assert re.findall(r'"(https?://[^"]*)"', text) == ["http://www.w3.org/2000/svg"]


@pytest.mark.parametrize("points", [(), ((0, 1.0),), ((1, 0.0),), ((1, -1.0),)])
def test_what_has_no_logarithm_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    """A value of 0 is no point at minus infinity, but a mistake of who measured."""
    with pytest.raises(ValueError, match="above 0"):
        svg(replace(PLOT, curves=(Curve("none", points),)))


def test_values_are_written_as_people_read_them() -> None:
    """Thousands have commas, millions their letter, bytes their unit."""
    assert [number(value) for value in (0.5, 20, 1000, 1e7)] == ["0.5", "20", "1,000", "10 M"]
    assert [size(value) for value in (100, 1e3, 1e8, 1e9, 10 * 2**30)] == ["100 B", "1 KB", "100 MB", "1 GB", "10 GiB"]

"""One curve of how cost grows: what was measured as a table, a plot, and the sentence that tells where it bends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import plot
from bench.bend import bend, sentence
from bench.plot import Curve, Plot
from bench.report import Report

Label = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Grown:
    """``curves``: the first one is the server's, of which the sentence tells; the others stand beside it.

    ``of``: what there is more and more of, where ``x`` does not say it; ``what``: what of it is measured; ``x`` and
    ``y`` write values with units; ``more``: further sentences.
    """

    title: str
    axes: tuple[str, str]
    of: str
    what: str
    curves: tuple[Curve, ...]
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]
    y: Label
    x: Label = plot.number
    more: str = ""

    @property
    def said(self) -> str:
        told = sentence(self.curves[0].points, self.of, self.what, self.x, self.y)
        return f"{told} {self.more}".strip()

    def plot(self) -> Plot:
        found = bend(self.curves[0].points)
        at = found.at if found else None
        return Plot(self.title, *self.axes, self.curves, self.said, at, self.x)

    def tell(self, report: Report, name: str) -> None:
        """Add the table, the picture ``name`` and the sentence."""
        report.table(self.title, *self.columns)
        for row in self.rows:
            report.row(*row)
        report.plot(name, plot.svg(self.plot()), f"{self.title}: {', '.join(curve.name for curve in self.curves)}")
        report.say("", self.said)

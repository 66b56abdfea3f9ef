"""The report of the bench: printed as it is made, and kept for docs/performance.md.

Rules:
- The document is made wholly by the bench: what a run says, and of the parts it left out what the last run said.
- It is written whenever a part has come to its end: a run that is cut short keeps the parts that it has.
- A part that fails says so in its own section, and the others go on; so does a row whose peer is missing.
- Each part says itself where and of which commit it was measured, for parts are renewed one by one; the head says how
  long all of them take.
"""

from __future__ import annotations

import platform
import re
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench import versions

# A path, and its last part; what follows a host is none.
_PATH = re.compile(r"(?<![\w.:/])(/[\w.+-]+)(?:/[\w.+-]+)*/([\w.+-]+)")


class NotMeasured(Exception):
    """What is needed is not on this machine; the message says what."""


class Report:
    """``lines``: what has been said; ``plots``: SVG documents by name; ``failures``: what failed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.plots: dict[str, str] = {}
        self.failures: list[str] = []
        self._columns = 0

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """A section; see the rules above."""
        self.say("", f"## {title}")
        began, commit = time.monotonic(), versions.commit()
        with self.attempt("this part"):
            yield
        self.say("", f"Measured in {time.monotonic() - began:.0f} s at commit {commit} on {versions.machine()}.")

    @contextmanager
    def attempt(self, what: str, row: bool = False) -> Iterator[None]:
        """What goes wrong in the block is said in one sentence, and the run goes on. ``row``: as one of the table."""
        try:
            yield
        except NotMeasured as reason:
            if row:
                self.missing(what, reason)
            else:
                self.say("", f"Not measured: {reason_of(reason)}.")
        except Exception as error:
            self.failed(what, error)
            if row:
                self.row(what, f"**Failed**: {reason_of(error)}")
            else:
                self.say("", f"**Failed**, {what}: {reason_of(error)}.")

    def failed(self, what: str, error: Exception) -> None:
        """Count it; where it was is for who runs it, for the document has one sentence."""
        self.failures.append(what)
        traceback.print_exception(error)

    def table(self, title: str, *columns: str) -> None:
        self._columns = len(columns)
        self.say("", f"### {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|")

    def row(self, *cells: object) -> None:
        """What is left out at the end is empty."""
        row = [str(cell) for cell in cells]
        self.say("| " + " | ".join(row + [""] * (self._columns - len(row))) + " |")

    def missing(self, name: str, error: Exception) -> None:
        """A row of a peer that could not be measured."""
        self.row(name, f"not measured: {reason_of(error)}")

    def plot(self, name: str, drawn: str, said: str) -> None:
        """Show ``drawn``, an SVG document; ``said`` is what it shows, in words."""
        self.plots[name] = drawn
        self.say("", f"![{said}](plots/{name}.svg)")

    def say(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)


def reason_of(error: Exception) -> str:
    """The first line of what it says, without a full stop; of a path on this machine's disk, only the last part."""
    lines = str(error).splitlines() or [""]
    text = _PATH.sub(_last_part, lines[0]).strip().rstrip(".:").replace("|", "/")
    return text if isinstance(error, NotMeasured) else f"{type(error).__name__}: {text}"


def _last_part(path: re.Match[str]) -> str:
    """Of what lies on the disk; an address of the server, such as /api/export, stays as it is."""
    return path[2] if Path(path[1]).is_dir() else path[0]


def head() -> list[str]:
    """Return how the report begins: with what it was measured."""
    return [
        "# Performance",
        "",
        "Made by `make bench`, wholly. Absolute figures are those of one shared machine on one day; trust the ratios. "
        "A ratio is the median of pairs that were measured in turn, with the least and the most of them behind it, or, "
        "of ten pairs and more, the ends of their middle half.",
        "",
        f"- Machine: {versions.machine()}, {platform.system()} {platform.release()}",
        f"- {versions.packages()}",
        f"- Beside it, where they are there: {', '.join(versions.peers())}",
        "- One worker where nothing else is said, logs at WARNING, clients on the same machine",
    ]


def merged(before: str, made: str, titles: Iterable[str]) -> str:
    """Return the document: the head of ``made``, and of each title the section of ``made``, or of ``before``."""
    old, new = _sections(before), _sections(made)
    parts = {title: new.get(title) or old.get(title, "") for title in titles}
    whole = [new[""].rstrip("\n") + _lasted(parts), *parts.values()]
    return "\n## ".join(part.strip("\n") + "\n" for part in whole if part)


def _lasted(parts: Mapping[str, str]) -> str:
    """How long each of them took, as a further line of the head; nothing where none says it."""
    found = {title: re.search(r"(?m)^Measured in (\d+) s ", text) for title, text in parts.items()}
    times = {title: int(match[1]) for title, match in found.items() if match}
    if not times:
        return ""
    each = ", ".join(f"{title} {seconds} s" for title, seconds in times.items())
    return f"\n- Measured in {sum(times.values()) / 60:.0f} minutes: {each}"


def _sections(text: str) -> dict[str, str]:
    """By title; what stands before the first one, under the empty title."""
    first, *others = text.split("\n## ")
    return {"": first} | {part.partition("\n")[0]: part for part in others}

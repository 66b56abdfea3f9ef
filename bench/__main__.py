"""``python -m bench``: measure, print, and write docs/performance.md and its plots.

``python -m bench chat files`` measures these parts only, and writes their sections anew.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import chat, crowds, exports, files, growth, paint, plain_flask, plan, promises, transforms, uploads
from bench.ground import Ground
from bench.report import Report, head, merged
from settings import ROOT


@dataclass(frozen=True, slots=True)
class Part:
    """A section of the report."""

    title: str
    run: Callable[[Ground], None]


PARTS = {
    "first-bytes": Part("First byte", promises.first_bytes),
    "memory": Part("Memory", promises.memory),
    "company": Part("In company", promises.company),
    "flask": Part("Beside plain Flask", plain_flask.beside),
    "files": Part("Files", files.downloads),
    "uploads": Part("Uploads", uploads.uploads),
    "exports": Part("Exports", exports.exports),
    "transforms": Part("Transforms", transforms.transforms),
    "chat": Part("Chat", chat.chats),
    "fanout": Part("Fan-out", crowds.fan_out),
    "paint": Part("First paint", paint.paints),
    "growth": Part("How cost grows", growth.growth),
}


def main() -> int:
    """Return 1 where a part failed; what could not be measured on this machine is no failure."""
    arguments = argparse.ArgumentParser(prog="bench", description=__doc__)
    arguments.add_argument("--print", action="store_true", help="write nothing")
    arguments.add_argument("--docs", type=Path, default=ROOT / "docs", help="write performance.md and plots/ there")
    arguments.add_argument("--quick", action="store_true", help="small counts, to see that it runs: no figures")
    arguments.add_argument("parts", nargs="*", help=f"only these: {', '.join(PARTS)}")
    asked = arguments.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        arguments.error(f"{', '.join(unknown)} is no part")
    if asked.quick and not asked.print and asked.docs == ROOT / "docs":
        arguments.error("--quick makes no figures for the docs: --print, or --docs with another folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by the way of an exception: every server is ended
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # peers inherit it: 5,000 subscribers are as many files
    docs = None if asked.print else asked.docs
    report = Report()
    report.say(*head())
    try:
        measure(report, [PARTS[name] for name in asked.parts or PARTS], asked.quick, docs)
    finally:  # of a run that is cut short, too: the plan follows from what is in the document
        if docs == ROOT / "docs":
            with report.attempt("the plan of docs/operations.md"):
                plan.renew()
    return 1 if report.failures else 0


def measure(report: Report, parts: Iterable[Part], quick: bool = False, docs: Path | None = None) -> None:
    """Run the parts one after the other; one that fails does not keep the others from running.

    Below ``docs``, where it is given, what there is is written whenever a part has ended.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ground = Ground(Path(folder), report, quick)
        try:
            for part in parts:
                with report.part(part.title):
                    part.run(ground)
                if docs is not None:
                    write(docs, report)
        finally:
            ground.close()


def write(docs: Path, report: Report) -> None:
    (docs / "plots").mkdir(parents=True, exist_ok=True)
    for name, drawn in report.plots.items():
        (docs / "plots" / f"{name}.svg").write_text(drawn)
    document = docs / "performance.md"
    before = document.read_text() if document.exists() else ""
    made = "\n".join(report.lines) + "\n"
    document.write_text(merged(before, made, [part.title for part in PARTS.values()]))


if __name__ == "__main__":
    sys.exit(main())

"""The report of the bench: printed as it is made, and kept for docs/performance.md."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path

from settings import ROOT


class Report:
    """``lines``: what has been said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def table(self, title: str, *columns: str) -> None:
        self.say("", f"## {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|")

    def row(self, *cells: object) -> None:
        self.say("| " + " | ".join(map(str, cells)) + " |")

    def say(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)


def machine() -> list[str]:
    """Return the report's head: where, with what, and of which commit."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if "model name" in line), "?")
    packages = ", ".join(f"{name} {version(name)}" for name in ("flask", "gunicorn", "gevent", "openai", "msgspec"))
    return [
        "# Performance",
        "",
        "Made by `make bench`. Absolute figures are those of one shared machine on one day; trust the ratios.",
        "",
        f"- Machine: {os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}",
        f"- Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}",
        f"- Commit {commit.stdout.strip() or 'none yet'}, one worker, logs at WARNING, clients on the same machine",
    ]


def merged(before: str, made: str) -> str:
    """Return the document ``before`` with the sections of ``made`` in the place of their namesakes, or at its end."""
    sections = {part.partition("\n")[0]: part for text in (before, made) for part in text.split("\n## ")}
    return "\n## ".join(part.strip("\n") + "\n" for part in sections.values())

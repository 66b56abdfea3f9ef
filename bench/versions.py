"""With what it was measured: the machine, the commit, the server's packages, and the peers that are there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from settings import ROOT
from tests import postgres_server, redis_server
from tests.browser import CHROMIUM

_PACKAGES = ("flask", "gunicorn", "gevent", "openai", "msgspec")
# What tells a program's version, and where it stands in the answer.
_PROGRAMS = {
    "nginx": (["/usr/sbin/nginx", "-v"], r"nginx/(\S+)"),
    "nchan": (["dpkg-query", "-Wf", "${Version}", "libnginx-mod-nchan"], r"(\S+)"),
    "Node": (["node", "--version"], r"v(\S+)"),
    "gcc": (["gcc", "-dumpfullversion"], r"(\S+)"),
    "curl": (["curl", "--version"], r"curl (\S+)"),
    "PostgreSQL": ([str((postgres_server.programs() or Path()) / "postgres"), "--version"], r"(\d+\.\d+)"),
    "Redis": ([str(redis_server.program() or "redis-server"), "--version"], r"v=(\S+)"),
    "Chromium": ([CHROMIUM or "chromium", "--version"], r"Chromium (\S+)"),
}


def machine() -> str:
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if "model name" in line), "?")
    return f"{os.cpu_count()} cores of {model}"


@cache
def commit() -> str:
    """What is measured: ``-dirty`` where the tree differs from it, but for docs/, where the bench writes itself."""
    try:
        found = _git("describe", "--always")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs")
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return "unknown"
    return f"{found}-dirty" if changed else found


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def packages() -> str:
    named = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {named}"


def peers() -> Iterator[str]:
    """Of the machine's own programs, what they say; of what pip and npm bring, what the bench asks them for."""
    for name, (command, pattern) in _PROGRAMS.items():
        with contextlib.suppress(OSError):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and (found := re.search(pattern, done.stdout + done.stderr)):
                yield f"{name} {found[1]}"
    pinned = re.findall(r"(?m)^([\w-]+)==(\S+)", (ROOT / "requirements-bench.txt").read_text())
    yield from (f"{name} {found}" for name, found in pinned)
    for path in sorted((ROOT / "bench").glob("*/package.json")):
        yield from (f"{name} {found}" for name, found in json.loads(path.read_text())["dependencies"].items())

"""Every curl line of README.md works as pasted.

Rules:
- A line is run as it stands in its ```sh block, in its order, with the address of the server under test put in.
- It exits with 0, or with the status that its comment names: ``# exits 18``.
- ``# → text``, at its end or on the line below, is text that its output holds.
- What is not curl (starting the server, a client in another language) is not run here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from settings import ROOT
from tests.harness import LiveServer

README = ROOT / "README.md"
ADDRESS = "http://127.0.0.1:8000"
LIMIT_S = 30
# Each seed route, in their order: what its line in the README holds after the address or as an option.
SEED_ROUTES = [
    r"/api/stream(\?|\s|'|\"|$)",
    r"/api/stream-json",
    r"/api/sse",
    r"/api/events",
    r"[^i]/events",
    r"/api/chat",
    r"/api/chat\?protocol=(ui|data)|X-Stream-Protocol: (ui|data)|\"(trigger|parts)\"",
    r"/api/download/",
    r"/api/video/",
    r"/api/upload-progress",
    r"/api/export",
    r"/api/stream-safe",
    r"/api/transform",
]


@dataclass(frozen=True)
class Line:
    """A command of the README: ``exits`` with that status, and prints every text of ``shows`` among other things."""

    command: str
    exits: int
    shows: tuple[str, ...]


def curl_lines(markdown: str) -> list[Line]:
    """The commands with curl in the sh blocks, continuation lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)
    rows = [row for block in blocks for row in block.replace("\\\n", " ").splitlines()]
    lines = []
    for row, below in zip(rows, [*rows[1:], ""], strict=True):
        command, _, comment = row.partition(" # ")
        if re.search(r"\bcurl\b", command) and not command.startswith("#"):
            comment += below if below.startswith("#") else ""
            exits = re.search(r"exits (\d+)", comment)
            lines.append(
                Line(command.strip(), int(exits[1]) if exits else 0, tuple(re.findall(r"→ (.+?)\s*(?:$|#)", comment)))
            )
    return lines


LINES = curl_lines(README.read_text()) if README.exists() else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: with the project's sample files at hand, and what they write out of the project."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "files", folder / "files", ignore=shutil.ignore_patterns("uploads"))
    shutil.copy(README, folder)
    # A line that is answered 404 must not pass: here curl exits with 22 at an HTTP error.
    (folder / ".curlrc").write_text("fail\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.command[:100])
def test_the_line_works_as_pasted(line: Line, server: LiveServer, folder: Path) -> None:
    """A curl line of the README ends in time, with the status and the text that the README promises."""
    command = ["bash", "-c", line.command.replace(ADDRESS, server.url)]
    environ = os.environ | {"CURL_HOME": str(folder)}
    run = subprocess.run(
        command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False
    )
    shown = run.stdout.decode(errors="replace") + run.stderr.decode(errors="replace")
    assert run.returncode == line.exits, shown[-2000:]
    for text in line.shows:
        assert text in shown


@pytest.mark.parametrize("pattern", SEED_ROUTES)
def test_every_seed_route_has_a_line(pattern: str) -> None:
    """Whoever reads the README can try each of the thirteen seed routes by pasting one line."""
    assert [
        line for line in LINES if ADDRESS in line.command and re.search(pattern, line.command.replace(ADDRESS, " "))
    ]


@pytest.mark.slow
def test_the_first_line_shows_a_stream_that_is_not_buffered(server: LiveServer, folder: Path) -> None:
    """The chunks of /api/stream appear one each interval, the first at once: nothing on the way buffers."""
    line = next(line for line in LINES if re.search(SEED_ROUTES[0], line.command) and "HEAD" not in line.command)
    found = re.search(rf"{ADDRESS}(/api/stream[^\s'\"]*)", line.command)
    assert found
    assert "-N" in line.command, "curl itself buffers without -N when its output is no terminal"
    query = parse_qs(urlsplit(found[1]).query)
    chunks, interval_s = int(query.get("chunks", ["10"])[0]), float(query.get("interval", ["0.5"])[0])
    began, times = time.monotonic(), []
    command = ["bash", "-c", "exec " + line.command.replace(ADDRESS, server.url)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for row in process.stdout:
            assert row == b"Chunk %d\n" % len(times)
            times.append(time.monotonic())
    assert len(times) == chunks
    assert times[0] - began < interval_s + 1, "the first chunk leaves at once"
    assert times[-1] - times[0] == pytest.approx((chunks - 1) * interval_s, rel=0.5)

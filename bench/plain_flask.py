"""Plain Flask behind gunicorn's gevent worker: what bench/peer.py serves, beside the same of ours.

Of the rows a part: each takes as long as the one before, and all of them by `csv.writer` half a minute.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import processes
from bench.ground import Ground
from bench.load import Probe, seconds
from bench.turns import in_turn, ratio, spread
from tests.harness import eventually, free_port

# Of the rows, one in so many.
PART = 5


@contextmanager
def serving(folder: Path, application: str = "bench.peer:app", **env: str) -> Iterator[tuple[int, int]]:
    """Yield its port and its worker's process id. In a folder of its own: gunicorn would take our gunicorn.conf.py."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    command += ["--timeout", "300", "--worker-connections", "6000", "--backlog", "4096", "--graceful-timeout", "2"]
    command += ["--workers", "1"]
    with processes.serving([*command, application], port, folder, env) as process:
        eventually(lambda: processes.answers(port), 20)
        yield port, processes.child_of(process.pid)


def beside(ground: Ground) -> None:
    """Whole processes in turn."""
    report, rows = ground.report, ground.rows // PART
    ours = dict(list(ground.streams().items())[:2])
    ours[f"export of {rows:,} rows, CSV"] = [ground.url(f"/api/export?table=users&limit={rows}")]
    report.table(
        "`send_file`, `request.stream`, `csv.writer` on gunicorn's gevent worker", "stream", "Perennial", "plain Flask",
        "ratio", "another request's p99 beside ours", "beside plain Flask's",
    )  # fmt: skip
    env = {"PEER_FILE": str(ground.file), "PEER_DATABASE": str(ground.database), "PEER_ROWS": str(rows)}
    with serving(ground.folder("flask"), **env) as (port, _):
        peer = f"http://127.0.0.1:{port}"
        asked = [[f"{peer}/file"], ["-T", str(ground.file), "-X", "POST", f"{peer}/upload"], [f"{peer}/export"]]
        for (name, arguments), theirs in zip(ours.items(), asked, strict=True):
            with report.attempt(name, row=True):
                _compared(ground, name, (ground.server.port, arguments), (port, theirs))


def _compared(ground: Ground, name: str, ours: tuple[int, list[str]], theirs: tuple[int, list[str]]) -> None:
    beside: dict[str, list[float]] = {"Perennial": [], "plain Flask": []}

    def timed(server: str, port: int, path: str, arguments: list[str]) -> float:
        with Probe(port, path) as probe:
            taken = seconds(*arguments)
        beside[server].append(probe.p99_ms)
        return taken

    ways = {
        "Perennial": lambda: timed("Perennial", ours[0], "/healthz", ours[1]),
        "plain Flask": lambda: timed("plain Flask", theirs[0], "/readyz", theirs[1]),
    }
    times = in_turn(ways, ground.runs, ground.clear_uploads, warm=False)
    a, b = times["Perennial"], times["plain Flask"]
    p99 = [f"{statistics.median(values):.1f} ms" for values in beside.values()]
    ground.report.row(name, spread(a, "s", 2), spread(b, "s", 2), ratio(a, b), *p99)

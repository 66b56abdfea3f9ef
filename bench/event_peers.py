"""Others that serve events to many: the same client, the same counts, in turn with ours in the same run.

Rules:
- Each is as its own documentation has it, with one worker, and serves from a start of its own: one that does not notice
  who has gone keeps them, and would write to them in the next run.
- An event of a burst is sent when the one before it was acknowledged: not every peer takes several requests at once.
- Where one of them cannot be had on this machine, or fails, its row says so; where ours fails, the bench has failed.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from bench import environment, fanout, plain_flask, processes
from bench.fanout import Crowd, Outcome, Target
from bench.ground import Ground
from bench.report import NotMeasured
from bench.turns import ratio, spread
from tests.harness import eventually, free_port
from tests.nginx import PROGRAM

# Each with its runs: those of bursts and of 5,000 differ by little, and take long.
CROWDS = {Crowd(1000, 30): 3, Crowd(1000, 1, 100): 2, Crowd(5000, 10): 1}
QUICK = {Crowd(100, 5): 1}
# Who loses events keeps the client waiting for them.
LIMIT_S = 60
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_OURS, _ALONE = "Perennial", "`send(2)` in C, nothing else"
_NCHAN_CONF = """
load_module {module};
daemon off; worker_processes 1; worker_rlimit_nofile 16000; pid {folder}/pid; error_log {folder}/error.log; user root;
events {{ worker_connections 13000; }}
http {{
    access_log off; client_body_temp_path {folder}/body;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /events {{ nchan_subscriber eventsource; nchan_channel_id bench; }}
        location = /publish {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 1000; }}
    }}
}}
"""


@contextmanager
def ours(folder: Path) -> Iterator[Target]:
    with fanout.perennial(folder) as server:
        yield replace(fanout.topic(server, "bench"), pipelined=False)


@contextmanager
def queue_per_client(folder: Path) -> Iterator[Target]:
    """Plain Flask, as most examples have it."""
    with plain_flask.serving(folder) as (port, worker):
        yield Target(port, worker, "/events", "/publish", pipelined=False)


@contextmanager
def nchan(folder: Path) -> Iterator[Target]:
    """nginx's own publisher and subscribers: Debian's libnginx-mod-nchan."""
    if PROGRAM is None or not NCHAN.exists():
        raise NotMeasured("libnginx-mod-nchan is not installed")
    port = free_port()
    (folder / "nginx.conf").write_text(_NCHAN_CONF.format(module=NCHAN, folder=folder, port=port))
    with processes.serving([PROGRAM, "-c", folder / "nginx.conf", "-e", folder / "error.log"], port) as process:
        yield Target(port, processes.child_of(process.pid), "/events", "/publish", pipelined=False)


@contextmanager
def starlette(folder: Path) -> Iterator[Target]:
    """sse-starlette on uvicorn, with uvloop and httptools."""
    port = free_port()
    command = [str(environment.python()), "-m", "uvicorn", "bench.starlette_peer:app", "--port", str(port)]
    command += ["--log-level", "warning", "--no-access-log", "--backlog", "4096"]
    with processes.serving(command, port) as process:
        eventually(lambda: processes.answers(port), 20)
        yield Target(port, process.pid, "/events", "/publish", pipelined=False)


@contextmanager
def nextjs(folder: Path) -> Iterator[Target]:
    """Route handlers of Next.js, built for production: a stream for each subscriber."""
    port, code = free_port(), environment.next_built("next_peer")
    command = ["node", "node_modules/next/dist/bin/next", "start", "-p", str(port), "-H", "127.0.0.1"]
    with processes.serving(command, port, code, {"NEXT_TELEMETRY_DISABLED": "1"}) as process:
        eventually(lambda: processes.answers(port), 20)
        yield Target(port, process.pid, "/events", "/publish", pipelined=False)


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Target]]] = {
    _OURS: ours,
    "plain Flask, a queue per client": queue_per_client,
    "nchan": nchan,
    "Starlette with sse-starlette": starlette,
    "Next.js, a stream per client": nextjs,
}


def beside(ground: Ground, programs: Path) -> None:
    columns = (
        "server", "subscribers", "events", "CPU a delivery", "times Perennial's", "p99", "memory each", "connects/s",
        "lost, doubled", "runs",
    )  # fmt: skip
    crowds = QUICK if ground.quick else CROWDS
    ground.report.table("The same by others, in turn", *columns)
    missing: dict[str, Exception] = {}
    for crowd, runs in crowds.items():
        _in_turn(ground, programs, crowd, runs, missing)
    for name, error in missing.items():
        ground.report.missing(name, error)


def _in_turn(ground: Ground, programs: Path, crowd: Crowd, runs: int, missing: dict[str, Exception]) -> None:
    told: dict[str, list[Outcome]] = {}
    alone = []
    for number in range(runs):
        servers = list(SERVERS.items())
        for name, serve in reversed(servers) if number % 2 else servers:
            if name not in missing:
                try:
                    told.setdefault(name, []).append(_measured(ground, programs, serve, crowd))
                except (NotMeasured, AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as error:
                    if name == _OURS:
                        raise
                    missing[name] = error
        alone.append(fanout.bare_us(programs, crowd.subscribers, 20))
    base = [each.cpu_us for each in told[_OURS]]
    for name in (name for name in SERVERS if name not in missing):
        ground.report.row(name, *_cells(crowd, told[name], base, name))
    if crowd.burst == 1:
        who = f"{crowd.subscribers:,}", "20 × 1"
        ground.report.row(_ALONE, *who, spread(alone, "µs"), ratio(alone, base))


def _measured(
    ground: Ground, programs: Path, serve: Callable[[Path], AbstractContextManager[Target]], crowd: Crowd
) -> Outcome:
    folder = Path(tempfile.mkdtemp(dir=ground.root))
    with serve(folder) as target:
        fanout.warm(programs, target)
        return fanout.deliver(programs, target, crowd, LIMIT_S)


def _cells(crowd: Crowd, told: list[Outcome], base: list[float], name: str) -> tuple[object, ...]:
    cpu = [each.cpu_us for each in told]
    p99 = statistics.median(each.p99_ms for each in told)
    kib = statistics.median(each.kib for each in told)
    connects = statistics.median(each.connects for each in told)
    wrong = f"{sum(each.lost for each in told)}, {sum(each.doubled for each in told)}"
    return (
        f"{crowd.subscribers:,}", f"{crowd.rounds} × {crowd.burst}", spread(cpu, "µs"),
        "" if name == _OURS else ratio(cpu, base), f"{p99:.1f} ms", f"{kib:.1f} KiB", f"{connects:,.0f}", wrong,
        len(told),
    )  # fmt: skip

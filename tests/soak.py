"""``python -m tests.soak``: mixed traffic for as long as you like, with a reload every minute, and a verdict.

Rules:
- What counts is what a user sees: no error, nothing lost, nothing doubled, no stream cut (tests/traffic.py).
- Memory is flat: at the end the server has no more than at its beginning, but for what is in use.
- Workers are relieved on the way, too: after so many requests that each minute has some.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests import nginx, redis_server
from tests.harness import LiveServer, eventually, free_port
from tests.traffic import Traffic

LOOK_S = 2.0
# Of all processes together: what caches and garbage may differ by.
SLACK_BYTES = 48 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak ARGS=", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--reload-every", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--direct", action="store_true", help="without nginx in front")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        env: dict[str, object] = {"WEB_CONCURRENCY": asked.workers, "MAX_REQUESTS": 300, "LOG_LEVEL": "WARNING"}
        server = LiveServer(folder / "server", env | _store(asked.store, folder, stack))
        stack.callback(server.stop)
        server.start(120.0)
        port = server.port if asked.direct or nginx.PROGRAM is None else _front(server, folder, stack)
        traffic = Traffic(port, server.files, folder / "traffic").start()
        sizes = _drive(server, traffic, 60 * asked.minutes, asked.reload_every)
        traffic.stop()
        return _verdict(traffic, sizes, server)


def _store(name: str, folder: Path, stack: contextlib.ExitStack) -> Mapping[str, object]:
    if name == "sqlite":
        return {}
    redis = redis_server.RedisServer(folder)
    stack.callback(redis.stop)
    return {"STREAMS_URL": redis.start().url}


def _front(server: LiveServer, folder: Path, stack: contextlib.ExitStack) -> int:
    port = free_port()
    text = nginx.deployed([server.port], port, folder / "nginx", server.files, tls=False)
    stack.enter_context(nginx.nginx_of(folder / "nginx", text, port))
    return port


def _drive(server: LiveServer, traffic: Traffic, seconds: float, reload_every_s: float) -> list[int]:
    """Reload now and then until the time is over; return how large the server was when it stood in between."""
    began = time.monotonic()
    reload_at, sizes = began + reload_every_s, []
    while time.monotonic() < began + seconds and not traffic.errors:
        time.sleep(LOOK_S)  # a pace, not a wait
        if time.monotonic() < reload_at:
            continue
        sizes.append(_size(server))
        print(f"{time.monotonic() - began:5.0f} s: {sizes[-1] / 2**20:.0f} MiB, {traffic}", flush=True)
        old = set(server.pids())
        server.signal(signal.SIGHUP)
        eventually(_renewed(server, old), 120.0, "new workers")
        reload_at = time.monotonic() + reload_every_s
    return sizes


def _renewed(server: LiveServer, old: set[int]) -> Callable[[], bool]:
    return lambda: bool(server.pids()) and not old & set(server.pids())


def _size(server: LiveServer) -> int:
    """Resident memory of the master and of each worker, on average: while one is relieved there are more of them."""
    master = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return master + server.rss_bytes() // max(len(server.pids()), 1)


def _verdict(traffic: Traffic, sizes: list[int], server: LiveServer) -> int:
    print(traffic)
    try:
        traffic.check()
        if len(sizes) > 1:
            assert max(sizes[1:]) <= sizes[0] + SLACK_BYTES, f"memory is not flat: {[size >> 20 for size in sizes]} MiB"
    except AssertionError as error:
        print(f"✗ {error}\n{server.tail(40)}")
        return 1
    print("✓ no error, nothing lost, nothing cut, memory flat")
    return 0


if __name__ == "__main__":
    sys.exit(main())

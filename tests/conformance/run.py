"""``make conformance``: the Durable Streams protocol's own suite against servers that are started here.

Rules:
- Every store, with one worker and with two: what holds in one process must hold between them. Memory is of one only.
- Without Node 20 and npm it says so and is no failure; what fails there is one, and so is a store that does not start.
- Arguments choose servers by name: ``python -m tests.conformance.run sqlite-2``, a store and its workers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.harness import LiveServer
from tests.redis_server import RedisServer, program

HERE = Path(__file__).resolve().parent
# The suite waits for long-polls to end by themselves: a short one makes it a matter of two minutes and not of ten.
LONG_POLL_S = 2
SERVERS = ("memory-1", "sqlite-1", "sqlite-2", "redis-1", "redis-2")


def missing() -> str:
    """Return what is not here to run the suite with, or ""."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return "node and npm (20 or later) are not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return "" if int(version.lstrip("v").split(".")[0]) >= 20 else f"node is {version.strip()}, and 20 is needed"


def install() -> None:
    """Install what package.json names, unless that has been done."""
    done, wanted = HERE / "node_modules" / ".package-lock.json", HERE / "package.json"
    if not done.exists() or done.stat().st_mtime < wanted.stat().st_mtime:
        say("Installing tests/conformance/package.json, once …")
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(["npm", "install", *options], cwd=HERE, check=True)
        done.touch()


def passes(server: LiveServer) -> bool:
    """Run the suite against ``server``, and say whether all of it passed."""
    environ = {**os.environ, "SERVER_URL": server.url, "LONG_POLL_MS": str(LONG_POLL_S * 1000), "CI": "true"}
    command = ["node", "node_modules/vitest/vitest.mjs", "run", "--reporter=dot", "--testTimeout=30000"]
    return subprocess.run(command, cwd=HERE, env=environ, check=False).returncode == 0


@contextmanager
def serving(store: str, workers: int) -> Iterator[LiveServer]:
    """A server of ours over a store of its own."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folder = Path(name)
        settings: dict[str, object] = {"WEB_CONCURRENCY": workers, "LONG_POLL_S": LONG_POLL_S}
        if store == "memory":
            settings["STREAMS_URL"] = "memory:"
        if store == "redis":
            redis = RedisServer(folder, appendonly="no").start()
            ends.callback(redis.stop)
            settings["STREAMS_URL"] = redis.url
        server = LiveServer(folder / "server", settings)
        ends.callback(server.stop)
        yield server.start()


def main(chosen: list[str]) -> int:
    if reason := missing():
        say(f"The conformance suite is skipped: {reason}.")
        return 0
    install()
    failed = []
    for name in chosen or SERVERS:
        store, workers = name.split("-")
        if store == "redis" and program() is None:
            say(f"\n{name} is skipped: there is no redis-server.")
            continue
        say(f"\n{name}:")
        with serving(store, int(workers)) as server:
            failed += [] if passes(server) else [name]
    say(f"\nFailed: {', '.join(failed)}" if failed else "\nAll passed.")
    return len(failed)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

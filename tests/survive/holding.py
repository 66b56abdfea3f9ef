"""What a server holds at a moment: asked of each worker, of the kernel and of the disk, and compared after an episode.

Rules:
- A worker may keep some: connections to its stores, and what it makes at the first request of a kind.
- What is left by a process that was killed is a leftover for the housekeeping, and no leak; what is *held* by nobody's
  request always is one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import LiveServer
from tests.postgres_server import PostgresServer

MORE_DESCRIPTORS = 24
MORE_GREENLETS = 8
_ASKED = 60
# proc(5), net/tcp: ESTABLISHED, CLOSE_WAIT.
_OPEN = ("01", "08")


@dataclass
class Holding:
    """``workers``: what each says of itself (witness.py), by its pid; ``answered``: whether each did.

    ``connections``: of clients. ``files``: temporary ones; ``locked``: parts of uploads that somebody works on.
    ``statements``: that run in PostgreSQL.
    """

    answered: bool = True
    workers: dict[int, dict[str, Any]] = field(default_factory=dict)
    descriptors: int = 0
    connections: int = 0
    files: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)
    statements: int = 0

    def beyond(self, idle: Holding, killed: bool) -> list[str]:
        """Return what there is now and was not while nothing happened; ``killed``: files may be a dead process's."""
        found = [] if self.answered else ["not every worker answers"]
        for pid, worker in self.workers.items():
            found += [f"{worker[name]} {name} in {pid}" for name in ("streams", "runs") if worker[name]]
            marks = [mark for mark in worker["marks"] if worker["worker"] in mark]
            found += [f"leases of {pid} on {marks}"] if marks else []
            greenlets, usual = Counter(worker["greenlets"]), idle.most("greenlets")
            if greenlets.total() > usual.total() + MORE_GREENLETS:
                found.append(f"greenlets in {pid}: {dict(greenlets - usual)}")
            if deleted := Counter(worker["deleted"]).total() - idle.most("deleted").total():
                found += [f"{deleted} deleted files in {pid}: {worker['deleted']}"] if deleted > 0 else []
        if self.descriptors > idle.descriptors + MORE_DESCRIPTORS:
            found.append(f"{self.descriptors} of {idle.descriptors} descriptors")
        found += [f"{self.connections} connections"] if self.connections else []
        found += [f"locked parts {sorted(self.locked)}"] if self.locked else []
        if not killed and (new := self.files - idle.files):
            found.append(f"temporary files {sorted(new)}")
        found += [f"{self.statements} statements"] if self.statements else []
        return found

    def marks_of_the_dead(self) -> set[str]:
        """Return what is still held by workers that are gone; it ends some ten seconds after them."""
        living = {worker["worker"] for worker in self.workers.values()}
        marks = {mark for worker in self.workers.values() for mark in worker["marks"]}
        return {mark for mark in marks if not any(worker in mark for worker in living)} if self.answered else set()

    def most(self, name: str) -> Counter[str]:
        """What the worker has that has most of it."""
        return max((Counter(worker[name]) for worker in self.workers.values()), key=Counter.total, default=Counter())


def look(server: LiveServer, folder: Path, postgres: PostgresServer | None) -> Holding:
    workers = _workers(server)
    pids = set(server.pids())
    return Holding(
        pids == set(workers) and bool(pids),
        workers,
        max((len(os.listdir(f"/proc/{pid}/fd")) for pid in pids if Path(f"/proc/{pid}/fd").exists()), default=0),
        _connections(server.port),
        {str(path.relative_to(folder)) for pattern in _TEMPORARY for path in folder.glob(pattern)},
        {path.name for path in folder.glob("files/uploads/.part-*") if _is_locked(path)},
        postgres.backends() if postgres else 0,
    )


_TEMPORARY = ("tmp/*", "files/**/.part-*", "files/**/*.new", "filler")


def _workers(server: LiveServer) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for _ in range(_ASKED):
        with contextlib.suppress(OSError, ValueError):
            status, body = server.get("/held", 5.0)
            if status == 200:
                worker = json.loads(body)
                found[worker["pid"]] = worker
        if set(found) >= set(server.pids()):
            break
    return {pid: worker for pid, worker in found.items() if pid in server.pids()}


def _connections(port: int) -> int:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] in _OPEN for row in rows)


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

"""Who works on what: a stream that a worker writes to is held under its lease, and ended by others when the lease ends.

Rules:
- A lease is a stream of its own with a sliding lifetime; a worker that lives reads it every few seconds.
- What is held is one small stream a piece below ``held/<worker>/``: there are only as many as are being worked on.
- It is held before it is begun, or a worker killed in between would leave it open for ever. Two may hold one path: one
  of them is being refused it, and its death is none of the other's.
- Every worker looks for those whose worker has no lease any more. A killed worker cannot say that it was interrupted;
  the others say it for it, once, with an event ``failed`` and the end.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator

from stores.base import START, Config, Log, NoStream, StoreError, StreamClosed
from streaming.events import json_event

log = logging.getLogger("perennial.leases")

LEASE_S = 10
RENEW_S = 2.0

_LEASES = "leases/"
_HELD = "held/"
RUNS = "runs/"
# What ends a stream of events; and what ends a run, whose events are bytes: a mark at which its readers are cut.
FAILED = "failed"
RUN_FAILED = "run-failed"
_INTERRUPTED = {"error": "This stream was interrupted: the server that made it has gone."}


class Lease:
    """This worker's: made after the fork; ``renew`` is called every ``RENEW_S`` seconds."""

    def __init__(self, store: Log) -> None:
        self._store = store
        self.worker = secrets.token_hex(8)
        self._config = Config("application/json", ttl_s=LEASE_S)

    def renew(self) -> None:
        """Live on, and end what the dead have left. Raises StoreError."""
        self._store.create(_LEASES + self.worker, self._config)
        self._store.read(_LEASES + self.worker, START, limit=1)
        living, dead = self._held()
        for path, held in dead:
            if held not in living:
                log.warning("%s was interrupted: its worker has gone", held)
                end_interrupted(self._store, held)
            self._store.delete(path)

    @contextlib.contextmanager
    def holding(self, path: str) -> Iterator[None]:
        """Be the one who ends the stream ``path``, for as long as this block runs. Raises StoreError."""
        held = f"{_HELD}{self.worker}/{secrets.token_hex(4)}/{path}"
        self._store.create(_LEASES + self.worker, self._config)
        self._store.create(held, Config("application/json"))
        try:
            yield
        finally:
            with contextlib.suppress(StoreError):  # then it expires with the lease, and is found ended
                self._store.delete(held)

    def _held(self) -> tuple[set[str], list[tuple[str, str]]]:
        """Return what the living hold, and of the dead the marks with what each of them is for."""
        living, dead = set(), []
        lives = {self.worker: True}
        for path in all_paths(self._store, _HELD):
            worker, _, held = path.removeprefix(_HELD).split("/", 2)
            if worker not in lives:
                lives[worker] = self._lives(worker)
            if lives[worker]:
                living.add(held)
            else:
                dead.append((path, held))
        return living, dead

    def _lives(self, worker: str) -> bool:
        try:
            self._store.state(_LEASES + worker)
        except NoStream:
            return False
        return True


def all_paths(store: Log, prefix: str) -> Iterator[str]:
    """Yield every path that begins with ``prefix``, a page at a time. Raises StoreError."""
    last = ""
    while page := store.paths(prefix, last):
        yield from page
        last = page[-1]


def end_interrupted(store: Log, path: str) -> None:
    """Append that it failed to the stream and close it, if it is there and open."""
    mark = json_event(_INTERRUPTED, RUN_FAILED if path.startswith(RUNS) else FAILED)
    with contextlib.suppress(NoStream, StreamClosed):
        store.append(path, [mark], close=True)

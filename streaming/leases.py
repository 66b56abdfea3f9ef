"""Who works on what: a stream that a worker writes to is held under its lease, and ended by others when the lease ends.

Rules:
- A lease is a stream of its own with a sliding lifetime; a worker that lives reads it every few seconds.
- What is held is one small stream a piece below ``held/<worker>/``: there are only as many as are being worked on. One
  that somebody is allowed few of is below ``slots/<caller>/<worker>/`` instead, where they are counted.
- It is held before it is begun, or a worker killed in between would leave it open for ever. Two may hold one path: one
  of them is being refused it, and its death is none of the other's.
- Every worker looks for those whose worker has no lease any more. A killed worker cannot say that it was interrupted;
  the others say it for it, once, with an event ``failed`` and the end.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections.abc import Iterator

from stores.base import START, Config, Log
from stores.errors import NoStream, StoreError, StreamClosed
from streaming import chat_parts
from streaming.events import Event, json_event
from streaming.pace import Pace

log = logging.getLogger("perennial.leases")

LEASE_S = 10
RENEW_S = 2.0

_LEASES = "leases/"
_HELD = "held/"
SLOTS = "slots/"
RUNS = "runs/"
CHATS = "chats/"
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
        self._abandoned: set[str] = set()
        self._renewed_at = -math.inf

    def renew(self) -> None:
        """Live on, and end what the dead have left. Raises StoreError."""
        self._live()
        self._store.read(_LEASES + self.worker, START, limit=1)
        for path in tuple(self._abandoned):
            end_interrupted(self._store, path)
            self._abandoned.discard(path)
        living, dead = self._held()
        for path, held in dead:
            if held not in living:
                log.warning("%s was interrupted: its worker has gone", held)
                end_interrupted(self._store, held)
            self._store.delete(path)

    @contextlib.contextmanager
    def holding(self, path: str, caller: str = "") -> Iterator[None]:
        """Be the one who ends the stream ``path``, for as long as this block runs, in a slot of ``caller`` if given.

        Raises StoreError.
        """
        prefix = f"{SLOTS}{caller}/" if caller else _HELD
        held = f"{prefix}{self.worker}/{secrets.token_hex(4)}/{path}"
        if time.monotonic() - self._renewed_at > 2 * RENEW_S:
            self._live()
        self._store.create(held, Config("application/json"))
        try:
            yield
        finally:
            with contextlib.suppress(StoreError):  # then it expires with the lease, and is found ended
                self._store.delete(held)

    def abandon(self, path: str) -> None:
        """Let a stream be ended as interrupted as soon as the store takes that: whoever wrote it could not."""
        self._abandoned.add(path)

    def lives(self, worker: str) -> bool:
        try:
            self._store.state(_LEASES + worker)
        except NoStream:
            return False
        return True

    def _live(self) -> None:
        self._store.create(_LEASES + self.worker, self._config)
        self._renewed_at = time.monotonic()

    def _held(self) -> tuple[set[str], list[tuple[str, str]]]:
        """Return what the living hold, and of the dead the marks with what each of them is for."""
        living, dead = set(), []
        lives, pace = {self.worker: True}, Pace()
        for path, worker, held in self._marks():
            pace.rest()  # thousands of uploads are held at once
            if worker not in lives:
                lives[worker] = self.lives(worker)
            if lives[worker]:
                living.add(held)
            else:
                dead.append((path, held))
        return living, dead

    def _marks(self) -> Iterator[tuple[str, str, str]]:
        """Yield the path, the worker and what is held, of all that is."""
        for path in all_paths(self._store, _HELD):
            worker, _, held = path.removeprefix(_HELD).split("/", 2)
            yield path, worker, held
        for path in all_paths(self._store, SLOTS):
            _, worker, _, held = path.removeprefix(SLOTS).split("/", 3)
            yield path, worker, held


def all_paths(store: Log, prefix: str) -> Iterator[str]:
    """Yield every path that begins with ``prefix``, a page at a time. Raises StoreError."""
    last = ""
    while page := store.paths(prefix, last):
        yield from page
        last = page[-1]


def end_interrupted(store: Log, path: str) -> None:
    """Append that it failed to the stream and close it, if it is there and open."""
    with contextlib.suppress(NoStream, StreamClosed):
        store.append(path, [_mark(path)], close=True)


def _mark(path: str) -> Event:
    if path.startswith(CHATS):
        return chat_parts.failure(chat_parts.INTERRUPTED)
    return json_event(_INTERRUPTED, RUN_FAILED if path.startswith(RUNS) else FAILED)

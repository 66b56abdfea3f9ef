"""Who works on what: a stream that a worker writes to is held under its lease, and ended by others when that is over.

Rules:
- A lease is a stream of its own; a worker that lives appends to it every few seconds. Who looks goes by its own
  monotonic clock, and counts only while it could look: clocks are set, those of machines differ, and a store that was
  away or has lost everything makes nobody dead.
- What is held is one small stream a piece below ``held/<worker>/``: there are only as many as are being worked on. One
  that somebody is allowed few of is below ``slots/<caller>/<worker>/`` instead, where they are counted.
- It is held before it is begun, or in the same step: a worker killed in between would leave it open for ever. Two may
  hold one path: one of them is being refused it, and its death is none of the other's.
- What could not be begun whole is ended: some of it may be there, also what the store did not say that it had done.
  What others had begun already is theirs.
- Every worker looks for those whose worker has no lease any more. A killed worker cannot say that it was interrupted;
  the others say it for it, once, with an event ``failed`` and the end.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from stores.base import START, Config, Create, Log
from stores.errors import KeyReused, NoStream, StoreError, StreamClosed, StreamGone
from streaming import chat_parts
from streaming.events import Event, json_event
from streaming.pace import Pace

log = logging.getLogger("perennial.leases")

# Seen without a renewal for so long, a worker is dead.
LEASE_S = 10
RENEW_S = 2.0
_KEPT_S = 3600

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

    def __init__(self, store: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self.worker = secrets.token_hex(8)
        self._config = Config("application/json", ttl_s=_KEPT_S, keep_events=1)
        # How streams are to end, and marks that are to go, as soon as the store takes that.
        self._abandoned: dict[str, Event] = {}
        self._left: set[str] = set()
        self._renewed_at = -math.inf
        self._lapsed_at = -math.inf
        # Of each worker that holds something: the offset of its last renewal, and since when that is known here.
        self._renewals: dict[str, tuple[str, float]] = {}
        self._looked_at = -math.inf

    def renew(self) -> None:
        """Live on, and end what the dead have left. Raises StoreError."""
        self._live()
        for path, end in tuple(self._abandoned.items()):
            _end(self._store, path, end)
            del self._abandoned[path]
        for mark in tuple(self._left):
            self._store.delete(mark)
            self._left.discard(mark)
        living, dead = self._held()
        for path, held in dead:
            if held not in living:
                log.warning("%s was interrupted: its worker has gone", held)
                end_interrupted(self._store, held)
            self._store.delete(path)

    @contextlib.contextmanager
    def holding(self, path: str, caller: str = "", making: Sequence[Create] = ()) -> Iterator[None]:
        """Be the one who ends the stream ``path``, for as long as this block runs, in a slot of ``caller`` if given.

        ``making``: what is made in the same step, that stream among it. Raises StoreError.
        """
        prefix = f"{SLOTS}{caller}/" if caller else _HELD
        held = f"{prefix}{self.worker}/{secrets.token_hex(4)}/{path}"
        if self._clock() - self._renewed_at > 2 * RENEW_S:
            self._live()
        try:
            if not making:
                self._store.create(held, Config("application/json"))
            try:
                if making:
                    self._store.create_each([Create(held, Config("application/json")), *making])
                yield
            except (KeyReused, StreamClosed):
                raise
            except StoreError:
                self._abandoned.setdefault(path, _mark(path))
                raise
        finally:
            self._let_go(path, held)

    def abandon(self, path: str, end: Event | None = None) -> None:
        """Let a stream be ended as soon as the store takes that, by ``end`` or as interrupted: its writer could not."""
        self._abandoned[path] = end or _mark(path)

    def lives(self, worker: str) -> bool:
        """Whether it has renewed its lease within LEASE_S, as far as this one has looked."""
        try:
            renewal = self._store.state(_LEASES + worker).tail
        except NoStream:
            renewal = START
        known, since = self._renewals.get(worker, (None, 0.0))
        if renewal != known:
            since = self._clock()
            self._renewals[worker] = renewal, since
        return self._clock() - since < LEASE_S

    def lapsed_since(self, at: float) -> bool:
        """Whether others may have taken this worker for dead since ``at``: it or its store stood still."""
        return self._lapsed_at >= at or self._is_late()

    def _is_late(self) -> bool:
        return LEASE_S / 2 < self._clock() - self._renewed_at < math.inf

    def _live(self) -> None:
        late = self._is_late()
        self._store.append(_LEASES + self.worker, [json_event({})], create=self._config)
        self._renewed_at = self._clock()
        if late:
            self._lapsed_at = self._renewed_at

    def _let_go(self, path: str, held: str) -> None:
        """Delete the mark; where the store does not take that, or the stream is still to be ended, ``renew`` does."""
        self._left.add(held)
        if path not in self._abandoned:
            with contextlib.suppress(StoreError):
                self._store.delete(held)
                self._left.discard(held)

    def _held(self) -> tuple[set[str], list[tuple[str, str]]]:
        """Return what the living hold, and of the dead the marks with what each of them is for."""
        living, dead = set(), []
        lives, pace = {self.worker: True}, Pace()
        if self._clock() - self._looked_at > LEASE_S / 2:
            self._renewals.clear()
        for path, worker, held in self._marks():
            pace.rest()  # thousands of uploads are held at once
            if worker not in lives:
                lives[worker] = self.lives(worker)
            if lives[worker]:
                living.add(held)
            else:
                dead.append((path, held))
        self._looked_at = self._clock()
        self._renewals = {worker: seen for worker, seen in self._renewals.items() if worker in lives}
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
    _end(store, path, _mark(path))


def _end(store: Log, path: str, end: Event) -> None:
    with contextlib.suppress(NoStream, StreamGone, StreamClosed):
        store.append(path, [end], close=True)


def _mark(path: str) -> Event:
    if path.startswith(CHATS):
        return chat_parts.failure(chat_parts.INTERRUPTED)
    return json_event(_INTERRUPTED, RUN_FAILED if path.startswith(RUNS) else FAILED)

"""Runs: a source framed into a stream of the log by a producer that does not depend on the client.

Rules:
- The stream is the truth; the response to the request that began it is a reader like any other.
- A run is held under its worker's lease: nobody waits for ever for one whose worker was killed.
- A worker that drains waits for its runs as for its connections, also for those that nobody reads now.
- How many may run at once, how much one may write, and for how long it is kept, are settings.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import gevent
import msgspec

from stores.base import Config, Log
from stores.errors import StoreError
from streaming.accounts import tally
from streaming.errors import Problem, StreamFailed, Unavailable, public
from streaming.events import Event, Source, json_event
from streaming.framings import Framing
from streaming.leases import RUN_FAILED, RUNS, Lease, end_interrupted
from streaming.pace import Pace
from streaming.shares import Leave, nothing

log = logging.getLogger("perennial.runs")

BLOCK_BYTES = 64 * 1024
# Live items are appended together for so long; a reader in this worker sees them no later than that.
JOIN_S = 0.02

# All that a draining worker waits for; and those of them that MAX_RUNS bounds.
_running: set[Any] = set()
_durable: set[Any] = set()


@dataclass(frozen=True, slots=True)
class RunLimits:
    """``most``: at once in this worker; ``bytes``: of one; ``keep_s``: after its last read or write."""

    most: int
    bytes: int
    keep_s: float


class Run:
    """A source framed into a stream of the log, whether or not anybody reads it.

    Its bytes are those that a client would have got. A failure that the framing cannot tell, or that a cut would have
    told, is an event ``run-failed`` at the end; whoever reads the stream is cut there. ``made`` makes its id its
    caller's.
    """

    def __init__(self, store: Log, lease: Lease, limits: RunLimits, made: Callable[[str], str] = lambda id: id) -> None:
        self._store = store
        self._lease = lease
        self._limits = limits
        self.path = RUNS + made(secrets.token_urlsafe(15))

    def start(self, source: Source, framing: Framing, cut_after_error: bool = False, leave: Leave = nothing) -> None:
        """Make the stream and begin; ``leave`` is called when it has ended, or was not begun.

        Raises Unavailable when as many run as may, StoreError.
        """
        with ExitStack() as stack:
            stack.callback(leave)
            self._start(source, framing, cut_after_error, leave)
            stack.pop_all()

    def _start(self, source: Source, framing: Framing, cut_after_error: bool, leave: Leave) -> None:
        if len(_durable) >= self._limits.most:
            raise Unavailable("As many durable streams are running as may; try again later.", retry_after_s=5)
        config = Config(framing.content_type, ttl_s=int(self._limits.keep_s))
        with ExitStack() as stack:
            stack.enter_context(self._lease.holding(self.path))  # first: without it the stream could be open for ever
            self._store.create(self.path, config)
            held = stack.pop_all()
        greenlet = gevent.spawn(self._run, held, source, framing, cut_after_error)
        track(greenlet)
        _durable.add(greenlet)
        greenlet.rawlink(_durable.discard)
        greenlet.rawlink(lambda _: leave())

    def _run(self, held: ExitStack, source: Source, framing: Framing, cut_after_error: bool) -> None:
        how = "failed"
        try:
            with held:
                try:
                    how = self._write(self._framed(source, framing, cut_after_error))
                except gevent.GreenletExit:
                    how = "interrupted"
                    end_interrupted(self._store, self.path)
                    raise
                except StoreError:
                    self._lease.abandon(self.path)
                    raise
        except StoreError:
            how = "failed"
            log.exception("%s: its log failed", self.path)
        finally:
            tally.runs[how] += 1
            if (close := getattr(source, "close", None)) is not None:
                close()

    def _framed(self, source: Source, framing: Framing, cut_after_error: bool) -> Iterator[Event | None]:
        """Yield the framed bytes as they come, None where the source has nothing for now, and ``run-failed``."""
        size = 0
        yield Event(framing.open())
        try:
            for item in source:
                data = framing.encode(item) if item is not None else b""
                size += len(data)
                if size > self._limits.bytes:
                    raise StreamFailed(f"A durable stream may have {self._limits.bytes} bytes, and this one has more.")
                yield Event(data) if data else None
            yield Event(framing.close())
        except Exception as error:
            log.warning("%s: failed: %s", self.path, error, exc_info=not isinstance(error, StreamFailed | Problem))
            sentence = public(error)
            if framing.error is not None:
                yield Event(framing.error(sentence))
            if framing.error is None or cut_after_error:
                yield json_event({"error": sentence}, RUN_FAILED)

    def _write(self, framed: Iterator[Event | None]) -> str:
        """Append what has come when the source waits, when it is much, and at the latest ``JOIN_S`` after it came.

        Return how it ended: complete or failed.
        """
        pace, ready, since = Pace(), bytearray(), time.monotonic()
        for event in framed:
            if event is not None and event.type == RUN_FAILED:
                self._store.append(self.path, [*_pieces(ready), event], close=True)
                return "failed"
            if event is not None:
                ready += event.data
            if ready and (event is None or len(ready) >= BLOCK_BYTES or time.monotonic() - since >= JOIN_S):
                self._store.append(self.path, _pieces(ready))
                ready, since = bytearray(), time.monotonic()
            pace.rest()
        self._store.append(self.path, _pieces(ready), close=True)
        return "complete"


def _pieces(data: bytearray) -> list[Event]:
    return [Event(bytes(data))] if data else []


def track(greenlet: Any) -> None:
    """Let a worker that drains wait for the greenlet, and end it when there is no more time."""
    _running.add(greenlet)
    greenlet.rawlink(_running.discard)


def running() -> int:
    """How many runs this worker has."""
    return len(_running)


def interrupt(timeout_s: float) -> None:
    """End those that still run, each with its mark: the worker has no more time for them."""
    gevent.killall(list(_running), timeout=timeout_s)


class Raw:
    """The framing of what is framed already, by ``framing``."""

    error = None
    drain = None

    def __init__(self, framing: Framing) -> None:
        self.content_type = framing.content_type
        self.headers: Mapping[str, str] = framing.headers
        self._framing = framing

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        if event.type == RUN_FAILED:
            raise StreamFailed(msgspec.json.decode(event.data)["error"])
        return event.data

    def idle(self) -> bytes:
        return self._framing.idle()  # a heartbeat is no part of the stream

    def close(self) -> bytes:
        return b""

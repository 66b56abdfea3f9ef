"""Runs of chat: a model's answer that goes into a log whether or not anybody reads it.

Rules:
- A run is one sequence of parts (``chat_parts``). What a reader has seen of it is a number; "what is after n, or wait"
  is the only question. The worker that makes it answers from ``events``, every other from the log (``chat_copy``).
- The last event says how it ended (``chat_parts.TERMINAL``), and nothing comes after it. A run whose worker died gets
  its last event from the others (``leases``), and so does one whose worker stood still and goes on: before a run says
  that it is whole, its worker asks whether the others still think so.
- Pieces of text that came together are one event: a slow worker does less, and says the same.
- Cancelling reaches the model only where the run waits for it, never in the middle of a step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import gevent
from gevent.event import Event as Flag
from gevent.hub import Waiter

from streaming import runs
from streaming.chat_copy import Copies, Copy
from streaming.chat_direct import Direct
from streaming.chat_parts import INTERRUPTED, NOT_KEPT, PRELIMINARY, STOOD_STILL, TERMINAL, Parts, failure, join
from streaming.errors import Problem, StreamFailed, public
from streaming.events import Event
from streaming.leases import CHATS, Lease

log = logging.getLogger("perennial.chat")

STOPPED, LEFT, DRAINED = "stopped", "left", "interrupted"
# Asks a model; what it is given takes a piece of text that comes while its iterator waits: see ``llm.openai``.
Model = Callable[[Callable[[Event], bool]], Iterator[Event | None]]


class Cancelled(BaseException):
    """Thrown into a run that waits for its model. No Exception: a library must not take it for a failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``how``: finished, failed, stopped, left or interrupted."""

    how: str
    model: str
    usage: dict[str, Any]
    first_token_s: float | None
    retries: int


class ChatRun:
    """One answer that is being made in this worker; ``start`` it once.

    ``events``: what there is of it. ``ended``: nothing more comes. ``logged``: the log has all.
    ``problem``: what it failed with before the model had said anything.
    """

    def __init__(self, copies: Copies, lease: Lease, run_id: str, parts: Parts, limit_bytes: int) -> None:
        self.id = run_id
        self.path = CHATS + run_id
        self.parts = parts
        self.events: list[Event] = []
        self.ended = False
        self.logged: Final = Flag()
        self.readers = 0
        self.seen_at = time.monotonic()
        self._lease = lease
        self._limit_bytes = limit_bytes
        self._waiters: set[Waiter[None]] = set()
        self._direct: set[Direct] = set()
        self._cancelled = ""
        self._pulling = False
        self._greenlet: Any = None
        self._copy = Copy(copies, self.path, self.events, self._refused)
        self._began_at = time.monotonic()
        self._first_at: float | None = None

    def begin(self) -> list[Event]:
        """Return the events with which its stream is made."""
        self._publish(self.parts.begin())
        self._copy.begun_with(len(self.events))
        return list(self.events)

    def start(self, model: Model, held: ExitStack, done: Callable[[ChatRun, Outcome], None]) -> None:
        """Ask the model. ``held`` is closed, and ``done`` is called, when the log has all of it."""
        self._greenlet = gevent.spawn(self._run, model, held, done)
        runs.track(self._greenlet)

    def cancel(self, why: str) -> None:
        """End it as STOPPED, LEFT or DRAINED; it returns at once, and does nothing to a run that has ended."""
        if not self._cancelled and not self.ended:
            self._cancelled = why
            gevent.get_hub().loop.run_callback(self._interrupt)

    def wait(self, number: int) -> None:
        """Return when there is an event after ``number``, or the end, or ``beat`` was called."""
        if len(self.events) > number or self.ended:
            return
        waiter: Waiter[None] = Waiter()
        self._waiters.add(waiter)
        try:
            waiter.get()
        finally:
            self._waiters.discard(waiter)

    def park(self, direct: Direct) -> None:
        """Write to the connection from now on, which has all there is; until the end, or it ``leave``s."""
        self._direct.add(direct)

    def unpark(self, direct: Direct) -> None:
        self._direct.discard(direct)

    def beat(self) -> None:
        """Let all who wait look up, and those who are parked when they owe a heartbeat."""
        for direct in [direct for direct in self._direct if direct.due()]:
            self._direct.discard(direct)
            direct.leave()
        self.tick()

    def tick(self) -> None:
        """Wake all who wait."""
        later = gevent.get_hub().loop.run_callback
        for waiter in self._waiters:
            later(waiter.switch, None)
        self._waiters.clear()

    def _interrupt(self) -> None:
        if self._pulling:
            self._pulling = False
            self._greenlet.throw(Cancelled())

    def _run(self, model: Model, held: ExitStack, done: Callable[[ChatRun, Outcome], None]) -> None:
        try:
            how = self._outcome(model)
            self.ended = True
            self.tick()
            self._copy.end()
            self._copy.done.wait()
        finally:
            self.ended = True
            self._copy.leave()
            if not self._copy.whole:
                self._lease.abandon(self.path, failure(NOT_KEPT))
            held.close()
            self.logged.set()
        first_s = None if self._first_at is None else self._first_at - self._began_at
        done(self, Outcome(how, self.parts.model, self.parts.usage or {}, first_s, self.parts.retries))

    def _outcome(self, model: Model) -> str:
        """Publish the answer and its end; return how it ended."""
        try:
            self._answer(model)
        except Cancelled:
            return self._end(self._cancelled)
        except gevent.GreenletExit:  # the worker has no more time
            return self._end(DRAINED)
        except Exception as error:
            told = isinstance(error, StreamFailed | Problem)
            log.log(logging.WARNING if told else logging.ERROR, "%s: failed: %s", self.path, error, exc_info=not told)
            self._publish(self.parts.fail(public(error), _about(error) if self._first_at is None else {}))
            return "failed"
        return "finished"

    def _end(self, why: str) -> str:
        if self.events[-1].type in TERMINAL:  # it was whole before anybody could end it
            return "finished"
        log.info("%s: %s", self.path, why)
        self._publish(self.parts.fail(INTERRUPTED, {}) if why == DRAINED else self.parts.abort())
        return why

    def _answer(self, model: Model) -> None:
        source = model(self._take_beside)
        came: list[Event] = []
        try:
            while (event := self._pull(source)) is not self:
                if isinstance(event, Event):
                    join(came, event)
                elif came:
                    ready, came = came, []
                    self._take(ready)
        finally:
            try:
                source.close()  # type: ignore[attr-defined]  # a model's iterator is a generator
            finally:
                self._take(came)  # also what came with a failure, or just before it was ended

    def _pull(self, source: Iterator[Event | None]) -> Event | ChatRun | None:
        """Return the model's next event, this run at the end. Raises Cancelled, also while it waits."""
        if self._cancelled:
            raise Cancelled
        self._pulling = True
        try:
            return next(source, self)
        finally:
            self._pulling = False

    def _take(self, came: list[Event]) -> None:
        if not came:
            return
        parts = [part for event in came for part in self.parts.add(event)]
        ends = bool(parts) and parts[-1].type in TERMINAL
        if ends and self._lease.lapsed_since(self._began_at) and not self._copy.stands():
            raise StreamFailed(STOOD_STILL)
        self._publish(parts)
        if self.parts.size > self._limit_bytes:
            raise StreamFailed(f"An answer may have {self._limit_bytes} bytes, and this one has more.")

    def _take_beside(self, piece: Event) -> bool:
        """Take a piece of text while the run waits, which what came before it has left; in gevent's loop."""
        if self._cancelled or self.parts.size + len(piece.data) > self._limit_bytes:
            return False
        self._publish(self.parts.add(piece))
        return True

    def _publish(self, parts: list[Event]) -> None:
        if self._first_at is None and not PRELIMINARY.issuperset(part.type for part in parts):
            self._first_at = time.monotonic()
        self.events += parts
        if self._direct and parts:
            self._write_direct(parts)
        if self._waiters:
            self.tick()
        self._copy.more()

    def _refused(self) -> None:
        """The log takes no more of it."""
        self._cancelled = self._cancelled or DRAINED
        if not self.ended:
            # From the hub: thrown from here, the run would wait for this greenlet, which waits for it.
            gevent.get_hub().loop.run_callback(self._interrupt)

    def _write_direct(self, parts: list[Event]) -> None:
        ends = parts[-1].type in TERMINAL
        for direct in tuple(self._direct):
            if ends or not direct.write(parts):
                self._direct.discard(direct)
                direct.leave()


def _about(error: Exception) -> dict[str, Any]:
    """What a failure before the first token would have been as an answer: its status is told to who still can."""
    if not isinstance(error, Problem):
        return {"status": 500}
    retry = {} if error.retry_after_s is None else {"retryAfter": error.retry_after_s}
    return {"status": error.status, **retry}

"""Who reads the runs of chat of this worker, here and elsewhere, and what it reads of others.

Rules:
- A run that nobody reads goes on for a grace time, and is ended then. A reader in another worker counts as one here.
- Readers are counted, not asked; one whose worker was killed is forgotten after ``PRESENCE_S`` seconds.
- While there is anything to look after, and only then, a greenlet looks every ``TICK_S`` seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import gevent

from stores.base import Log
from stores.errors import StoreError
from streaming.chat_control import PRESENCE_S, Control, Told, owner
from streaming.chat_runs import LEFT, STOPPED, ChatRun
from streaming.events import TICK_S
from streaming.leases import CHATS

log = logging.getLogger("perennial.chat")


class Presence:
    """Of the worker whose ``runs`` these are, by id."""

    def __init__(self, store: Log, control: Control, runs: Mapping[str, ChatRun], grace_s: float) -> None:
        self._store = store
        self._control = control
        self._runs = runs
        self._grace_s = grace_s
        # Runs of this worker that others read, and until when that counts; runs of others that are read here.
        self._elsewhere: dict[str, dict[str, float]] = {}
        self._here: dict[str, int] = {}
        self._told_at = 0.0
        self._ticker: Any = None

    def enter(self, run: ChatRun) -> None:
        run.readers += 1

    def leave(self, run: ChatRun) -> None:
        run.readers -= 1
        run.seen_at = time.monotonic()
        self._end_unread(run)

    def enter_other(self, run_id: str) -> None:
        self._here[run_id] = self._here.get(run_id, 0) + 1
        if self._here[run_id] == 1:
            self._tell("reads", [run_id])
            self.keep_ticking()

    def leave_other(self, run_id: str) -> None:
        self._here[run_id] -= 1
        if self._here[run_id] == 0:
            del self._here[run_id]
            self._tell("left", [run_id])

    def forget(self, run_id: str) -> None:
        """The run is over."""
        self._elsewhere.pop(run_id, None)

    def told(self, told: Told) -> None:
        """Do what another worker has said."""
        for run_id in told.runs:
            if (run := self._runs.get(run_id)) is None:
                continue
            if told.what == "stop":
                run.cancel(STOPPED)
            elif told.what == "reads":
                self._elsewhere.setdefault(run_id, {})[told.by] = time.monotonic() + PRESENCE_S
            elif self._elsewhere.get(run_id, {}).pop(told.by, None) is not None:
                run.seen_at = time.monotonic()
                self._end_unread(run)

    def keep_ticking(self) -> None:
        if self._ticker is None:
            self._ticker = gevent.spawn(self._tick)

    def _end_unread(self, run: ChatRun) -> None:
        now = time.monotonic()
        seen_until = max(self._elsewhere.get(run.id, {}).values(), default=0.0)
        run.seen_at = max(run.seen_at, min(now, seen_until))
        if not run.readers and now - run.seen_at >= self._grace_s and now >= seen_until:
            run.cancel(LEFT)

    def _tell(self, what: Literal["reads", "left"], run_ids: Iterable[str]) -> None:
        """Tell the workers of these runs, unless that is this one, or the run is over."""
        by_owner: dict[str, list[str]] = {}
        for run_id in run_ids:
            if owner(run_id) != self._control.worker:
                by_owner.setdefault(owner(run_id), []).append(run_id)
        for worker, theirs in by_owner.items():
            try:
                if any(not self._store.state(CHATS + run_id).closed for run_id in theirs):
                    self._control.tell(worker, what, theirs)
            except StoreError:
                log.warning("worker %s could not be told of its readers here", worker)

    def _tick(self) -> None:
        """Let readers look up now and then, end what nobody reads, and tell others what is read here."""
        try:
            while self._runs or self._here:
                gevent.sleep(TICK_S)
                for run in tuple(self._runs.values()):
                    run.beat()
                    self._end_unread(run)
                if time.monotonic() - self._told_at >= PRESENCE_S / 3:
                    self._told_at = time.monotonic()
                    self._tell("reads", tuple(self._here))
        finally:
            self._ticker = None

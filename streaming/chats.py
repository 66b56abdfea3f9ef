"""The chats of a worker: which run answers a question, who reads it, and who may end it.

Rules:
- A question that is asked again while it is being answered (the same ``Idempotency-Key``, or the same last message of
  the same chat) joins the run that answers it; with a key also one that was answered.
- A run is in the log, under a slot and a lease, before its model is asked.
- Leaving is not stopping (``chat_presence``).
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
from gevent.lock import BoundedSemaphore

from settings import Settings
from stores.base import START, Config, Create, Log
from stores.errors import NoStream, StreamGone
from streaming import chat_counters, chat_readers
from streaming.chat_control import Control, owner
from streaming.chat_copy import Copies
from streaming.chat_index import Entry, Index, digest
from streaming.chat_parts import Parts
from streaming.chat_presence import Presence
from streaming.chat_readers import Reading
from streaming.chat_runs import STOPPED, ChatRun, Model, Outcome
from streaming.chat_slots import Slots
from streaming.errors import Conflict, NotFound, TooManyRequests, Unprocessable
from streaming.leases import CHATS, Lease

log = logging.getLogger("perennial.chat")

STOP_S = 5.0
# Of a crowd that asks at once, so many begin at a time: the tokens of those that have begun waited for all of it, with
# a p99 of 24 ms in place of 13. What that costs, 6 % of CPU, are commits with fewer beginnings in them.
_BEGIN_AT_ONCE = 3
_ATTEMPTS = 10
# Its worker, perhaps its caller's mark, and what makes it the only one.
_RUN_ID = re.compile("[0-9a-f]{16}(-[0-9a-f]{16}){1,2}")


@dataclass(frozen=True, slots=True)
class Ask:
    """A question as far as it decides which run answers it.

    ``chat``: the id that its client chose, "" if none; the run's own id then names the chat. ``same``: what makes it
    the same question as one before, "" if nothing does; ``key``: its Idempotency-Key; ``body``: all that was asked.
    ``mark``: whose its chat and its run are, "" for everybody's.
    """

    chat: str
    caller: str
    same: str = ""
    key: str = ""
    body: str = ""
    mark: str = ""


class Chats:
    """All of it in one worker: made once, after the fork; ``listen`` runs where there are other workers."""

    def __init__(self, store: Log, lease: Lease, settings: Settings) -> None:
        self._store = store
        self._lease = lease
        self._settings = settings
        self._index = Index(store, settings.RUN_KEEP_S)
        self._slots = Slots(store, lease, settings.CHAT_RUNS, settings.CHAT_RUNS_PER_CALLER)
        self._copies = Copies(store)
        self._beginning = BoundedSemaphore(_BEGIN_AT_ONCE)
        self._control = Control(store, lease.worker)
        self._config = Config("application/json", ttl_s=int(settings.RUN_KEEP_S))
        self._runs: dict[str, ChatRun] = {}
        self._presence = Presence(store, self._control, self._runs, settings.CHAT_GRACE_S)

    def running(self) -> int:
        return len(self._runs)

    def begin(self, ask: Ask, parts: Parts, model: Model) -> tuple[str, bool]:
        """Return the id of the run that answers, and whether it is a new one.

        Raises TooManyRequests, Unprocessable (the key came with another question), StoreError.
        """
        names = [digest("key", ask.caller, ask.key)] if ask.key else []
        names += [_name_of(ask.chat, ask.mark)] if ask.chat else []
        for _ in range(_ATTEMPTS):
            before = self._index.find(names[0]) if names else None
            if before and self._joinable(ask, before):
                self._complete(ask, before, names)
                chat_counters.JOINED.inc()
                return before.run, False
            try:
                with self._beginning:
                    run_id = self._begin_new(ask, parts, model, names, before)
            except TooManyRequests:
                chat_counters.REFUSED.inc()
                raise
            if run_id is not None:
                return run_id, True
        raise Conflict("This chat is asked too many questions at once.")

    def find(self, chat: str, mark: str = "") -> str:
        """Return the id of the last run of the caller's chat; a run's own id is the name of a chat, too.

        Raises NotFound.
        """
        entry = self._index.find(_name_of(chat, mark))
        run_id = entry.run if entry is not None else chat
        if (entry or _RUN_ID.fullmatch(chat)) and self._exists(run_id):
            return run_id
        raise NotFound("There is no answer of this chat: it was never asked, or is no longer kept.")

    def read(self, run_id: str, number: int = 0) -> Reading:
        """Return the source of the run's events after the ``number``-th. Raises NotFound."""
        if (run := self._runs.get(run_id)) is not None:
            return self._counted(run_id, chat_readers.Live(run, number))
        if not self._exists(run_id):
            raise NotFound("This answer is no longer kept.")
        return self._counted(run_id, chat_readers.logged(self._store, CHATS + run_id, number))

    def attend(self, run_id: str, source: Any) -> Reading:
        """Return ``source``, which reads the run in its own way, counted as a reader."""
        return self._counted(run_id, source)

    def ended(self, run_id: str) -> bool:
        """Whether all of the run is in the log. Raises NoStream."""
        return run_id not in self._runs and self._store.state(CHATS + run_id).closed

    def settle(self, run_id: str) -> None:
        """Return when the log has all of a run that has ended here: from then on no worker joins it."""
        if (run := self._runs.get(run_id)) is not None:
            run.logged.is_set() or run.logged.wait(STOP_S)

    def stop(self, run_id: str) -> dict[str, Any]:
        """End the run, in whatever worker it is, and return how it ended, with what it used; at most STOP_S later."""
        if (run := self._runs.get(run_id)) is not None:
            run.cancel(STOPPED)
            self.settle(run_id)
        elif not self._store.state(CHATS + run_id).closed:
            self._control.tell(owner(run_id), "stop", [run_id])
        return self._end_of(run_id, time.monotonic() + STOP_S)

    def listen(self) -> None:
        """Hear what other workers say, for ever."""
        self._control.hear(self._presence.told)

    def _begin_new(self, ask: Ask, parts: Parts, model: Model, names: list[str], before: Entry | None) -> str | None:
        """Return the id of a new run that answers; None when somebody else began one meanwhile."""
        run_id = "-".join(filter(None, (self._lease.worker, ask.mark, secrets.token_hex(8))))
        parts.message_id = parts.message_id or f"msg-{run_id}"
        run = ChatRun(self._copies, self._lease, run_id, parts, self._settings.CHAT_BYTES)
        with ExitStack() as stack:
            stack.enter_context(self._slots.holding(Create(run.path, self._config, run.begin()), ask.caller))
            if not self._found_by(ask, run, names, before):
                return None
            self._runs[run_id] = run
            chat_counters.RUNNING.inc()
            run.start(model, stack.pop_all(), self._done)
        self._presence.keep_ticking()
        return run_id

    def _found_by(self, ask: Ask, run: ChatRun, names: list[str], before: Entry | None) -> bool:
        """Let the run be found by ``names`` from now on; False when others have begun another."""
        latest = self._index.find(names[1]) if names[1:] else None
        entry = Entry(run.id, ask.body if ask.key else ask.same, after=latest.number if latest else 0)
        if names and not self._index.claim(names[0], entry, before):
            self._store.delete(run.path)
            return False
        for name in names[1:]:
            self._name(name, Entry(run.id, ask.same), latest)
        return True

    def _complete(self, ask: Ask, joined: Entry, names: list[str]) -> None:
        """Let the chat, too, lead to the run that its key has led to: who began it was killed between the two."""
        if names[1:]:
            latest = self._index.find(names[1])
            if (latest.number if latest else 0) == joined.after:
                self._index.claim(names[1], Entry(joined.run, ask.same), latest)

    def _name(self, name: str, entry: Entry, latest: Entry | None) -> None:
        for _ in range(_ATTEMPTS):
            if self._index.claim(name, entry, latest):
                return
            latest = self._index.find(name)

    def _joinable(self, ask: Ask, before: Entry) -> bool:
        if ask.key and before.asked != ask.body:
            raise Unprocessable("This Idempotency-Key came before with another question.", parameter="Idempotency-Key")
        if not ask.key and (not ask.same or before.asked != ask.same):
            return False
        if (run := self._runs.get(before.run)) is not None:
            return not run.ended or (bool(ask.key) and run.events[-1].type == "finish")
        try:
            state = self._store.state(CHATS + before.run)
        except (NoStream, StreamGone):
            return False
        return not state.closed or (bool(ask.key) and self._end_of(before.run)["outcome"] == "finished")

    def _exists(self, run_id: str) -> bool:
        if run_id in self._runs:
            return True
        try:
            self._store.state(CHATS + run_id)
        except (NoStream, StreamGone):
            return False
        return True

    def _end_of(self, run_id: str, until: float = 0.0) -> dict[str, Any]:
        """Return how the run ended, as far as that is known by ``until``."""
        path, after, last = CHATS + run_id, START, ""
        metadata: dict[str, Any] = {}
        while True:
            batch = self._store.read(path, after)
            for event in batch.events:
                after, last = event.id, event.type
                if event.type in ("message-metadata", "finish"):
                    metadata |= msgspec.json.decode(event.data)["messageMetadata"]
            if after == batch.tail and (batch.closed or (left := until - time.monotonic()) <= 0):
                break
            if after == batch.tail:
                self._store.wait(path, after, left)
        how = {"finish": "finished", "abort": "stopped", "error": "failed"}.get(last, "running")
        return {"run": run_id, "outcome": how, "usage": metadata.get("usage")}

    def _counted(self, run_id: str, source: Any) -> Reading:
        if (run := self._runs.get(run_id)) is not None:
            return Reading(source, lambda: self._presence.enter(run), lambda: self._presence.leave(run))
        entered, left = self._presence.enter_other, self._presence.leave_other
        return Reading(source, lambda: entered(run_id), lambda: left(run_id))

    def _done(self, run: ChatRun, outcome: Outcome) -> None:
        del self._runs[run.id]
        self._presence.forget(run.id)
        chat_counters.ended(outcome)


def _name_of(chat: str, mark: str) -> str:
    """Two callers that choose the same id mean two chats."""
    return digest("chat", mark, chat) if mark else digest("chat", chat)

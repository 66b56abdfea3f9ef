"""What workers tell each other about runs of chat: stop it; somebody reads it here.

Rules:
- A worker has one stream, in which the others write to it; a run's id begins with the worker that makes it.
- What is told may come late or twice. Nothing depends on its coming: a run that nobody stops comes to its own end.
- A reader in another worker is told again every ``PRESENCE_S`` / 3 seconds, so that one whose worker was killed is
  forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import gevent
import msgspec

from stores.base import START, Config, Log
from stores.errors import StoreError, UnknownOffset
from streaming.events import json_event

log = logging.getLogger("perennial.chat")

CONTROL = "chat-control/"
PRESENCE_S = 15.0
_WAIT_S = 30.0
_AGAIN_S = 1.0


class Told(msgspec.Struct, frozen=True):
    """``reads`` and ``left``: readers of ``runs`` in the worker ``by``, the last of which has gone."""

    what: Literal["stop", "reads", "left"]
    runs: list[str]
    by: str = ""


_decode = msgspec.json.Decoder(Told).decode


class Control:
    """This worker's ear and mouth; ``hear`` runs in a greenlet for as long as the worker lives."""

    def __init__(self, store: Log, worker: str) -> None:
        self.worker = worker
        self._store = store
        self._config = Config("application/json", ttl_s=3600, keep_events=1000)

    def tell(self, worker: str, what: Literal["stop", "reads", "left"], runs: Sequence[str]) -> None:
        """Write to another worker. Raises StoreError."""
        self._store.append(CONTROL + worker, [json_event(Told(what, list(runs), self.worker))], create=self._config)

    def hear(self, told: Callable[[Told], None]) -> None:
        """Call ``told`` with whatever the others write, as soon as it is there."""
        after = START
        path = CONTROL + self.worker
        while True:
            try:
                batch = self._store.read(path, after)
                for event in batch.events:
                    told(_decode(event.data))
                after = batch.events[-1].id if batch.events else batch.tail
                if not batch.events:
                    self._store.wait(path, after, _WAIT_S)
            except UnknownOffset:
                after = START  # it expired while nobody had anything to say
            except StoreError:
                log.exception("what other workers say is not heard, and asked for again")
                gevent.sleep(_AGAIN_S)


def owner(run_id: str) -> str:
    """Return the worker that makes the run."""
    return run_id.partition("-")[0]

"""Who works on what, and how somebody else gets it: within a second, on any worker.

Rules:
- The lock is the store's, and the kernel frees that of a killed worker. This is for the living ones: a client that lost
  its connection comes back at once, while the request it has lost still waits for it.
- The newest request wins. Whoever holds what it wants is told to let go, by name in this worker, through the log in
  every other one; it keeps what has arrived, and gives the lock back.
- A claim that is not heard is made again; a claim for what nobody holds is nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import gevent
from gevent.monkey import is_module_patched

from stores.base import START, Config, Log
from stores.errors import NoStream, StoreError, UnknownOffset
from streaming.events import Event
from streaming.tus import refusal

log = logging.getLogger("perennial.claims")

CLAIMS = "claims/uploads"
TAKE_S = 10.0
_LOOK_S = 0.02
_CLAIM_S = 0.5
_FOLLOW_S = 5.0
_KEPT = Config("text/plain", ttl_s=60, keep_events=100)


class Releasable(Protocol):
    def release(self) -> None: ...


Held = TypeVar("Held", bound=Releasable)


class Holder:
    """Who holds something: ``let_go`` is what to call when somebody else wants it, set as soon as it can be called."""

    def __init__(self) -> None:
        self._let_go: Callable[[], None] | None = None
        self._wanted = False

    def listen(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        if self._wanted:
            let_go()

    def claimed(self) -> None:
        self._wanted = True
        if self._let_go is not None:
            self._let_go()


class Claims:
    """This worker's holders, by the id of what they hold."""

    def __init__(self, store: Log) -> None:
        self._store = store
        self._holders: dict[str, Holder] = {}
        self._follower: Any = None
        self._users = 0

    @contextlib.contextmanager
    def taking(self, id: str, hold: Callable[[], Held | None]) -> Iterator[tuple[Held, Holder]]:
        """Hold ``id`` while this block runs, taking it from whoever has it. Raises Locked, and what ``hold`` raises."""
        holder = Holder()
        self._listen()
        held = self._take(id, hold)
        self._holders[id] = holder
        try:
            yield held, holder
        finally:
            held.release()
            if self._holders.get(id) is holder:
                del self._holders[id]
            self._rest()

    def _take(self, id: str, hold: Callable[[], Held | None]) -> Held:
        deadline, claim_at = time.monotonic() + TAKE_S, 0.0
        try:
            while (held := hold()) is None:
                now = time.monotonic()
                if now > deadline:
                    raise refusal("locked")
                if now >= claim_at:
                    claim_at = now + _CLAIM_S
                    self._claim(id)
                gevent.sleep(_LOOK_S)
            return held
        except BaseException:
            self._rest()
            raise

    def _claim(self, id: str) -> None:
        if holder := self._holders.get(id):
            holder.claimed()
        else:
            with contextlib.suppress(StoreError):  # it is made again
                self._store.append(CLAIMS, [Event(id.encode())], create=_KEPT)

    def _listen(self) -> None:
        """Hear of every claim that is made from now on."""
        self._users += 1
        # Without gevent's patches this is no worker among others, and the log's wait would stop the whole process.
        if self._follower is None and is_module_patched("threading"):
            self._follower = gevent.spawn(self._follow, self._tail())

    def _rest(self) -> None:
        self._users -= 1
        if not self._users and self._follower is not None:
            self._follower.kill(block=False)
            self._follower = None

    def _tail(self) -> str:
        try:
            return self._store.state(CLAIMS).tail
        except NoStream:
            return START

    def _follow(self, after: str) -> None:
        while True:
            try:
                for event in self._store.read(CLAIMS, after).events:
                    after = event.id
                    if holder := self._holders.get(event.data.decode()):
                        holder.claimed()
                self._store.wait(CLAIMS, after, _FOLLOW_S)
            except UnknownOffset:
                after = START  # the stream expired, and is another one now
            except StoreError:
                log.exception("claims were not read, and that is tried again")
                gevent.sleep(1.0)

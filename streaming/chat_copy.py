"""The copy of a run of chat in the log: the same events in the same order, ``JOIN_S`` later at most.

Rules:
- Two copies of one list, of which this one may be shorter. Only when it is whole has the run ended for other workers.
- All runs of a worker append at the same moments, so that their commits are one.
- A log that is away is asked again for ``PATIENCE_S`` seconds; one that refuses an append is not.
- An append whose answer was lost may have happened: they are numbered, so that again it adds nothing. A log that came
  back with less than it had acknowledged is given that again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event as Flag

from stores.base import Log, Producer
from stores.errors import NoStream, SequenceGap, StoreError, StreamClosed, StreamGone
from streaming.events import Event

log = logging.getLogger("perennial.chat")

JOIN_S = 0.05
PATIENCE_S = 60.0
BUSY_S = 0.5
_WRITER = "chat"


class Copy:
    """Of ``events``, which grow, in the stream ``path``. ``whole``: it has all of them, and its end."""

    def __init__(self, store: Log, path: str, events: Sequence[Event]) -> None:
        self.whole = False
        self._store = store
        self._path = path
        self._events = events
        self._count = 0
        # How many events there were before each append.
        self._appends: list[int] = []
        self._ended = False
        self._due = Flag()
        self._awaited = False

    def begun_with(self, count: int) -> None:
        """The stream was made with so many of them."""
        self._count = count

    def more(self) -> None:
        """There are more events than before."""
        if not self._awaited:
            self._awaited = True
            _moments.call(self._due.set)

    def end(self) -> None:
        """There will be no more, and the rest is written at once."""
        self._ended = True
        self._due.set()

    def write(self, refused: Callable[[], None]) -> None:
        """Append what is new, joined in time; return when it is whole, or the log has ``refused`` it for good."""
        while not self.whole:
            self._due.wait()
            self._due.clear()
            self._awaited = False
            ended = self._ended
            if (len(self._events) > self._count or ended) and not self._append(self._events[self._count :], ended):
                return refused()
            self.whole = ended
        return None

    def _append(self, new: Sequence[Event], ended: bool) -> bool:
        """Whether the log has taken them, at last."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                number = Producer(_WRITER, 0, len(self._appends))
                self._store.append(self._path, new, producer=number, close=ended)
                self._appends.append(self._count)
                self._count += len(new)
                return True
            except SequenceGap as error:
                log.warning("%s: the log has lost some of it, and is given that again", self._path)
                before, self._count = self._count, self._appends[error.expected]
                new = [*self._events[self._count : before], *new]
                del self._appends[error.expected :]
            except (StreamClosed, NoStream, StreamGone) as error:
                # Others took this worker for dead, or somebody deleted it.
                log.error("%s: the log takes no more of it: %s", self._path, error)
                return False
            except StoreError as error:
                log.warning("%s: the log is asked again: %s", self._path, error)
                if time.monotonic() > give_up_at:
                    return False
                gevent.sleep(BUSY_S)


class _Moments:
    """The moments at which runs append, by one timer: one for each run cost 10 of the 200 µs of a token."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def call(self, function: Callable[[], None]) -> None:
        """Call it in the hub when the next moment has come."""
        if not self._calls:
            timer = gevent.get_hub().loop.timer(JOIN_S - time.monotonic() % JOIN_S)
            timer.start(self._come, timer)
        self._calls.append(function)

    def _come(self, timer: Any) -> None:
        timer.close()
        calls, self._calls = self._calls, []
        for function in calls:
            function()


_moments = _Moments()

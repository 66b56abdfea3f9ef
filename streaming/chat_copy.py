"""The copies of a worker's runs of chat in the log: the same events in the same order, ``JOIN_S`` later at most.

Rules:
- Two copies of one list, of which this one may be shorter. Only when it is whole has the run ended for other workers.
- All runs of a worker append at the same moments, by one greenlet and in one call: a wake-up, a commit and the
  statements of an append for each of them were a third of a token's cost.
- A log that is away is asked again for ``PATIENCE_S`` seconds; one that refuses an append is not.
- An append whose answer was lost may have happened: they are numbered, so that the same again adds nothing. A log that
  came back with less than it had acknowledged is given that again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import gevent
from gevent.event import Event as Flag

from stores.base import Append, Log, Producer
from stores.errors import NoStream, SequenceGap, StoreError, StreamClosed, StreamGone
from streaming.events import Event

log = logging.getLogger("perennial.chat")

JOIN_S = 0.05
# Meanwhile its slot is held: there are no more of them in memory than may run.
PATIENCE_S = 600.0
BUSY_S = 0.5
_WRITER = "chat"
# The loop waits for the statements of so many appends, some 2 ms.
_MOST = 128


class Copy:
    """Of ``events``, which grow, in the stream ``path``. ``whole``: it has all of them, and its end.

    ``done``: it is whole, or the log has ``refused`` it for good, or nobody waits for that.
    """

    def __init__(self, copies: Copies, path: str, events: Sequence[Event], refused: Callable[[], None]) -> None:
        self.path = path
        self.whole = False
        self.done = Flag()
        self._copies = copies
        self._events = events
        self._refused = refused
        self._count = 0
        # How many events there were before each append.
        self._appends: list[int] = []
        # Up to where the append goes that is not answered yet, and whether it closes: again, it must be the same.
        self._asked: tuple[int, bool] | None = None
        self._ended = False
        self._awaited = False
        self._failing_since: float | None = None
        self._resting = False

    def begun_with(self, count: int) -> None:
        """The stream was made with so many of them."""
        self._count = count

    def more(self) -> None:
        """There are more events than before."""
        if not self._awaited:
            self._awaited = True
            self._copies.later(self)

    def end(self) -> None:
        """There will be no more, and the rest is written at once."""
        self._ended = True
        if self._failing_since is None:
            self._copies.now(self)

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.done.set()

    def stands(self) -> bool:
        """Whether the log would take more of it, as far as can be known."""
        return not self.done.is_set() and not self._copies.is_over(self.path)

    def next(self) -> Append | None:
        """Return what is to be appended, None when there is nothing, or the log is not to be asked yet."""
        if self._resting:
            return None
        self._awaited = False
        if self.done.is_set():
            return None
        if self._asked is None:
            self._asked = len(self._events), self._ended
        upto, ended = self._asked
        if upto == self._count and not ended:
            self._asked = None
            return None
        return Append(self.path, self._events[self._count : upto], Producer(_WRITER, 0, len(self._appends)), ended)

    def answered(self, error: StoreError | None) -> None:
        """Take what the log has answered to it."""
        if error is None:
            self._taken()
        elif isinstance(error, SequenceGap):
            log.warning("%s: the log has lost some of it, and is given that again", self.path)
            self._count, self._asked = self._appends[error.expected], None
            del self._appends[error.expected :]
            self._copies.now(self)
        elif isinstance(error, StreamClosed | NoStream | StreamGone):
            # Others took this worker for dead, or somebody deleted it.
            log.error("%s: the log takes no more of it: %s", self.path, error)
            self.refuse()
        else:
            self._failed(error)

    def rested(self) -> None:
        """The log may be asked again."""
        self._resting = False
        self._copies.now(self)

    def refuse(self) -> None:
        """The log takes no more of it."""
        self.done.set()
        self._refused()

    def _taken(self) -> None:
        assert self._asked
        self._appends.append(self._count)
        self._count, self.whole = self._asked
        self._asked = self._failing_since = None
        if self.whole:
            self.done.set()
        elif self._ended:
            self._copies.now(self)

    def _failed(self, error: StoreError) -> None:
        log.warning("%s: the log is asked again: %s", self.path, error)
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > PATIENCE_S:
            return self.refuse()
        # Until then nothing else asks for it; what came during this call has its turn already, which is to pass.
        self._awaited = self._resting = True
        return self._copies.after(BUSY_S, self)


class Copies:
    """The copies of a worker in ``store``: which of them have something to append, and when that is done."""

    def __init__(self, store: Log) -> None:
        self._store = store
        self._later: list[Copy] = []
        self._due: dict[Copy, None] = {}
        self._greenlet: Any = None

    def is_over(self, path: str) -> bool:
        """Whether others have closed or deleted the stream; a log that is away does not say so."""
        try:
            return self._store.state(path).closed
        except (NoStream, StreamGone):
            return True
        except StoreError:
            return False

    def later(self, copy: Copy) -> None:
        """Let it append at the next of the moments that all have in common."""
        if not self._later:
            _call_after(JOIN_S - time.monotonic() % JOIN_S, self._come)
        self._later.append(copy)

    def now(self, copy: Copy) -> None:
        self._due[copy] = None
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._write)

    def after(self, seconds: float, copy: Copy) -> None:
        _call_after(seconds, copy.rested)

    def _come(self) -> None:
        copies, self._later = self._later, []
        for copy in copies:
            self.now(copy)

    def _write(self) -> None:
        try:
            while self._due:
                copies = list(islice(self._due, _MOST))
                for copy in copies:
                    del self._due[copy]
                self._append([(copy, append) for copy in copies if (append := copy.next()) is not None])
        finally:
            self._greenlet = None

    def _append(self, pairs: Sequence[tuple[Copy, Append]]) -> None:
        answers: Sequence[StoreError | None]
        try:
            answers = self._store.append_each([append for _, append in pairs]) if pairs else ()
        except StoreError as error:
            answers = [error] * len(pairs)
        except Exception:
            log.exception("runs of chat could not be written to the log")
            for copy, _ in pairs:
                copy.refuse()
            return
        for (copy, _), answer in zip(pairs, answers, strict=True):
            copy.answered(answer)


def _call_after(seconds: float, function: Callable[[], None]) -> None:
    """Call it in the hub."""
    timer = gevent.get_hub().loop.timer(seconds)

    def come() -> None:
        timer.close()
        function()

    timer.start(come)

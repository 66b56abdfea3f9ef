"""Sources that read a run of chat, live or from the log: what is after the ``number``-th event, or wait.

Rules:
- A reader is counted while it reads: a run that nobody reads is ended after a grace time (``chats``).
- The end is always told: a reader whose worker was killed may have seen more than the log has kept, and is told how it
  ended all the same.
- It yields None before it waits and at every tick, as every source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stores.base import START, Log
from streaming.chat_direct import Direct
from streaming.chat_parts import TERMINAL
from streaming.chat_runs import ChatRun
from streaming.events import Event, Source
from streaming.framings import Framing
from streaming.readers import Follow
from streaming.wire import Link


class Reading:
    """A source, counted by ``entered`` and ``left`` from its making to its ``close``."""

    def __init__(self, source: Iterator[Event | None], entered: Callable[[], None], left: Callable[[], None]) -> None:
        self._source = source
        self._left: Callable[[], None] | None = left
        entered()

    def __iter__(self) -> Reading:
        return self

    def __next__(self) -> Event | None:
        return next(self._source)

    def park(self, link: Link, framing: Framing, heartbeat_s: float) -> float | None:
        return self._source.park(link, framing, heartbeat_s) if isinstance(self._source, Live) else None

    def close(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            try:
                self._source.close()  # type: ignore[attr-defined]  # all of ours can be
            finally:
                left()


class Live:
    """What this worker's run has after its ``number``-th event, until its end."""

    def __init__(self, run: ChatRun, number: int) -> None:
        self._run = run
        self._number = number
        self._told_nothing = False

    def __iter__(self) -> Live:
        return self

    def __next__(self) -> Event | None:
        run = self._run
        if self._told_nothing:
            run.wait(self._number)
        if run.ended and self._number > len(run.events):
            self._number = len(run.events) - 1  # a cursor from nowhere: the end is told all the same
        if self._number < len(run.events):
            self._number += 1
            self._told_nothing = False
            return run.events[self._number - 1]
        if run.ended:
            raise StopIteration
        self._told_nothing = True
        return None

    def park(self, link: Link, framing: Framing, heartbeat_s: float) -> float | None:
        """Let the run write to the connection until it has to go on by itself; return when that was last done.

        None: it cannot, or has nothing to wait for. Raises Interrupted.
        """
        run = self._run
        if link.socket is None or not link.chunked or run.ended or self._number != len(run.events):
            return None
        direct = Direct(link.socket.fileno(), framing, self._number, heartbeat_s)
        run.park(direct)
        try:
            link.park(direct.wait, probe=direct.idle)
        finally:
            run.unpark(direct)
            link.beside_events += direct.number - self._number
            self._number = direct.number
            self._told_nothing = False  # whatever there is to do now, a heartbeat perhaps, is not to wait
            link.complete(direct.unwritten, direct.written)
        return direct.wrote_at

    def close(self) -> None:
        pass


def logged(log: Log, path: str, number: int) -> Source:
    """Yield what the log has, and will have, of the run at ``path`` after its ``number``-th event, until its end."""
    source = Follow(log, path, START)
    try:
        for event in source:
            if event is None:
                yield None
                continue
            number -= 1
            if number < 0 or event.type in TERMINAL:
                yield Event(event.data, event.type)
    finally:
        source.close()

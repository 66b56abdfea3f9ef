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
from streaming.chat_parts import TERMINAL
from streaming.chat_runs import ChatRun
from streaming.events import Event, Source
from streaming.readers import Follow


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

    def close(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            try:
                self._source.close()  # type: ignore[attr-defined]  # they are generators
            finally:
                left()


def live(run: ChatRun, number: int) -> Source:
    """Yield what this worker's run has after its ``number``-th event, until its end."""
    events = run.events
    number = min(number, len(events) - 1 if run.ended else number)
    while True:
        while number < len(events):
            yield events[number]
            number += 1
        if run.ended:
            return
        yield None
        run.wait(number)


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

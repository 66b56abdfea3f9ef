"""Sources that work apart from the response that reads them.

Rules:
- What blocks in a library (a model's client, a thread) runs in a greenlet of its own; its reader gets None at every
  tick, so heartbeats leave and a gone client is noticed while nothing comes.
- The queue between the two is bounded: a slow reader holds up its own producer, and no memory grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import gevent
from gevent.queue import Empty, Queue

from streaming.events import TICK_S, Event

_END: Final = object()


class Feed:
    """A blocking iterator at work in a greenlet of its own, read as a source.

    ``make`` is called in that greenlet. Reading raises what the iterator raised. ``close`` throws GreenletExit into
    it where it waits and returns when its ``finally`` blocks have run, at most a second later.
    """

    def __init__(self, make: Callable[[], Iterator[Event]], ahead: int = 64) -> None:
        self._queue: Queue[object] = Queue(ahead)
        self._told_nothing = False
        self._ended = False
        self._producer = gevent.spawn(self._produce, make)

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Event | None:
        if self._ended:
            raise StopIteration
        item = self._take()
        if isinstance(item, Event):
            self._told_nothing = False
            return item
        if item is None:
            return None
        self._ended = True
        if isinstance(item, Exception):
            raise item
        raise StopIteration

    def close(self) -> None:
        self._ended = True
        self._producer.kill(timeout=1)

    def _take(self) -> object:
        try:
            # None comes before the wait, so that what was read until now is written.
            return self._queue.get(timeout=TICK_S) if self._told_nothing else self._queue.get_nowait()
        except Empty:
            self._told_nothing = True
            return None

    def _produce(self, make: Callable[[], Iterator[Event]]) -> None:
        try:
            iterator = make()
            try:
                for event in iterator:
                    self._queue.put(event)
            finally:
                if (close := getattr(iterator, "close", None)) is not None:
                    close()
        except gevent.Timeout as error:  # no Exception, and untold the reader would wait for ever
            self._queue.put(TimeoutError(str(error)))
        except Exception as error:  # told to the reader, which logs it
            self._queue.put(error)
        else:
            self._queue.put(_END)

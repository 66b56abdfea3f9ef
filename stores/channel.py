"""A bounded channel from one native thread to one reader in a gevent hub.

Rules:
- The work runs in a thread of the operating system, also after ``monkey.patch_all()``: a query that scans or sorts
  would stop every greenlet of the worker. ``threading.Thread`` is no such thread there, its start is patched.
- In the native thread nothing patched is touched: only deque, SimpleQueue and an async watcher of the reader's loop.
  gevent's ``run_callback_threadsafe`` will not do: it counts a reference in the loop while the loop, outside Python's
  lock, may count another; the lost one ended an export in LoopExit ("ref=-1", gevent 26.9).
- The writer waits for a place natively; the reader waits cooperatively, and is woken, not polled.
- A reader that closes cancels the writer, wherever that is: at work, waiting for a place, or not yet begun.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from gevent import get_hub
from gevent.event import Event
from gevent.monkey import get_original

from streaming.events import TICK_S

_SimpleQueue = get_original("queue", "SimpleQueue")
_start_thread = get_original("_thread", "start_new_thread")
_native_id = get_original("_thread", "get_native_id")

T = TypeVar("T")


def _yield_to_loop() -> None:
    """Let the event loop's thread go first: on a busy machine a request waited 18 ms behind four exports."""
    with suppress(OSError, AttributeError):  # Linux gives each thread a nice value of its own
        os.setpriority(os.PRIO_PROCESS, _native_id(), 10)


class Cancelled(Exception):
    """Raised in the writer when its reader has closed the channel."""


class Channel(Generic[T]):
    """Made in the reader's thread; ``run`` is called with the channel in a native thread by ``read``.

    ``interrupt`` is called in the reader's thread when it closes early, to end what ``run`` is doing.
    """

    def __init__(self, run: Callable[[Channel[T]], None], interrupt: Callable[[], None], places: int = 4) -> None:
        self._run = run
        self._interrupt = interrupt
        self._items: deque[T] = deque()
        self._places = _SimpleQueue()
        for _ in range(places):
            self._places.put(None)
        self._bell = get_hub().loop.async_()
        self._ready = Event()
        self._failure: Exception | None = None
        self._ended = False
        self._closed = False

    def read(self) -> Iterator[T | None]:
        """Start the writer and yield what it puts, None before each wait and at every tick; raise what it raised."""
        self._bell.start(self._ready.set)
        try:
            _start_thread(self._write, ())
            while True:
                ended = self._ended  # before the last look at the items: what was put before the end is still read
                while self._items:
                    item = self._items.popleft()
                    self._places.put(None)
                    yield item
                if ended:
                    break
                yield None
                self._wait()
        finally:
            self.close()
            self._bell.stop()
        if self._failure is not None:
            raise self._failure

    def close(self, failure: Exception | None = None) -> None:
        """Cancel the writer and return at once; a reader that is still there gets ``failure``."""
        if self._ended or self._closed:
            return
        self._failure = failure
        self._closed = True
        self._places.put(None)
        self._interrupt()

    def put(self, item: T) -> None:
        """Wait for a place and hand ``item`` over. Raises Cancelled. Only in the writer."""
        self._places.get()
        self.check()
        self._items.append(item)
        self._wake()

    def has_place(self) -> bool:
        """Whether the next ``put`` will not wait. Only in the writer."""
        return not self._places.empty()

    def check(self) -> None:
        """Raise Cancelled when the reader has closed. Only in the writer."""
        if self._closed:
            raise Cancelled

    def _write(self) -> None:
        _yield_to_loop()
        try:
            self._run(self)
        except Exception as failure:
            # After a close the failure is the interrupt's own doing.
            if not self._closed:
                self._failure = failure
        finally:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        with suppress(Exception):  # the reader's hub may be gone, and with it whoever could be woken
            self._bell.send()

    def _wait(self) -> None:
        # The event is set in the hub only, so nothing can come between these two and be lost: at worst a wait is short.
        if not self._items and not self._ended:
            # gevent's wait(timeout) can hang for ever when set() meets the time-out, unless is_set() is asked first.
            self._ready.is_set() or self._ready.wait(TICK_S)
        self._ready.clear()

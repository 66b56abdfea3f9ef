"""One stream's fair share of its worker, and the shortest of rests.

Rules:
- Work that need not wait for anything is done in slices of a millisecond, or every other request waits for it.
- Those that work at the same time share one slice.
"""

from __future__ import annotations

import time

import gevent
from gevent.hub import Waiter

# In one rest a request gets on by one step only, and it needs the loop some five times.
SLICE_S = 0.001


class Pace:
    """One stream's fair share of the worker: ``rest`` between two steps of work that need not wait for anything.

    A stream that works alone rests after ``SLICE_S`` seconds; those that work at the same time share one such slice,
    or another request would wait for all of theirs in turn (six transfers: 18 ms).
    """

    _resting = 0

    def __init__(self) -> None:
        self._since = time.monotonic()

    def rest(self) -> bool:
        """Let others run if it is time; return whether it was."""
        if time.monotonic() - self._since >= SLICE_S / (1 + Pace._resting):
            Pace._resting += 1
            try:
                look_around()
            finally:
                Pace._resting -= 1
            self._since = time.monotonic()
            return True
        return False


def look_around() -> None:
    """Let the loop look once at all its sockets, and whoever hears of them by it run.

    The shortest rest there is, 3 µs where nothing has happened: gevent.sleep rests for a millisecond at the least, in
    which 1 GiB would lose 0.4 s; and sleep(0) lets the loop's callbacks run, but not look at a socket.
    """
    hub = gevent.get_hub()
    waiter: Waiter[None] = Waiter(hub)
    awake = hub.loop.async_()
    try:
        awake.start(waiter.switch, None)
        awake.send()
        waiter.get()
    finally:
        awake.stop()
        awake.close()

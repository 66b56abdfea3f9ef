"""One stream's fair share of its worker, and the shortest of rests.

Rules:
- Work that need not wait for anything is done in slices of a few milliseconds, or every other request waits for it.
- Those that work at the same time share one slice.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.monkey
import gevent.socket

SLICE_S = 0.003
# For those that rest by ``look_around``, in which a request that needs the loop twice gets on by one step only.
SHORT_SLICE_S = 0.001
# gevent.sleep(0) does not let the hub serve other sockets in time (1,065 ms of p99 beside an upload); this does (9 ms).
_REST_S = 0.0001


def _nap() -> None:
    gevent.sleep(_REST_S)


class Pace:
    """One stream's fair share of the worker: ``rest`` between two steps of work that need not wait for anything.

    A stream that works alone rests after ``SLICE_S`` seconds; those that work at the same time share one such slice,
    or another request would wait for all of theirs in turn (six transfers: 18 ms).
    """

    _resting = 0

    def __init__(self, slice_s: float = SLICE_S) -> None:
        self._slice_s = slice_s
        self._since = time.monotonic()

    def rest(self, wait: Callable[[], None] = _nap) -> bool:
        """Let others run if it is time, in ``wait``, which is to be short; return whether it was."""
        if time.monotonic() - self._since >= self._slice_s / (1 + Pace._resting):
            Pace._resting += 1
            try:
                wait()
            finally:
                Pace._resting -= 1
            self._since = time.monotonic()
            return True
        return False


def look_around(connection: Any) -> None:
    """Let the loop look once at all its sockets, of which ``connection``, one of gevent's, is ready to be written to.

    The shortest rest there is: gevent sleeps for a millisecond at the least, in which 1 GiB would lose 0.4 s. Nothing
    where the connection is not ready: the next write will wait.
    """
    poll = gevent.monkey.get_original("select", "poll")()
    poll.register(connection.fileno(), select.POLLOUT)
    if poll.poll(0):
        gevent.socket.wait(connection._write_event)

"""A connection that has caught up with its stream, written to by that stream's end (``fanout``) while it waits.

Rules:
- Its own greenlet does nothing meanwhile but wait, and completes what was written in part before it writes anything.
- Its reader goes on after what was written to it, and so does the cursor of its heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent
from gevent.hub import Waiter

from streaming.connections import forget_headers
from streaming.framings import Shareable
from streaming.readers import Follow
from streaming.wire import Link

if TYPE_CHECKING:
    from streaming.fanout import Tail


class Parked:
    """A connection that stands at a tail, written to by others while it ``wait``s.

    ``until``: when its reader ends by itself (time.monotonic). ``after``: so far goes what was written to it, with
    ``unwritten``, of which nothing was.
    """

    __slots__ = (
        "_framing",
        "_link",
        "_source",
        "_tail",
        "_waiter",
        "after",
        "counted",
        "events",
        "fd",
        "turn",
        "until",
        "unwritten",
    )

    def __init__(self, tail: Tail, link: Link, source: Follow, framing: Shareable) -> None:
        self._tail = tail
        self._link = link
        self._source = source
        self._framing = framing
        self.fd = link.socket.fileno()
        self.until = source.ends_at
        self.turn = self.counted = self.events = 0
        self.after = ""
        self.unwritten: bytes | memoryview = b""
        self._waiter: Waiter[None] = Waiter()

    def wait(self) -> None:
        """Wait for as long as others can write; afterwards the reader stands after what was written.

        The next heartbeat of its framing says so, too. Raises Interrupted.
        """
        forget_headers(self._link.environ)
        try:
            self._link.park(self._waiter.get, probe=self._beat)
        finally:
            written = self._tail.leave(self)
            self._source.skip(self.after)
            self._framing.passed(self.after)
            self._link.beside_events += self.events
            self._link.complete(self.unwritten, written)

    def wake(self) -> None:
        gevent.get_hub().loop.run_callback(self._waiter.switch, None)

    def _beat(self) -> bytes | None:
        return self._tail.beat(self, self._framing)


def heartbeat(framing: Shareable, after: str) -> bytes:
    """The framing's heartbeat for one who stands after ``after``."""
    framing.passed(after)
    return framing.idle()

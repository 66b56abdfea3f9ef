"""All open responses of a worker: watched for clients that have gone, swept for those that do not read, drained.

Rules:
- One epoll set per worker, under one gevent watcher on the epoll's own descriptor: 4 microseconds a stream, and no
  byte of the connection is read.
"""

from __future__ import annotations

import contextlib
import logging
import select
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gevent
import gevent.monkey

from streaming.errors import Unavailable
from streaming.pace import Pace

if TYPE_CHECKING:
    from streaming.wire import Link

log = logging.getLogger("perennial.wire")

SWEEP_S = 2.0
_EITHER_END = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLONESHOT", 0)

# Of a thousand that leave in one moment the others are heard of in the next turns.
_AT_ONCE = 16


class Links:
    """All open responses of this worker.

    ``ended_bytes``, ``ended_events``: what those had that are no longer open. ``parked_bytes``, ``parked_events``: what
    was written to parked connections by others; a link itself does not count it.
    """

    def __init__(self) -> None:
        self.ended_bytes = self.ended_events = 0
        self.parked_bytes = self.parked_events = 0
        self.draining = False
        self._open: set[Link] = set()
        self._by_fd: dict[int, Link] = {}
        self._epoll: Any = None
        self._send_timeout_s = 30.0
        # For the worker: how long the head of a connection's first request may take.
        self.headers_s = 15.0
        self._sweeper: Any = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Link]:
        """Those that are open now; some may have ended before their turn."""
        return iter(tuple(self._open))

    def configure(self, send_timeout_s: float, headers_s: float) -> None:
        self._send_timeout_s = send_timeout_s
        self.headers_s = headers_s

    def check_place(self, most: int) -> None:
        """Raise Unavailable where ``most`` are open already."""
        if len(self._open) >= most:
            raise Unavailable("The server has as many open streams as it takes; try again later.", retry_after_s=5)

    def add(self, link: Link) -> None:
        self._open.add(link)
        if link.socket is not None:
            if self._epoll is None:
                self._start()
            self._by_fd[link.socket.fileno()] = link
            self._epoll.register(link.socket.fileno(), _EITHER_END)

    def discard(self, link: Link) -> None:
        self._open.discard(link)
        if link.socket is not None and self._by_fd.get(fd := link.socket.fileno()) is link:
            del self._by_fd[fd]
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def watch(self, link: Link) -> None:
        """Hear again of a connection whose client has closed its side, or both."""
        self._epoll.modify(link.socket.fileno(), _EITHER_END)

    def watch_closed(self, link: Link) -> None:
        """From now on hear only of a connection that is closed both ways or reset."""
        self._epoll.modify(link.socket.fileno(), select.EPOLLONESHOT)

    def drain(self) -> None:
        """End what its client will continue elsewhere; the rest goes on to its end."""
        self.draining = True
        for link in tuple(self._open):
            gevent.get_hub().loop.run_callback(link.drain)

    def sent(self, pace: Pace) -> tuple[int, int]:
        """How many bytes and events all have been sent so far, those that have ended among them."""
        moved, events = self.parked_bytes, self.parked_events
        for link in self:
            moved, events = moved + link.sent_bytes, events + link.events
            pace.rest()
        return moved + self.ended_bytes, events + self.ended_events

    def slowest_s(self, now: float, pace: Pace) -> float:
        """How long the client has acknowledged nothing whose write has waited longest."""
        slowest = 0.0
        for link in tuple(self._open):
            slowest = max(slowest, link.blocked_s(now))
            pace.rest()
        return slowest

    def _start(self) -> None:
        hub = gevent.get_hub()
        self._epoll = gevent.monkey.get_original("select", "epoll")()
        self._watcher = hub.loop.io(self._epoll.fileno(), 1)
        self._watcher.start(self._hung_up)
        self._sweeper = gevent.spawn(self._sweep)

    def _hung_up(self) -> None:
        loop = gevent.get_hub().loop
        for fd, mask in self._epoll.poll(0, _AT_ONCE):
            if link := self._by_fd.get(fd):
                loop.run_callback(link.hung_up, not mask & (select.EPOLLHUP | select.EPOLLERR))

    def _sweep(self) -> None:
        """Cut those that do not read: each holds a greenlet, and the kernel's buffers."""
        while True:
            gevent.sleep(SWEEP_S)
            pace = Pace()
            for link in self:
                if link in self._open and link.stalled(time.monotonic(), self._send_timeout_s):
                    log.info("a client that has not read for %g s is cut", self._send_timeout_s)
                    gevent.get_hub().loop.run_callback(link.give_up)
                pace.rest()


links = Links()

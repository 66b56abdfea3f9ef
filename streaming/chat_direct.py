"""A reader of chat that has caught up with a run in its own worker is written to by the run itself.

As in ``fanout``, for the many streams with one reader each that chat has: a token goes from the model's socket to the
reader's in one greenlet, without waking another and without six layers of generators (20 µs a token).

Rules:
- It is an optimisation of ``chat_readers.Live`` and nothing else: whoever cannot be parked reads the run's events for
  itself, and writes the same bytes with the same framing.
- Parked is only who stands exactly at the run's end. Its connection stays its own: it leaves before that is closed.
- A chunk that was written in part is completed by its own greenlet before anything else; the end is never written here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import gevent
from gevent.hub import Waiter

from streaming.events import Event
from streaming.framings import Framing
from streaming.links import links


class Direct:
    """A parked connection, ``number`` events into its run. ``wrote_at``: time.monotonic."""

    def __init__(self, fd: int, framing: Framing, number: int, heartbeat_s: float) -> None:
        self.number = number
        self.written = 0
        self.unwritten = b""
        self.wrote_at = time.monotonic()
        self.parked = True
        self._fd = fd
        self._framing = framing
        self._heartbeat_s = heartbeat_s
        self._waiter: Waiter[None] = Waiter()

    def wait(self) -> None:
        """Return when somebody has called ``leave``."""
        self._waiter.get()

    def leave(self) -> None:
        """Let the connection's own greenlet go on."""
        self.parked = False
        gevent.get_hub().loop.run_callback(self._waiter.switch, None)

    def idle(self) -> bytes | None:
        """The heartbeat that may be written now; None: not now."""
        return self._framing.idle() if self.parked else None

    def due(self) -> bool:
        """Whether a heartbeat is."""
        return time.monotonic() - self.wrote_at >= self._heartbeat_s

    def write(self, events: Sequence[Event]) -> bool:
        """Write the events without waiting; False: not all of it, and the greenlet must go on by itself."""
        try:
            encode = self._framing.encode
            data = encode(events[0]) if len(events) == 1 else b"".join([encode(event) for event in events])
        except Exception:
            return False  # the reader comes to the same event, and says what is wrong with it in its own place
        self.number += len(events)
        if not data:
            return True
        chunk = b"%X\r\n%b\r\n" % (len(data), data)
        links.parked_bytes += len(chunk)
        links.parked_events += len(events)
        try:
            sent = os.write(self._fd, chunk)
        except OSError:  # full, or gone: its own greenlet finds out which
            sent = 0
        self.written += sent
        self.wrote_at = time.monotonic()
        if sent == len(chunk):
            return True
        self.unwritten = chunk[sent:]
        return False

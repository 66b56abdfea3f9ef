"""Thousands of readers of one stream are one read: the readers that have caught up are parked, and written to directly.

A worker has one ``Tail`` for each followed stream and framing. It reads each new event once, encodes it once, and
writes the bytes to every parked connection without blocking; measured, 1.3 times the bare system call, where a queue
for each client takes 4 times. What does not fit into a socket is un-parked and goes on from the log at its own pace.

Rules:
- Every parked connection stands at the tail's position; whoever stands elsewhere is not parked, and reads for itself.
- Between two rests nothing else runs, so a connection that was parked at the last look is still open: after a rest it
  is looked up again, or its descriptor could be somebody else's by now.
- A chunk that was written in part is completed by the connection's own greenlet before anything else is written.
- Events that come faster than they are written wait for as long as the last broadcast took, and are written together:
  whoever publishes them has half of the worker. One that comes afterwards is written at once.
- Plain HTTP/1.1 only; every other connection goes by the generator alone, and sees the same bytes.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from typing import Any

import gevent

from stores.base import Batch
from stores.errors import StoreBusy, StreamClosed
from streaming.accounts import tally
from streaming.framings import Framing, Shareable, is_shareable
from streaming.links import links
from streaming.pace import Pace
from streaming.parked import Parked, heartbeat
from streaming.readers import BUSY_S, READ_BYTES, Follow
from streaming.wire import Link

log = logging.getLogger("perennial.fanout")

LOOK_S = 1.0
# The rest before the next broadcast: none after a shorter one, or events of a few readers would be late for nothing.
_REST_S = (0.001, 0.02)
_AT_ONCE = 64

# All whose key is the same are written the same bytes.
Key = tuple[int, str, str, object]


class Tail:
    """The end of one stream in one framing, with all that are parked there."""

    def __init__(self, key: Key, source: Follow, framing: Shareable, heartbeat_s: float) -> None:
        self._key = key
        self._log = source.log
        self._path = source.path
        self._shown = source.shown
        self._framing = copy.copy(framing)
        self._heartbeat_s = heartbeat_s
        self._after = source.after
        # While an event is being written: those with a turn up to ``_written`` have it and stand after it, those up to
        # ``_last`` stand before it, and who has come since has read it from the log.
        self._before = source.after
        self._turn = self._written = self._last = 0
        self._bytes = self._events = 0
        self._wrote_at = self._looked_at = time.monotonic()
        self._took_s = 0.0
        self._parked: dict[int, Parked] = {}
        self._reader: Any = None

    def enter(self, parked: Parked, after: str) -> bool:
        """Park the connection; False when it does not stand where this tail does."""
        if not self._parked:
            self._before = self._after = after
        if after != self._after:
            return False
        self._turn += 1
        parked.turn, parked.counted, parked.events = self._turn, self._bytes, self._events
        self._parked[parked.fd] = parked
        if self._reader is None:
            self._reader = gevent.spawn(self._run)
        return True

    def leave(self, parked: Parked) -> int:
        """Un-park it, once or often; return how many bytes were written to it."""
        if self._parked.get(parked.fd) is parked:
            del self._parked[parked.fd]
            parked.after = self.position(parked)
            parked.counted = self._bytes - parked.counted
            parked.events = self._events - parked.events
            if not self._parked and _tails.get(self._key) is self:
                del _tails[self._key]
        return parked.counted

    def position(self, parked: Parked) -> str:
        """After which event the connection stands."""
        return self._before if self._written < parked.turn <= self._last else self._after

    def beat(self, parked: Parked, framing: Shareable) -> bytes | None:
        """The connection's heartbeat; None when it is parked no more: the rest of a chunk may have to come first."""
        if self._parked.get(parked.fd) is not parked:
            return None
        return heartbeat(framing, self.position(parked))

    def _run(self) -> None:
        try:
            while self._parked:
                self._step()
        except Exception:
            pass  # each reader finds that out for itself, and says so in its own words
        finally:
            self._reader = None
            for parked in tuple(self._parked.values()):
                self.leave(parked)
                parked.wake()

    def _step(self) -> None:
        after, began = self._after, time.monotonic()
        try:
            more = self._log.wait(self._path, after, min(LOOK_S, self._heartbeat_s))
            if not more:
                self._took_s = 0.0
            elif self._took_s >= _REST_S[0] > time.monotonic() - began:  # it came while the last was written
                gevent.sleep(min(self._took_s, _REST_S[1]))
            batch = self._log.read(self._path, after, limit_bytes=READ_BYTES) if more else None
        except StoreBusy:
            gevent.sleep(BUSY_S)
            batch = None
        # It can have moved only when everybody had left meanwhile, and somebody came who stands elsewhere.
        if batch is not None and self._after == after:
            self._deliver(batch)
        self._beat()

    def _deliver(self, batch: Batch) -> None:
        if batch.closed:
            raise StreamClosed(batch.tail)  # wakes everybody: they read the end, and what comes before it, themselves
        if batch.events:
            # Whatever can fail here has failed before anybody's position moves.
            data = b"".join(map(self._framing.encode, self._shown(batch, self._after)))
            # Before the first write: who comes while this is written has read it from the log.
            self._before, self._after = self._after, batch.events[-1].id
            links.parked_events += len(batch.events) * len(self._parked)
            connections, began = list(self._parked.values()), time.monotonic()
            self._write(data, connections)
            self._took_s = time.monotonic() - began
            self._events += len(batch.events)
            tally.delivered += len(connections)
            tally.broadcasts.add(self._took_s)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            for parked in [parked for parked in self._parked.values() if parked.until <= now]:
                self.leave(parked)
                parked.wake()
        due = now - self._heartbeat_s
        # Also to those who came a moment ago: waiting for the next one, they would have none for twice as long.
        if self._wrote_at <= due and (beat := heartbeat(self._framing, self._after)):
            self._before = self._after
            self._write(beat, list(self._parked.values()))

    def _write(self, data: bytes, connections: list[Parked]) -> None:
        chunk = b"%X\r\n%b\r\n" % (len(data), data)
        size = len(chunk)
        links.parked_bytes += size * len(connections)
        self._wrote_at = time.monotonic()
        self._written, self._last = 0, self._turn
        write, pace, rested = os.write, Pace(), False
        for start in range(0, len(connections), _AT_ONCE):
            some = connections[start : start + _AT_ONCE]
            rested = (start > 0 and pace.rest()) or rested
            if rested:  # also long ago: all that come after it were listed before it
                some = [parked for parked in some if self._parked.get(parked.fd) is parked]
            for parked in some:
                try:
                    sent = write(parked.fd, chunk)
                except OSError:  # full, or gone: its own greenlet finds out which
                    sent = 0
                if sent != size:
                    self._unpark(parked, chunk, sent)
            if some:
                self._written = some[-1].turn
        self._written = self._last
        self._bytes += size

    def _unpark(self, parked: Parked, chunk: bytes, sent: int) -> None:
        self.leave(parked)
        parked.counted += sent
        parked.after = self._after
        parked.unwritten = memoryview(chunk)[sent:]  # one chunk for all, however many are slow
        parked.wake()


_tails: dict[Key, Tail] = {}


def park(link: Link, source: Follow, framing: Framing, heartbeat_s: float) -> Parked | None:
    """Return the connection as one that others write to from now on; None where that cannot be.

    Before anything else is done with it, ``wait`` must be called.
    """
    if link.socket is None or not link.chunked or not is_shareable(framing):
        return None
    key = (id(source.log), source.path, framing.share, source.shown)
    tail = _tails.get(key)
    if tail is None:
        tail = _tails[key] = Tail(key, source, framing, heartbeat_s)
    parked = Parked(tail, link, source, framing)
    return parked if tail.enter(parked, source.after) else None

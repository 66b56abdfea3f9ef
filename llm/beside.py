"""A model's connection is read by gevent's loop while the greenlet that reads it waits.

A token that wakes a greenlet passes through a dozen generators to it, and back; one that is only text needs none of
them (a third of a token's CPU).

Rules:
- Those that have something to read are read together, one after the other, when the loop has looked at all sockets:
  the same code for each of them, while it is warm.
- Whatever is not taken is what the greenlet is woken with, decoded but else as it came: an error, an end, and all that
  is more than text. It is an optimisation, and nothing else than reading.
- In the loop nothing may wait. What raises there is the greenlet's: a piece that was lost in silence would be a lie.
"""

from __future__ import annotations

from typing import Any

import gevent
from gevent.hub import Waiter

from llm.chunked import Chunked
from llm.texts import Take

PIECE_BYTES = 65536


class Beside:
    """Reads ``connection``, a plain socket of gevent's, whose body comes in chunks.

    ``take``: takes a piece of the body, in the loop; False: it has not.
    """

    def __init__(self, connection: Any, decoder: Chunked, take: Take) -> None:
        self._connection = connection
        self._socket = connection._sock  # gevent's own ``recv`` asks what is known here
        self._decoder = decoder
        self._take = take
        self._waiter: Waiter[bytes] | None = None

    def wait(self) -> bytes:
        """Return the next piece of the body that was not taken, "" with the decoder's end.

        Raises OSError, ValueError where it is no chunked body, ConnectionError where it was cut; what ``take`` raises.
        """
        self._waiter = waiter = Waiter()
        watcher = self._connection._read_event
        watcher.start(_ready, self)
        try:
            data: bytes = waiter.get()
            return data
        finally:
            self._waiter = None
            watcher.stop()

    def read(self) -> None:
        """Read what is there, and let it be taken, or wake who waits."""
        if (waiter := self._waiter) is None:
            return  # ended meanwhile
        try:
            try:
                piece = self._socket.recv(PIECE_BYTES)
            except BlockingIOError:
                return
            if not piece:
                raise ConnectionError("there was no last chunk")
            data = self._decoder.decode(piece)
            if not self._decoder.ended and self._take(data):
                return
        except Exception as error:
            self._waiter = None
            waiter.throw(error)
            return
        self._waiter = None
        waiter.switch(data)


_waiting: list[Beside] = []


def _ready(beside: Beside) -> None:
    if not _waiting:
        gevent.get_hub().loop.run_callback(_read)
    _waiting.append(beside)


def _read() -> None:
    ready = _waiting[:]
    _waiting.clear()
    for beside in ready:
        beside.read()

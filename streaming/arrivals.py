"""An upload's body as it arrives, fast, and until somebody else wants what is being uploaded.

Rules:
- A body with a length on a plain connection is moved by a thread of the store, from the socket to the disk, as much as
  there is; the event loop only waits. What gunicorn has read ahead comes first. Every other body comes by ``bodies``.
- Nothing that has arrived is lost: at the end of a connection, also at a reset, the kernel still has what came before,
  and whoever is to let go reads on until there is nothing more (``DRAIN_S`` at most).
- Each wait has a deadline, and a body that is not whole raises at its end.

Measured, 1 GiB in time of nginx's dav PUT: ``read(64 KiB)`` 1.65, ``read(1 MiB)`` 0.82, ``recv_into`` 0.56.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol

import gevent
import gevent.monkey
from gunicorn.http.body import LengthReader

from stores.bodies import Feed
from streaming import bodies
from streaming.accounts import PAYS, Account, tally
from streaming.connections import plain_socket
from streaming.errors import Conflict
from streaming.slowness import Slowest, Waits

# So much is moved before progress can be told, and the thread is free for another upload.
STEP_BYTES = 4 * 2**20
DRAIN_S = 0.4
_AGAIN_S = 0.02
_FAST_BYTES = 256 * 1024
_LINGER_MS = 4

_native_poll = gevent.monkey.get_original("select", "poll")


class TakenOver(Conflict):
    """Another request goes on with this upload; what had arrived was taken."""


class File(Protocol):
    """Where a body goes (stores/bodies.py: Part, HeldUpload)."""

    def write(self, piece: bytes | memoryview, *feeds: Feed) -> None: ...

    def fill(self, receive: Callable[[memoryview], int | None], most: int, *feeds: Feed) -> tuple[int, bool]: ...


class Arrivals:
    """A request's body, to be iterated in pieces or moved ``into`` a file; once.

    Both raise what ``bodies.pieces`` raises; TakenOver after ``let_go``, when all that had arrived has been taken.
    """

    def __init__(self, environ: MutableMapping[str, Any], limit_bytes: int, slowest: Slowest) -> None:
        self._environ = environ
        self._limit_bytes = limit_bytes
        self._slowest = slowest
        self._pieces = bodies.pieces(environ, limit_bytes, slowest)
        self._greenlet = gevent.getcurrent()
        self._waiting = False
        self._over = False
        self._deadline = 0.0
        self._timer: Any = None
        # From the first piece that is asked for.
        self._account: Account | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        account = self._begun()
        try:
            self._check_claim()
            with self._wait():
                piece = next(self._pieces)
        except BaseException as error:
            account.how = "complete" if isinstance(error, StopIteration) else "left"
            account.end()
            raise
        account.bytes += len(piece)
        return piece

    def into(self, file: File, *feeds: Feed) -> Iterator[None]:
        """Move the body into ``file``, and feed it; yields after each step. Raises StoreFull, StoreError too."""
        connection = plain_socket(self._environ)
        reader = getattr(self._environ["wsgi.input"], "reader", None)
        if connection is not None and isinstance(reader, LengthReader):
            account = self._begun()
            try:
                yield from self._move(connection, reader, file, feeds, account)
                account.how = "complete"
            finally:
                account.end()
                bodies.came(self._environ, account.bytes)
            return
        for piece in self:
            file.write(piece, *feeds)
            yield

    def _begun(self) -> Account:
        if self._account is None:
            self._environ.pop(PAYS, None)  # these bytes are not sent
            self._account = Account("upload", self._environ)
            self._account.how = "left"
        return self._account

    def _move(
        self, connection: Any, reader: Any, file: File, feeds: tuple[Feed, ...], account: Account
    ) -> Iterator[None]:
        bodies.check_length(self._environ, self._limit_bytes)
        if ahead := _read_ahead(reader):
            file.write(ahead, *feeds)
            tally.received += len(ahead)
            account.bytes += len(ahead)
            yield
        waits = Waits(self._slowest)
        while reader.length:
            self._check_claim()
            with self._wait():
                waited_s = bodies.wait_readable(self._environ, connection, self._slowest)
            count, ended = file.fill(_receiver(connection), min(reader.length, STEP_BYTES), *feeds)
            reader.length -= count
            tally.received += count
            account.bytes += count
            yield
            if ended:
                bodies.check_whole(self._environ, (bodies.length(self._environ) or 0) - reader.length)
            if waits.brought(waited_s, count) and reader.length:
                raise bodies.too_slow(self._environ, self._slowest)

    def close(self) -> None:
        """Nothing more is wanted. Once or often."""
        self._over = True
        if self._timer is not None:
            self._timer.close()
        if self._account is not None:
            self._account.end()

    def let_go(self) -> None:
        """From anywhere in this worker: end soon, with TakenOver. Once or often."""
        if not self._deadline and not self._over:
            self._deadline = time.monotonic() + DRAIN_S
            gevent.get_hub().loop.run_callback(self._end)

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """While this block waits, and only then, it may be ended from the hub."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _check_claim(self) -> None:
        """A client that never stops sending is not waited for."""
        if self._deadline and time.monotonic() > self._deadline:
            raise self._taken_over()

    def _end(self) -> None:
        """In the hub: end the wait for more, once there is nothing to be read."""
        if self._over:
            return
        if self._waiting and not self._readable():
            self._over = True
            self._greenlet.throw(self._taken_over())
        else:
            self._timer = self._timer or gevent.get_hub().loop.timer(_AGAIN_S)
            self._timer.start(self._end)

    def _taken_over(self) -> TakenOver:
        bodies.fail(self._environ)
        return TakenOver("Another request has taken this upload over.")

    def _readable(self) -> bool:
        connection = plain_socket(self._environ)
        if connection is None:
            return False
        poll = _native_poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _read_ahead(reader: Any) -> bytes:
    """Take what gunicorn has of the body already; the rest may be the start of a pipelined request."""
    ahead: bytes = reader.unreader.take_buffered()
    piece, rest = ahead[: reader.length], ahead[reader.length :]
    reader.unreader.unread(rest)
    reader.length -= len(piece)
    return piece


def _receiver(connection: Any) -> Callable[[memoryview], int | None]:
    """Return what reads from the connection in another thread: how many bytes came, 0 at its end, None for not yet.

    A client that sends fast is waited for a little in the thread: each way back to the event loop and here again costs
    two switches of threads, and on a busy machine a place in its queue.
    """
    receive_into, poll = connection._sock.recv_into, _native_poll()
    poll.register(connection.fileno(), select.POLLIN)
    received = 0

    def receive(block: memoryview) -> int | None:
        nonlocal received
        while True:
            try:
                count: int = receive_into(block, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                fast, received = received >= _FAST_BYTES, 0
                if not (fast and poll.poll(_LINGER_MS)):
                    return None
            except OSError:  # a reset, or a network that was lost: not the disk's
                return 0
            else:
                received += count
                return count

    return receive

"""The connection below a response: who has gone, who does not read, and when the worker drains.

Rules:
- A stream is interrupted only while it waits in its source, never while it writes: half a chunk is never left behind.
- Everything here needs gunicorn's gevent worker on plain HTTP/1.x. Elsewhere a ``Link`` knows nothing, and a gone
  client is noticed by the write that fails.
- Who hears of it is ``links``.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import gevent
import gevent.socket

from streaming.alarms import Alarm
from streaming.connections import RESPONSE, plain_socket, send_file
from streaming.links import SWEEP_S, links

Item = TypeVar("Item")

# A client that takes its file this quickly may have this much of it queued (gunicorn.conf.py has what the others may):
# a third less CPU. Of a file it is the page cache's own memory.
_QUICK_S = 0.01
_QUICK_BYTES = 2**20
# Offset and length of tcpi_bytes_acked in struct tcp_info (linux/tcp.h, since Linux 4.1).
_BYTES_ACKED = slice(120, 128)

END: Final = object()
# In the environ of a request whose body is read while it is answered: when a piece of it came last (time.monotonic).
# The source of its answer waits for nothing but the body.
DUPLEX: Final = "perennial.duplex"
# In the environ of a request whose caller's token expires: when (time.time). Its response ends then.
ENDS_AT: Final = "perennial.ends_at"


class Interrupted(BaseException):
    """Thrown into a source that waits: its client has gone, its worker drains, or its caller's token has expired.

    No Exception, as GeneratorExit is none: a library's ``except Exception`` must not take it for a failure of its own.
    """


class Link:
    """The connection of one response, watched until ``close``.

    ``gone``: nobody reads the response any more; ``slow``: for too long. ``draining``: the worker is going down.
    ``expired``: its caller's token has expired; whoever waits then, or comes to wait, is interrupted. ``events``: how
    many its greenlet has had of its source. ``beside``: bytes that others have written to it in the meantime, and
    ``beside_events`` of those.
    ``probe`` makes a heartbeat that may be written while the source waits, to tell a client that has closed from one
    that has only finished sending (RFC 9112, 9.6); without one, both count as gone. None: not now, something else is
    to be written first; the next wait asks again.
    """

    __slots__ = (
        "_acked", "_alarm", "_closed", "_drainable", "_greenlet", "_half_closed", "_parked_bytes", "_probe",
        "_progress_at", "_queued", "_waiting", "beside", "beside_events", "chunked", "draining", "environ", "events",
        "expired", "gone", "slow", "socket",
    )  # fmt: skip

    def __init__(
        self, environ: Mapping[str, Any], probe: Callable[[], bytes | None] | None = None, drainable: bool = False
    ) -> None:
        self.socket = plain_socket(environ)
        self.chunked = environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
        self.gone = self.slow = False
        self.beside = self.beside_events = 0
        self.draining = links.draining
        ends_at = environ.get(ENDS_AT, math.inf)
        self.expired = ends_at <= time.time()
        self._alarm = None if self.expired or ends_at == math.inf else Alarm(ends_at, self._expire)
        self._probe = probe
        self._drainable = drainable
        self._greenlet = gevent.getcurrent()
        self._waiting = False
        self._half_closed = False
        self._closed = False
        self.environ = environ
        self._progress_at = time.monotonic()
        self._acked, self._queued = -1, 0
        self._parked_bytes = 0
        self.events = 0
        links.add(self)

    def close(self) -> None:
        if not self._closed:
            links.ended_bytes += self.sent_bytes
            links.ended_events += self.events
        self._closed = True
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None  # it holds this link
        self._queue(0)
        links.discard(self)

    def pull(self, source: Iterator[Item]) -> Item | object:
        """Return the source's next item, or END. Raises Interrupted when the wait for it has become pointless."""
        item: Item | object = self._wait(next, source, END)
        return item

    def park(self, wait: Callable[[], None], probe: Callable[[], bytes | None]) -> None:
        """Do ``wait``, in which others write to the connection and ``probe`` knows what. Raises Interrupted."""
        own, self._probe = self._probe, probe
        try:
            self._wait(wait)
        finally:
            self._probe = own

    def complete(self, unwritten: bytes | memoryview, written: int) -> None:
        """Write the rest of what others began to write, and count it all. Raises Interrupted for a client gone."""
        try:
            if unwritten and not self.gone:
                self.socket.sendall(unwritten)
                written += len(unwritten)
        except OSError as error:
            self.gone = True
            raise Interrupted from error
        finally:
            self.beside += written
            if (response := self.environ.get(RESPONSE)) is not None:
                response.sent += written  # for the access log
                self._parked_bytes += written

    def send_file(self, file: int, offset: int, count: int) -> int:
        """The same as ``send_file`` below, waiting for a client that reads slowly; 0 only at the file's end."""
        while (sent := send_file(self.environ, file, offset, count)) is None:
            self.wait_writable()
        return sent

    def wait_writable(self) -> None:
        """Wait until the client has taken most of what it was sent."""
        began = time.monotonic()
        gevent.socket.wait(self.socket._write_event)  # as its sendall does
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self._queue(_QUICK_BYTES if time.monotonic() - began < _QUICK_S else 0)

    def _queue(self, limit_bytes: int) -> None:
        """Let the kernel hold so much that is not sent yet, 0 for as much as of any connection."""
        if limit_bytes and not self._queued:
            self._queued = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit_bytes)
        elif not limit_bytes and self._queued:
            with contextlib.suppress(OSError):  # it has gone
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._queued)
            self._queued = 0

    def _wait(self, wait: Callable[..., Any], *args: Any) -> Any:
        if self.gone or self.expired or (self.draining and self._drainable):
            raise Interrupted
        self._waiting = True
        if self._half_closed:
            self._half_closed = False
            links.watch(self)
        try:
            return wait(*args)
        finally:
            self._waiting = False
            self._progress_at = time.monotonic()

    @property
    def sent_bytes(self) -> int:
        """What was written of the body but while it was parked; 0 where gunicorn's response is not known."""
        response = self.environ.get(RESPONSE)
        return 0 if response is None else int(response.sent) - self._parked_bytes

    def waits_to_write(self, now: float, for_s: float) -> bool:
        """Whether a write has waited for its client for so long (time.monotonic)."""
        return self.socket is not None and not self._waiting and now - self._progress_at >= for_s

    def cut(self) -> None:
        """End the connection so that the client sees it was not whole; to HTTP/1.1 what was written still arrives."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                if self.chunked:
                    self.socket.shutdown(socket.SHUT_RDWR)
                else:  # in HTTP/1.0 a FIN may be the end of a body (RFC 9112, 6.3): closing must reset
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def hung_up(self, half: bool) -> None:
        """In the hub: the client has closed (``half``: its sending side, for all that is known)."""
        if self._closed:
            return None
        if half and not self._waiting:
            # The write that is under way will tell; if there is none any more, the next wait asks again.
            self._half_closed = True
            return None
        if half and DUPLEX in self.environ:
            return links.watch_closed(self)  # the FIN may stand behind a whole body; whoever reads that comes to it
        beat = self._probe() if half and self._probe is not None and self.chunked else b""
        if beat is None:
            self._half_closed = True
            return None
        if beat and self._write_now(beat):
            return links.watch_closed(self)
        self.gone = True
        return self.interrupt()

    def drain(self) -> None:
        """In the hub: the worker goes down."""
        self.draining = True
        if self._drainable:
            self.interrupt()

    def _expire(self) -> None:
        """In the hub: the token's time has come."""
        self.expired = True
        self.interrupt()

    def interrupt(self) -> None:
        if self._waiting:
            self._waiting = False
            self._greenlet.throw(Interrupted)

    def stalled(self, now: float, limit_s: float) -> bool:
        """Whether a write has waited for ``limit_s`` seconds in which the client acknowledged no byte."""
        if self.socket is None or self._waiting or now - self._progress_at < SWEEP_S:
            return False
        acked = int.from_bytes(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)[_BYTES_ACKED], "little")
        if acked != self._acked:
            self._acked, self._progress_at = acked, now
        # To send is progress too: who writes all before it reads may take longer over it than a write may wait.
        self._progress_at = max(self._progress_at, self.environ.get(DUPLEX, 0.0))
        return now - self._progress_at >= limit_s

    def blocked_s(self, now: float) -> float:
        """How long the client has acknowledged no byte of what is being written to it, as far as was looked."""
        return 0.0 if self._waiting else max(now - self._progress_at, 0.0)

    def give_up(self) -> None:
        """In the hub: end the write that is stuck. EPIPE, because gunicorn passes over it in silence."""
        if self._closed or self._waiting:  # it came free since the sweep
            return
        self.gone = self.slow = True
        self._greenlet.throw(BrokenPipeError(32, "the client does not read"))

    def _write_now(self, data: bytes) -> bool:
        chunk = b"%X\r\n%b\r\n" % (len(data), data)
        try:
            return os.write(self.socket.fileno(), chunk) == len(chunk)
        except OSError:
            return False

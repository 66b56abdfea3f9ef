"""A TCP proxy between clients and server whose connections have a fate, drawn from a seed.

A fate comes after a number of bytes that the client or the server has sent:

    fin       both sides are closed in good order
    reset     both sides are reset
    silence   nothing is passed on any more, neither bytes nor ends, for some seconds; then both sides are reset
    stall     nothing is passed on for a moment; then everything goes on
    trickle   from there on a few bytes pass at a time, through a small window, for a while

Once ``calm`` has been called new connections have none, so that whoever comes back gets to the end.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass

FATES = ("fin", "reset", "silence", "stall", "trickle")
# A window below the loopback's segments is 50 KiB/s: so much for a while, not for all that comes after it.
_WINDOW_BYTES = 4096
_WIDE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a connection once ``bytes`` have passed from the server, or ``of_client``, and for how long."""

    kind: str
    bytes: int
    of_client: bool
    seconds: float

    @staticmethod
    def draw(rng: random.Random) -> Fate | None:
        """As many come within the first bytes as after many; a quarter of all connections have none."""
        if rng.random() < 0.25:
            return None
        size = int(10 ** rng.uniform(0, 6.5))
        return Fate(rng.choice(FATES), size, rng.random() < 0.3, 10 ** rng.uniform(-1.5, 0.3))


class FaultProxy:
    """``with FaultProxy(port) as proxy``: ``proxy.port`` leads to ``port``.

    ``faults``: how many fates came, by kind.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._rng: random.Random | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self._listener.getsockname()[1]
        self.faults: dict[str, int] = dict.fromkeys(FATES, 0)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FaultProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in tuple(self._open):
            _reset(each)
        for thread in self._threads:
            thread.join(10)

    def storm(self, rng: random.Random) -> None:
        """From now on connections have a fate."""
        self._rng = rng

    def calm(self) -> None:
        self._rng = None

    def _start(self, run: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except ConnectionAbortedError:  # it went before its turn
                continue
            except OSError:
                return
            self._start(self._serve, client, Fate.draw(self._rng) if self._rng else None)

    def _serve(self, client: socket.socket, fate: Fate | None) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._to), timeout=10)
        except OSError:
            _reset(client)
            client.close()
            return
        server.settimeout(None)
        self._open |= {client, server}
        joint = _Joint(client, server, fate, self.faults)
        answers = self._start(joint.carry, server, client, False)
        joint.carry(client, server, True)
        answers.join()
        for each in (client, server):
            self._open.discard(each)
            each.close()


class _Joint:
    """Two connections that are one, with a fate."""

    def __init__(self, client: socket.socket, server: socket.socket, fate: Fate | None, faults: dict[str, int]) -> None:
        self._both = (client, server)
        self._fate = fate
        self._faults = faults
        self._silent_until = 0.0
        self._trickles_until = 0.0
        self._cut = False

    def carry(self, source: socket.socket, target: socket.socket, of_client: bool) -> None:
        """Pass on what comes, until the source ends or the fate has come."""
        left = self._fate.bytes if self._fate and self._fate.of_client == of_client else None
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if left is None else max(1, min(65536, left))):
                self._wait()
                if self._cut:  # what a socket had received can be read after its end, too
                    return
                self._send(target, data)
                if left is not None and (left := left - len(data)) <= 0:
                    left = None
                    self._come()
            self._wait()
            if not self._cut:
                target.shutdown(socket.SHUT_WR)

    def _come(self) -> None:
        assert self._fate is not None
        self._faults[self._fate.kind] += 1
        now = time.monotonic()
        match self._fate.kind:
            case "fin":
                self._cut = True
                for each in self._both:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
            case "reset":
                self._end()
            case "silence":
                self._silent_until = now + self._fate.seconds
                self._wait()
                self._end()
            case "stall":
                self._silent_until = now + min(self._fate.seconds, 0.5)
                self._wait()
            case "trickle":
                self._trickles_until = now + self._fate.seconds
                self._open_window(_WINDOW_BYTES)

    def _open_window(self, size: int) -> None:
        for each in self._both:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size)  # it stays narrow otherwise

    def _end(self) -> None:
        self._cut = True
        for each in self._both:
            _reset(each)

    def _wait(self) -> None:
        while (left_s := self._silent_until - time.monotonic()) > 0 and not self._cut:
            time.sleep(min(left_s, 0.05))

    def _send(self, target: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view and time.monotonic() < self._trickles_until:
            target.sendall(view[:200])
            view = view[200:]
            time.sleep(0.002)
        if self._trickles_until and time.monotonic() > self._trickles_until:
            self._trickles_until = 0.0
            self._open_window(_WIDE_BYTES)
        target.sendall(view)


def _reset(connection: socket.socket) -> None:
    """End all reading and writing now; closing it sends a RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)

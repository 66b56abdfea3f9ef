"""A TCP proxy that cuts: its first long connections are reset on both sides after a number of bytes; the rest pass."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence

# A request without a body, or the head of one.
SHORT_BYTES = 2000


class CuttingProxy:
    """``with CuttingProxy(port, cuts) as proxy``: ``proxy.port`` leads to ``port``.

    ``cuts``: after how many bytes of the client connections are cut, one after another; ``answer_cuts``: of the
    server. Connections with less than ``SHORT_BYTES`` that way are none of them. ``cut``: how many have been.
    """

    def __init__(self, port: int, cuts: Sequence[int] = (), answer_cuts: Sequence[int] = ()) -> None:
        self._to = port
        self._cuts = list(cuts)
        self._answer_cuts = list(answer_cuts)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self.cut = 0
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> CuttingProxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            _reset(each)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._to), timeout=30)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._open |= {client, server}
        try:
            self._join(client, server)
        finally:
            for each in (client, server):
                self._open.discard(each)
                each.close()

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        cut = threading.Event()
        answers = threading.Thread(target=self._carry, args=(server, client, self._answer_cuts, cut))
        answers.start()
        self._carry(client, server, self._cuts, cut)
        # Closed only after it: a thread that still reads could read from another connection of the same number.
        answers.join()

    def _carry(self, source: socket.socket, target: socket.socket, cuts: list[int], cut: threading.Event) -> None:
        if _pass_on(source, target, SHORT_BYTES, cut) < SHORT_BYTES:
            return
        limit = cuts.pop(0) if cuts else None
        if _pass_on(source, target, limit, cut) == limit:
            self.cut += 1
            cut.set()
            _reset(source)
            _reset(target)


def _pass_on(source: socket.socket, target: socket.socket, limit: int | None, cut: threading.Event) -> int:
    """Pass on what comes, to its end or up to ``limit`` bytes; return how many there were."""
    passed = 0
    with contextlib.suppress(OSError):
        while limit is None or passed < limit:
            data = source.recv(65536 if limit is None else min(65536, limit - passed))
            if not data:
                break
            target.sendall(data)
            passed += len(data)
        if (limit is None or passed < limit) and not cut.is_set():
            target.shutdown(socket.SHUT_WR)
    return passed


def _reset(connection: socket.socket) -> None:
    """End all reading now; closing it will send a RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)

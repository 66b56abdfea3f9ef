"""``python -m tests.slow_crowd <port> <count> <file> <seconds>``: connections that do as little as they can.

A third sends a head, a third a body, a byte every so many seconds; a third reads ``/api/download/<file>`` a little at a
time. What the server ends is opened again some time later. It goes on until it is killed, and writes a line once all
connections have been opened and have begun.

Rules:
- It costs less than what it is to measure: a heap of moments and bare sockets, no task for each connection.
- No two do something in the same moment: a crowd in step would be a burst, which is another thing to measure.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import sys
import time

_HEAD = b"Host: localhost\r\n"
# So many come in a second: fewer than a worker accepts, or they would wait for each other.
_COME_A_SECOND = 800
# Times the pause between two drops, until what was ended comes again.
_AWAY = 3
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Crowd:
    """The members by number; ``number % 3`` says what one does."""

    def __init__(self, port: int, size: int, file: str, drop_s: float) -> None:
        self.address = ("127.0.0.1", port)
        self.drop_s = drop_s
        self.begins = (
            b"GET /healthz HTTP/1.1\r\n" + _HEAD + b"X: ",
            b"POST /api/upload-progress HTTP/1.1\r\n" + _HEAD + b"Content-Length: 100000\r\n\r\n",
            f"GET /api/download/{file} HTTP/1.1\r\n".encode() + _HEAD + b"\r\n",
        )
        self.connections: dict[int, socket.socket] = {}
        self.by_descriptor: dict[int, int] = {}
        self.begun: set[int] = set()
        self.unopened = set(range(size))
        # When each acts next; in the heap there are moments too that do not hold any more.
        self.due: dict[int, float] = {}
        self.moments: list[tuple[float, int]] = []
        for number in range(size):
            self.later(number, number / _COME_A_SECOND)
        self.poll = select.epoll()

    def run(self) -> None:
        """Do what is due, for ever."""
        told = False
        while True:
            for descriptor, _ in self.poll.poll(max(0.0, self.moments[0][0] - time.monotonic())):
                self.end(self.by_descriptor[descriptor])
            while self.moments[0][0] <= time.monotonic():
                moment, number = heapq.heappop(self.moments)
                if self.due[number] == moment:
                    self.act(number)
            if not self.unopened and not told:
                told = True
                sys.stdout.write("open\n")
                sys.stdout.flush()

    def later(self, number: int, pause_s: float) -> None:
        self.due[number] = time.monotonic() + pause_s
        heapq.heappush(self.moments, (self.due[number], number))

    def act(self, number: int) -> None:
        """Connect, begin, or do a little more; then again after a pause."""
        if number not in self.connections:
            self.connect(number)
            # A part of the pause that is another for each: its multiples of the golden ratio.
            pause_s = self.drop_s * (number * 0.618034 % 1)
        else:
            pause_s = self.drop_s
            try:
                self.drop(number)
            except BlockingIOError:
                pass
            except OSError:
                self.end(number)
                return
        self.later(number, pause_s)

    def connect(self, number: int) -> None:
        """With so small a window that little of an answer is on its way."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.connect(self.address)
        self.connections[number] = connection
        self.by_descriptor[connection.fileno()] = number
        if number % 3 < 2:
            self.poll.register(connection, _ENDED)

    def drop(self, number: int) -> None:
        """Raises OSError when the connection has ended."""
        connection = self.connections[number]
        if number not in self.begun:
            connection.send(self.begins[number % 3])
            self.begun.add(number)
            self.unopened.discard(number)
        elif number % 3 < 2:
            connection.send(b"x")
        elif not connection.recv(100):
            raise ConnectionResetError

    def end(self, number: int) -> None:
        """It was ended by the server, and comes again after a time."""
        connection = self.connections.pop(number)
        del self.by_descriptor[connection.fileno()]
        self.begun.discard(number)
        connection.close()
        self.later(number, _AWAY * self.drop_s)


if __name__ == "__main__":
    Crowd(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])).run()

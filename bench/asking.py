"""``python -m bench.asking <port> <path> <range>``: how many answers a second one client gets, over eight connections.

A process of its own, so that it shares no interpreter with what measures. Each connection asks again when it has the
whole of an answer.
"""

from __future__ import annotations

import re
import select
import socket
import sys
import time

CONNECTIONS = 8
SECONDS = 2.0


def answers_per_s(port: int, path: str, asked: str) -> float:
    """Ask for ``path`` again and again, with ``asked`` as its Range if it is not empty."""
    fields = f"Range: {asked}\r\n" if asked else ""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode()
    size = _size(port, request)
    buffer = memoryview(bytearray(2**18))
    poll = select.epoll()
    left: dict[int, int] = {}
    connections = {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(connection.fileno(), select.EPOLLIN)
        connections[connection.fileno()], left[connection.fileno()] = connection, size
        connection.sendall(request)
    answers, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + SECONDS:
        for fd, _ in poll.poll(1.0):
            received = connections[fd].recv_into(buffer)
            if not received:
                raise RuntimeError("the server closed the connection")
            left[fd] -= received
            if not left[fd]:
                answers += 1
                left[fd] = size
                connections[fd].sendall(request)
    for connection in connections.values():
        connection.close()
    return answers / (now - began)


def _size(port: int, request: bytes) -> int:
    """Of one whole answer: all have the same."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
    head = data.partition(b"\r\n\r\n")[0]
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if not head.startswith(b"HTTP/1.1 20") or length is None:
        raise RuntimeError(f"refused: {head!r}")
    return len(head) + 4 + int(length[1])


if __name__ == "__main__":
    print(answers_per_s(int(sys.argv[1]), sys.argv[2], sys.argv[3]))

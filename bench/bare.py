"""The limit: what moves bytes with nothing but the system calls for it. A process of its own, one connection at a time.

``python -m bench.bare send <port> <file>``   answers every request with the file, by ``sendfile``
``python -m bench.bare take <port> <file>``   writes every body to a new file, by ``recv_into`` and ``write``
``python -m bench.bare upper <port> <file>``  answers with the body, through ``bytes.upper``; the file is not used
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import processes
from tests.harness import free_port

BLOCK_BYTES = 2**20


@contextmanager
def serving(kind: str, file: Path) -> Iterator[int]:
    """Yield the port of a process of ``kind``; see above."""
    port = free_port()
    with processes.serving([sys.executable, "-m", "bench.bare", kind, str(port), file], port):
        yield port


def send(connection: socket.socket, path: str) -> None:
    _request(connection)
    with open(path, "rb") as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        connection.sendall(_head(size))
        while offset < size:
            offset += os.sendfile(connection.fileno(), file.fileno(), offset, size - offset)


def take(connection: socket.socket, path: str) -> None:
    with open(path, "wb") as file:
        for block in _blocks(connection, *_request(connection)):
            file.write(block)
    connection.sendall(_head(0))


def upper(connection: socket.socket, path: str) -> None:
    length, rest = _request(connection)
    connection.sendall(_head(length))
    connection.sendall(rest.upper())
    left = length - len(rest)
    while left and (block := connection.recv(BLOCK_BYTES)):
        connection.sendall(block.upper())
        left -= len(block)


def _blocks(connection: socket.socket, length: int, rest: bytes) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BLOCK_BYTES))
    yield memoryview(rest)
    left = length - len(rest)
    while left and (count := connection.recv_into(buffer)):
        yield buffer[:count]
        left -= count


def _request(connection: socket.socket) -> tuple[int, bytes]:
    """Return the length of the request's body, and what of it has come with the head."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return 0, b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    if b"100-continue" in head.lower():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0, rest


def _head(length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length


KINDS: dict[str, Callable[[socket.socket, str], None]] = {"send": send, "take": take, "upper": upper}


def main(kind: str, port: int, path: str) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                KINDS[kind](connection, path)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

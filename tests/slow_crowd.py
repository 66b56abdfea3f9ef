"""``python -m tests.slow_crowd <port> <count> <file> <seconds>``: connections that do as little as they can.

A third sends a head, a third a body, a byte every so many seconds; a third reads ``/api/download/<file>`` a little at a
time. What the server ends is opened again some time later. It goes on until it is killed, and writes a line once all
connections have been opened and have begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable

DROP_S = float(sys.argv[4])
_HEAD = b"Host: localhost\r\n"


async def drop(writer: asyncio.StreamWriter, begin: bytes, byte: bytes) -> None:
    """Send ``begin``, and then a byte now and then for as long as the connection lasts."""
    writer.write(begin)
    while not writer.transport.is_closing():
        await asyncio.sleep(DROP_S)
        writer.write(byte)
        await writer.drain()


async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begin: bytes) -> None:
    """Send a request, and read its answer in sips."""
    writer.write(begin)
    while await reader.read(100):
        await asyncio.sleep(DROP_S)


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with so small a window that little of an answer is on its way."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return await asyncio.open_connection(sock=connection, limit=256)


async def slowly(kind: int, file: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if kind == 0:
        await drop(writer, b"GET /healthz HTTP/1.1\r\n" + _HEAD + b"X: ", b"x")
    elif kind == 1:
        body = b"POST /api/upload-progress HTTP/1.1\r\n" + _HEAD + b"Content-Length: 100000\r\n\r\n"
        await drop(writer, body, b"x")
    else:
        await sip(reader, writer, f"GET /api/download/{file} HTTP/1.1\r\n".encode() + _HEAD + b"\r\n")


async def member(number: int, port: int, file: str, opened: Callable[[], None]) -> None:
    """One of the crowd, for ever."""
    first = True
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await connected(port)
            try:
                # Not all in the same moment.
                await asyncio.sleep(DROP_S * (number % 100) / 100)
                if first:
                    opened()
                first = False
                await slowly(number % 3, file, reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(3 * DROP_S)


async def crowd(port: int, size: int, file: str) -> None:
    left, all_open = size, asyncio.Event()

    def opened() -> None:
        nonlocal left
        left -= 1
        if not left:
            all_open.set()

    members = []
    for number in range(size):
        members.append(asyncio.create_task(member(number, port, file, opened)))
        if number % 50 == 49:
            await asyncio.sleep(0.02)
    await all_open.wait()
    sys.stdout.write("open\n")
    sys.stdout.flush()
    await asyncio.gather(*members)


if __name__ == "__main__":
    asyncio.run(crowd(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))

"""A model's server for the bench, a process of its own: ``python -m bench.model <port> <tokens> <seconds apart>``.

Each token is the time at which it was sent (CLOCK_MONOTONIC, µs), so that a reader on the same machine can tell how
long it was on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n'
)
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d,"total_tokens":%d}}\n\n'


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tokens: int, gap_s: float) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            sizes = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
            await reader.readexactly(sizes[0] if sizes else 0)
            writer.write(HEAD)
            began = time.monotonic()
            for number in range(tokens):
                sent_us = time.monotonic_ns() // 1000
                writer.write(_chunk(_CHUNK % (b'{"content":"%d "}' % sent_us, b"null")))
                await asyncio.sleep(max(0.0, began + (number + 1) * gap_s - time.monotonic()))
            last = _CHUNK % (b"{}", b'"stop"') + _USAGE % (tokens, tokens + 3) + b"data: [DONE]\n\n"
            writer.write(_chunk(last) + b"0\r\n\r\n")
            await writer.drain()
    writer.close()


async def main(port: int, tokens: int, gap_s: float) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: answer(reader, writer, tokens, gap_s), "127.0.0.1", port, backlog=1024
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

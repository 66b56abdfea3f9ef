"""The limit of chat: what the model sends is received, decoded, and sent on, in one loop, with nothing else around it.

``python -m bench.bare_relay <port> <model's port>``: no HTTP is parsed, no log is kept, nobody is waited for.
"""

from __future__ import annotations

import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from bench import processes
from tests.harness import free_port

_QUESTION = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def serving(model_port: int) -> Iterator[tuple[int, int]]:
    """Yield its port and its process id."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare_relay", str(port), str(model_port)]
    with processes.serving(command, port) as process:
        yield port, process.pid


class Delta(msgspec.Struct):
    content: str = ""


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice]


_decode = msgspec.json.Decoder(Chunk).decode


@dataclass(slots=True)
class Chat:
    """Who reads, and the line that has not come to its end."""

    reader: socket.socket
    rest: bytes = b""


def relay(model: socket.socket, chat: Chat) -> bool:
    """Pass on what has come; whether there will be more."""
    data, ended = model.recv(65536), False
    *lines, chat.rest = (chat.rest + data).split(b"\n")
    for line in lines:
        if line.startswith(b"data: {"):
            text = "".join(choice.delta.content for choice in _decode(line[6:]).choices).encode()
            if text:
                chat.reader.send(b"%x\r\n%b\r\n" % (len(text), text))
        ended = ended or line.startswith(b"data: [DONE]")
    if ended:
        chat.reader.send(b"0\r\n\r\n")
    return bool(data) and not ended


def main(port: int, model_port: int) -> None:
    selector = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _answer(selector, listener, model_port)
                elif not relay(key.fileobj, key.data):  # type: ignore[arg-type]  # ours are sockets
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]  # as above
                    key.data.reader.close()


def _answer(selector: selectors.BaseSelector, listener: socket.socket, model_port: int) -> None:
    reader, _ = listener.accept()
    reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not reader.recv(65536):
        return reader.close()  # who only looked whether somebody listens
    reader.send(_HEAD)
    model = socket.create_connection(("127.0.0.1", model_port))
    model.sendall(_QUESTION)
    selector.register(model, selectors.EVENT_READ, Chat(reader))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Readers of chats for the bench, a process of its own: ``python -m bench.chat_readers <port> <path> <chats> <apart>``.

Prints as JSON how many tokens and whole answers came, how many tokens came out of their order, and the times in ms: of
each token since its model sent it, and of each first token since its question was sent.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

LIMIT_S = 120
_BODY = b'{"messages":[{"role":"user","content":"Hello"}]}'
_TOKEN = re.compile(rb"(\d{9,16}) ")
_END = b"\r\n0\r\n\r\n"


@dataclass
class Chat:
    connection: socket.socket
    asked_us: int
    first_us: int = 0
    tail: bytes = b""
    last_us: int = 0
    disordered: int = 0
    whole: bool = False
    times_us: list[int] = field(default_factory=list)

    def read(self) -> bool:
        """Whether there may be more."""
        data = self.connection.recv(262144)
        now_us = time.monotonic_ns() // 1000
        seen = self.tail + data
        end = 0
        for match in _TOKEN.finditer(seen):
            sent_us = int(match[1])
            self.times_us.append(now_us - sent_us)
            self.disordered += sent_us <= self.last_us
            self.last_us = sent_us
            self.first_us = self.first_us or now_us
            end = match.end()
        self.tail = seen[max(end, len(seen) - 64) :]
        self.whole = self.whole or seen.endswith(_END)
        return bool(data) and not self.whole


def ask(port: int, path: str) -> Chat:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked_us = time.monotonic_ns() // 1000
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}"
    connection.sendall(f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + _BODY)
    return Chat(connection, asked_us)


def main(port: int, path: str, count: int, apart_s: float) -> None:
    selector = selectors.DefaultSelector()
    chats: list[Chat] = []
    deadline = time.monotonic() + LIMIT_S
    next_at = time.monotonic()
    open_ones = 0
    while (len(chats) < count or open_ones) and time.monotonic() < deadline:
        while len(chats) < count and time.monotonic() >= next_at:
            chats.append(chat := ask(port, path))
            selector.register(chat.connection, selectors.EVENT_READ, chat)
            open_ones += 1
            next_at += apart_s
        wait_s = max(next_at - time.monotonic(), 0) if len(chats) < count else 1.0
        for key, _ in selector.select(wait_s) if open_ones else ():
            if not key.data.read():
                selector.unregister(key.fileobj)
                open_ones -= 1
    times = sorted(us / 1000 for chat in chats for us in chat.times_us)
    firsts = [(chat.first_us - chat.asked_us) / 1000 for chat in chats if chat.first_us]
    told = {"tokens": len(times), "whole": sum(chat.whole for chat in chats)}
    told["disordered"] = sum(chat.disordered for chat in chats)
    print(json.dumps(told | {"times": times, "firsts": firsts}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

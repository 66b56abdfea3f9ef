"""Readers and producers that lose their connection all the time, and must not lose or double anything for that.

Rules:
- A connection has a fate: after so many bytes, or so many seconds, it is dropped where it stands, by FIN or by RST.
- What a reader has seen is what its client would have handed on: whole events of a stream that was cut, whole bodies.
- An EventSource that comes back and gets anything but 200 has died (HTML Living Standard, 9.2.3): that is a failure.
- A producer says the same again until somebody acknowledges it.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.clients import EventStream

Seen = tuple[int, int]
PASSING = (429, 500, 502, 503, 504)


class Dropped(Exception):
    """The connection has ended before the answer had, by our doing or the server's."""


def message(producer: int, n: int) -> dict[str, Any]:
    """What a producer says as its nth: the same whenever it is made, of very different lengths."""
    return {"p": producer, "n": n, "pad": "ß\n" * (n * 37 % 31)}


def seen(said: Mapping[str, Any]) -> Seen:
    assert said == message(said["p"], said["n"]), f"not as it was sent: {said}"
    return said["p"], said["n"]


@dataclass(frozen=True, slots=True)
class Fate:
    """How one connection ends. ``window_bytes``: the receive buffer of a client that reads slowly, 0: the usual."""

    bytes: float = float("inf")
    seconds: float = 30.0
    resets: bool = False
    window_bytes: int = 0

    @staticmethod
    def draw(rng: random.Random, window_bytes: int = 0) -> Fate:
        """As many die within their first bytes as after many; one of ten lives for up to five seconds."""
        size = 10 ** rng.uniform(0, 5) if rng.random() < 0.9 else 1e9
        return Fate(int(size), 10 ** rng.uniform(-1.5, 0.7), rng.random() < 0.5, window_bytes)


class Connection:
    """One request and its answer, by raw socket. Raises Dropped and OSError when the fate comes."""

    def __init__(self, port: int, fate: Fate) -> None:
        self._fate = fate
        self._left = fate.bytes
        self._until = time.monotonic() + fate.seconds
        self._buffer = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._socket = socket.socket()
        try:
            if fate.window_bytes:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, fate.window_bytes)
            self._socket.settimeout(5.0)
            self._socket.connect(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fate.resets:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Connection:
        """Send the request and read the head of the answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body else []
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self.status = int(self._line().split(b" ")[1])
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        return self

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes, half chunks too. Raises Dropped where it does not come to its end."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self._line(), 16):
                yield from self._take(size)
                assert self._line() == b"", "a chunk is longer than it says (RFC 9112, 7.1)"
        else:
            yield from self._take(int(self.headers.get("content-length", 0)))

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            if data:
                size -= len(data)
                yield data
            else:
                self._receive()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _receive(self) -> None:
        left_s = self._until - time.monotonic()
        if left_s <= 0 or self._left < 1:
            raise Dropped
        if self._fate.window_bytes:
            time.sleep(0.005)  # a pace, not a wait: this reader is slow
        self._socket.settimeout(left_s)
        data = self._socket.recv(int(min(self._left, self._fate.window_bytes or 65536)))
        if not data:
            raise Dropped
        self._left -= len(data)
        self._buffer += data


class Reader:
    """A client that reads until it has read the end; ``failure`` says what must not have happened."""

    kind = ""
    # Never drops its connection by itself; ``cuts`` are those that were not ended cleanly.
    steady = False

    def __init__(self, port: int, target: str, rng: random.Random, window_bytes: int = 0) -> None:
        self.port = port
        self.target = target
        self.rng = rng
        self.window_bytes = window_bytes
        self.cursor = ""
        self.seen: list[Seen] = []
        self.ended = False
        self.connections = self.cuts = 0
        self.failure = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stopped = False

    def __repr__(self) -> str:
        state = "ended" if self.ended else "not ended"
        return f"<{self.kind} of {self.target}: {len(self.seen)} events, {self.connections} connections, {state}>"

    def start(self) -> Reader:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Give up, if it has not come to its end."""
        self._stopped = True

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not (self.ended or self._stopped):
                self.connections += 1
                steady = Fate(seconds=3600.0, window_bytes=self.window_bytes)
                fate = steady if self.steady else Fate.draw(self.rng, self.window_bytes)
                try:
                    with Connection(self.port, fate) as connection:
                        self.read(connection)
                except (Dropped, OSError):
                    self.cuts += 1
                time.sleep(self.rng.uniform(0, 0.1))  # a client comes back after a while
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def read(self, connection: Connection) -> None:
        raise NotImplementedError


def passing(connection: Connection) -> bool:
    """Whether the answer is one that a client comes back after; any other but 200 and 204 is a failure."""
    assert connection.status in (200, 204, *PASSING), f"{connection.status}: {connection.body()!r}"
    return connection.status in PASSING


class EventSource(Reader):
    """A browser on /api/events?follow=1; the end is an event {"end": true} on each of its topics."""

    kind = "EventSource"
    left = 1

    def read(self, connection: Connection) -> None:
        returning = {"Last-Event-ID": self.cursor} if self.cursor else {}
        connection.request("GET", self.target, {"Accept": "text/event-stream", **returning})
        if not self.cursor and passing(connection):
            return
        assert connection.status == 200, f"an EventSource died of {connection.status}: {connection.body()!r}"
        stream = EventStream()
        stream.last_event_id = stream._id = self.cursor  # Chromium's parser begins with it
        for piece in connection.pieces():
            for event in stream.feed(piece):
                self._take(event.type, json.loads(event.data))
            self.cursor = stream.last_event_id
            if self.ended:
                return

    def _take(self, type: str, said: Any) -> None:
        passing = ("connected", "notification", "stream-error", "stream-drain")
        assert type in passing, f"{type}: {said} after {self.cursor!r}"
        if type == "notification":
            self.left -= "end" in said
            self.ended = self.left == 0
            if "end" not in said:
                self.seen.append(seen(said))


class Lines(EventSource):
    """curl on /api/events?follow=1 as NDJSON."""

    kind = "NDJSON"

    def read(self, connection: Connection) -> None:
        after = f"&after={self.cursor}" if self.cursor else ""
        connection.request("GET", self.target + after, {"Accept": "application/x-ndjson"})
        if passing(connection):
            return
        rest = b""
        for piece in connection.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in filter(None, lines):
                event = json.loads(line)
                self.cursor = event["id"]
                self._take(event["type"], event["data"])
            if self.ended:
                return


class Poll(EventSource):
    """A client of /api/events?poll=1."""

    kind = "poll"

    def read(self, connection: Connection) -> None:
        after = f"&after={self.cursor}" if self.cursor else ""
        connection.request("GET", self.target + after, {})
        if passing(connection):
            return
        answer = json.loads(connection.body())
        for event in answer["events"]:
            self._take(event["type"], event["data"])
        self.cursor = answer["cursor"]


class DurableLive(Reader):
    """A Durable Streams client with live=sse: what came without its control event is read again (5.8)."""

    kind = "durable SSE"

    def read(self, connection: Connection) -> None:
        connection.request("GET", f"{self.target}?offset={self.cursor or '-1'}&live=sse", {})
        if passing(connection):
            return
        stream = EventStream()
        pending: list[Seen] = []
        for piece in connection.pieces():
            for event in stream.feed(piece):
                said = json.loads(event.data)
                if event.type == "data":
                    pending += [seen(each) for each in said if "end" not in each]
                    continue
                assert event.type == "control", event
                self.seen += pending
                pending = []
                self.cursor = said["streamNextOffset"]
                self.ended = said.get("streamClosed", False)
                if self.ended:
                    return


class DurablePoll(Reader):
    """A Durable Streams client that reads what there is: with live=long-poll it waits for more."""

    kind = "long-poll"
    live = "&live=long-poll"

    def read(self, connection: Connection) -> None:
        connection.request("GET", f"{self.target}?offset={self.cursor or '-1'}{self.live}", {})
        if passing(connection):
            return
        body = connection.body()  # JSON that is not whole is nothing
        headers = connection.headers
        self.seen += [seen(each) for each in json.loads(body or b"[]") if "end" not in each]
        self.cursor = headers["stream-next-offset"]
        self.ended = headers.get("stream-closed") == "true"


class DurableCatchUp(DurablePoll):
    kind = "catch-up"
    live = ""


class Publisher:
    """A producer that says the same again until it is acknowledged; each request has a connection of its own."""

    def __init__(self, port: int, number: int, rng: random.Random) -> None:
        self.port = port
        self.number = number
        self.rng = rng
        self.repeats = 0
        self._seq = 0

    def append(self, target: str, messages: list[dict[str, Any]], *, close: bool = False) -> None:
        """Append to a JSON stream of the Durable Streams protocol, once (5.2.1)."""
        headers = {"Content-Type": "application/json", "Producer-Id": f"producer {self.number}", "Producer-Epoch": "0"}
        headers |= {"Producer-Seq": str(self._seq)} | ({"Stream-Closed": "true"} if close else {})
        self._say(target, headers, messages, (200, 204))
        self._seq += 1

    def publish(self, topic: str, said: dict[str, Any], key: str) -> None:
        """Publish one notification, once."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        self._say(f"/api/notifications?topic={topic}", headers, said, (201,))

    def _say(self, target: str, headers: Mapping[str, str], value: object, done: tuple[int, ...]) -> None:
        body = json.dumps(value, ensure_ascii=False).encode()
        for attempt in range(600):
            # Its own connections are dropped too, in the middle of the answer.
            fate = Fate(self.rng.randrange(200), 5.0, True) if self.rng.random() < 0.02 else Fate(seconds=5.0)
            with contextlib.suppress(Dropped, OSError), Connection(self.port, fate) as connection:
                connection.request("POST", target, headers, body)
                if connection.status in done:
                    return
                assert connection.status in PASSING, f"{connection.status}: {connection.body()!r}"
            self.repeats += 1
            time.sleep(min(0.01 * 2 ** min(attempt, 5), 0.2))
        raise AssertionError(f"never acknowledged: {target} {headers}")

"""Parked readers: whatever happens to a connection and whenever, its reader sees each event once, in order.

Random schedules, in this process, over real TCP connections with small buffers: a client stalls, closes, half-closes,
resets and comes back; a worker drains; the log is slow or away. Two oracles: the log itself, read once when all is
over, and h11, which refuses a chunk that another write has broken into. FANOUT_SEED replays one seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import gevent
import h11
import pytest
from gevent import socket

from stores.base import START, Batch, Config
from stores.errors import StoreBusy
from stores.memory import MemoryLog
from streaming import durable_reads, fanout, pump, readers, response
from streaming.durable import place
from streaming.durable_framings import DurableSSE
from streaming.event_lines import Lines
from streaming.events import Event, Source
from streaming.framings import SSE, Framing
from streaming.links import links
from streaming.pace import Pace
from streaming.readers import Follow
from streaming.wire import Link
from tests.clients import EventStream

PATH = "notifications/a"
END = '"end"'
Pair = tuple[dict[str, Any], socket.socket]
FOREVER_S = 3600.0
SEEDS = [int(os.environ["FANOUT_SEED"])] if "FANOUT_SEED" in os.environ else range(12)


class GreenLog(MemoryLog):
    """A log that waits as stores do under gevent, and answers late: what it says of the end may be over by then."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self.away = False
        self.before_read: Callable[[str], object] = lambda after: None

    def read(self, path: str, after: str, limit: int = 1000, limit_bytes: int = 2**20) -> Batch:
        self.before_read(after)
        batch = super().read(path, after, limit, limit_bytes)
        gevent.sleep(self._rng.choice((0, 0, 0.001, 0.005)))
        if self.away:
            raise StoreBusy("away")
        return batch

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not (more := super().wait(path, after, 0)) and time.monotonic() < deadline:
            gevent.sleep(0.001)
        if self.away:
            gevent.sleep(0.001)
            raise StoreBusy("away")
        return more


def leave(connection: socket.socket, rng: random.Random) -> None:
    """By a FIN or an RST; once or often."""
    with contextlib.suppress(OSError):
        if rng.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Restless(Pace):
    """Rests at random places of a broadcast; meanwhile a client leaves, or the worker drains a connection."""

    rng = random.Random()
    clients: ClassVar[set[socket.socket]] = set()

    def rest(self) -> bool:
        rests = self.rng.random() < 0.3
        if rests:
            if links._open and self.rng.random() < 0.3:
                gevent.get_hub().loop.run_callback(self.rng.choice(list(links._open)).drain)
            if self.clients and self.rng.random() < 0.5:
                leave(self.clients.pop(), self.rng)
            gevent.sleep(self.rng.choice((0, 0.0005, 0.005)))
        return rests


@pytest.fixture(autouse=True, scope="module")
def watched() -> None:
    """What a worker makes once and keeps (the epoll set and the sweeper) is there before the first test."""
    with pair() as (environ, _):
        Link(environ).close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look every few milliseconds, and a few connections between two rests: more happens in less time."""
    monkeypatch.setattr(readers, "TICK_S", 0.02)
    monkeypatch.setattr(readers, "BUSY_S", 0)
    monkeypatch.setattr(fanout, "BUSY_S", 0.005)
    monkeypatch.setattr(fanout, "LOOK_S", 0.02)
    monkeypatch.setattr(fanout, "_AT_ONCE", 3)


@contextlib.contextmanager
def pair(buffer_bytes: int = 0) -> Iterator[tuple[dict[str, Any], socket.socket]]:
    """The server's end of a connection, in an environ as gunicorn makes it, and the client's, with small buffers."""
    with socket.socket() as listener, socket.socket() as client:
        if buffer_bytes:  # before the handshake, which agrees on the scale of the window
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield {"gunicorn.socket": server, "SERVER_PROTOCOL": "HTTP/1.1"}, client


def serve(environ: dict[str, Any], source: Follow, framing: Framing, heartbeat_s: float) -> None:
    """Write the response as gunicorn does, chunk by chunk; a failure closes the connection."""
    server = environ["gunicorn.socket"]
    frames = response.Body(pump.pump(source, framing, environ, heartbeat_s), source)
    with contextlib.suppress(OSError), contextlib.closing(frames):
        for frame in filter(None, frames):
            server.sendall(b"%X\r\n%b\r\n" % (len(frame), frame))
        server.sendall(b"0\r\n\r\n")
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


class Body:
    """The body of a chunked response, as far as it has come, read by h11."""

    def __init__(self) -> None:
        self._parser = h11.Connection(h11.CLIENT)
        self._parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        self._parser.send(h11.EndOfMessage())
        self._parser.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        self._parser.receive_data(data)
        out = bytearray()
        while (event := self._parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Data):
                out += event.data
            self.ended |= isinstance(event, h11.EndOfMessage)
        return bytes(out)


class Client:
    """An EventSource with bad luck. ``seen``: the data of its events, over all its connections."""

    def __init__(self, log: GreenLog, rng: random.Random, heartbeat_s: float) -> None:
        self._log = log
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self.cursor = START
        self.seen: list[str] = []
        self.served: list[gevent.Greenlet] = []
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            with pair(self._rng.choice((0, 2048))) as (environ, connection):
                serving = gevent.spawn(serve, environ, *self.asked(), self._heartbeat_s)
                self.served.append(serving)
                Restless.clients.add(connection)
                with contextlib.suppress(OSError):
                    self._read(connection)
                Restless.clients.discard(connection)
                leave(connection, self._rng)
                serving.join(2.0)
                assert serving.dead, "the server did not notice that its client has gone"
            gevent.sleep(self._rng.choice((0, 0.01)))

    def asked(self) -> tuple[Source, Framing]:
        """What the server answers with to its cursor."""
        return Follow(self._log, PATH, self.cursor), SSE(self.cursor)

    def _read(self, connection: socket.socket) -> None:
        """Read until the server ends it, or for so many bytes, with pauses."""
        body, stream, rest = Body(), EventStream(), b""
        stream.last_event_id = stream._id = self.cursor  # as Chromium's parser begins
        left = int(10 ** self._rng.uniform(0, 6.5))
        half_closes = self._heartbeat_s < FOREVER_S and self._rng.random() < 0.3  # its end is noticed by a write only
        while left > 0 and not (body.ended or self.ended):
            if self._rng.random() < 0.1:
                gevent.sleep(self._rng.uniform(0, 0.05))
            if half_closes and self._rng.random() < 0.1:
                half_closes = False
                connection.shutdown(socket.SHUT_WR)
            data = connection.recv(min(left, self._rng.choice((100, 2000, 65536))))
            left -= len(data)
            if not data:
                return
            *frames, rest = (rest + body.feed(data)).split(b"\n\n")
            for frame in frames:
                self.take(stream, frame + b"\n\n")

    def take(self, stream: EventStream, frame: bytes) -> None:
        before = self.cursor
        events = stream.feed(frame)
        self.cursor = stream.last_event_id
        for event in events:
            assert event.type == "notification", event
            self.seen.append(event.data)
            self.ended = event.data == END
        assert events or self.cursor == before, f"a frame without an event moved the cursor: {before}, {self.cursor}"


class DurableClient(Client):
    """The same by the Durable Streams protocol: what came without its control event is read again (5.8)."""

    def asked(self) -> tuple[Source, Framing]:
        self._pending: list[str] = []
        source = durable_reads.live(self._log, PATH, place(self.cursor or None), self._log.state(PATH), "")
        return source, DurableSSE("application/json")

    def take(self, stream: EventStream, frame: bytes) -> None:
        for event in stream.feed(frame):
            if event.type == "data":
                self._pending += [json.dumps(each) for each in json.loads(event.data)]
            else:
                self.seen += self._pending
                self._pending = []
                self.cursor = json.loads(event.data)["streamNextOffset"]
        self.ended = self.seen[-1:] == [END]


def publish(log: GreenLog, *texts: str) -> str:
    """Append notifications; return the offset of the last."""
    events = [Event(text.encode(), "notification") for text in texts]
    return log.append(PATH, events, create=Config("application/json")).offset


def produce(log: GreenLog, rng: random.Random) -> None:
    """Publish in bursts, with pauses, while the log is away now and then."""
    for _ in range(60):
        publish(
            log, *(f'"{rng.random()} {"x" * int(10 ** rng.uniform(0, 3.5))}"' for _ in range(rng.choice((1, 1, 5, 30))))
        )
        gevent.sleep(rng.choice((0, 0, 0.001, 0.02)))
        if rng.random() < 0.05:
            log.away = True
            gevent.sleep(rng.uniform(0, 0.03))
            log.away = False
    publish(log, END)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty clients that come and go while others write to their connections all see what the log holds."""
    rng = random.Random(seed)
    monkeypatch.setattr(Restless, "rng", random.Random(rng.random()))
    monkeypatch.setattr(fanout, "Pace", Restless)
    log = GreenLog(random.Random(rng.random()))
    heartbeat_s = rng.choice((0.03, FOREVER_S))
    kinds = [Client, Client, DurableClient] * 10
    publish(log, '"first"')
    clients = [kind(log, random.Random(rng.random()), heartbeat_s) for kind in kinds]
    running = [gevent.spawn(client.run) for client in clients]
    gevent.spawn(produce, log, random.Random(rng.random())).join()
    gevent.joinall(running, timeout=20.0)
    gevent.killall([greenlet for greenlet in running if not greenlet.dead], block=True)
    for greenlet in running:
        assert greenlet.successful(), f"seed {seed}: {greenlet.exception}"
    unfinished = [(type(client).__name__, len(client.seen)) for client in clients if not client.ended]
    assert not unfinished, f"seed {seed}: {unfinished} of {len(everything(log))}"
    truth = [event.data.decode() for event in everything(log)]
    for client in clients:
        assert client.seen == truth, f"seed {seed}: {difference(client.seen, truth)}"
    assert not links._open
    gevent.sleep(2 * fanout.LOOK_S)
    assert not fanout._tails


def everything(log: GreenLog) -> list[Event]:
    found: list[Event] = []
    while events := MemoryLog.read(log, PATH, found[-1].id if found else START).events:
        found += events
    return found


def difference(seen: Sequence[str], truth: Sequence[str]) -> str:
    return f"{len(set(truth) - set(seen))} lost, {len(seen) - len(set(seen))} doubled, of {len(truth)}"


@contextlib.contextmanager
def parked(log: MemoryLog, count: int, heartbeat_s: float = FOREVER_S) -> Iterator[list[Pair]]:
    """So many connections that are parked at the end of the stream, in this order, which has one event."""
    after = publish(log, "before")
    with contextlib.ExitStack() as stack:
        pairs: list[Pair] = []
        for n in range(count):
            pairs.append(stack.enter_context(pair()))
            gevent.spawn(serve, pairs[-1][0], Follow(log, PATH, after), SSE(after), heartbeat_s)
            eventually(lambda n=n: parked_now() == n + 1)
        try:
            yield pairs
        finally:
            for _, connection in pairs:
                connection.close()
            publish(log, "after")  # who has half-closed is found out by a write
            eventually(lambda: not links._open)
    eventually(lambda: not fanout._tails)


def parked_now() -> int:
    return sum(len(tail._parked) for tail in fanout._tails.values())


def eventually(predicate: Callable[[], object]) -> None:
    with gevent.Timeout(2.0):
        while not predicate():
            gevent.sleep(0.001)


class RestingOnce(Pace):
    """Lets others run after the first connection of a broadcast, and then no more."""

    rested = False

    def rest(self) -> bool:
        rests, self.rested = not self.rested, True
        if rests:
            gevent.sleep(0.05)
        return rests


def test_a_connection_that_ended_in_a_rest_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor is another connection's by then, and that one gets nothing of what was meant for it."""
    monkeypatch.setattr(fanout, "_AT_ONCE", 1)
    monkeypatch.setattr(fanout, "Pace", RestingOnce)
    log = GreenLog(random.Random(1))
    with parked(log, 4) as pairs:
        environ, leaving = pairs[3]
        reading, writing = os.pipe()
        descriptor = environ["gunicorn.socket"].fileno()
        publish(log, "new")
        eventually(lambda: b"new" in pairs[0][1].recv(65536))  # the first has it, and the broadcast rests
        leaving.close()
        eventually(lambda: len(links) == 3)
        environ["gunicorn.socket"].close()
        eventually(lambda: not os.path.exists(f"/proc/self/fd/{descriptor}"))  # gevent closes it a moment later
        os.dup2(writing, descriptor)
        eventually(lambda: b"new" in pairs[2][1].recv(65536))
        gevent.sleep(0.02)
        for each in (writing, descriptor):
            os.close(each)
        with open(reading, "rb") as pipe:
            assert pipe.read() == b""


@pytest.mark.parametrize(("pause_s", "rests"), [(0.0, 1), (0.1, 0)])
def test_a_rest_is_for_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch, pause_s: float, rests: int) -> None:
    """What came during a broadcast waits for more, and is written with it; what comes later is written at once."""
    log, slept = GreenLog(random.Random(1)), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        publish(log, "joined")

    monkeypatch.setattr(fanout, "_AT_ONCE", 1)
    monkeypatch.setattr(fanout, "_REST_S", (0.02, 0.03))
    monkeypatch.setattr(fanout, "Pace", RestingOnce)
    with parked(log, 2) as pairs:
        monkeypatch.setattr(fanout, "gevent", SimpleNamespace(sleep=sleep, spawn=gevent.spawn, get_hub=gevent.get_hub))
        publish(log, "first")
        first, last = (connection for _, connection in pairs)
        eventually(lambda: b"first" in first.recv(65536))
        if pause_s:
            eventually(lambda: b"first" in last.recv(65536))
            gevent.sleep(pause_s)
        publish(log, "second")
        came = bytearray()
        eventually(lambda: came.extend(first.recv(65536)) or b"second" in came)
        assert (len(slept), b"joined" in came) == (rests, bool(rests))
        assert all(0.02 <= each <= 0.03 for each in slept)


def frames_of(data: bytes) -> list[bytes]:
    """The frames of a chunked body of server-sent events, whole ones only."""
    return Body().feed(data).split(b"\n\n")[:-1]


def available(connection: socket.socket) -> bytes:
    """All that has come and not been read."""
    out, timeout = bytearray(), connection.gettimeout()
    connection.settimeout(0.0)
    with contextlib.suppress(BlockingIOError):
        while data := connection.recv(65536):
            out += data
    connection.settimeout(timeout)
    return bytes(out)


def test_a_client_that_half_closes_gets_no_heartbeat_into_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a chunk that was written in part comes next, whatever the hub hears meanwhile."""
    log, original, received = GreenLog(random.Random(2)), os.write, bytearray()
    after = publish(log, "before")

    def write(descriptor: int, data: bytes) -> int:
        """The hub has heard of the FIN, and tells it as soon as the broadcast rests; the client reads meanwhile."""
        patch.undo()
        (link,) = links._open
        gevent.get_hub().loop.run_callback(link.hung_up, True)
        sent = original(descriptor, data)
        assert sent < len(data)
        received.extend(available(client))
        return sent

    with pair(2048) as (environ, client):
        serving = gevent.spawn(serve, environ, Follow(log, PATH, after), SSE(after), FOREVER_S)
        eventually(parked_now)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            publish(log, "x" * 200_000)
            with gevent.Timeout(2.0):
                while not received.endswith(b"x" * 20 + b"\n\n\r\n"):  # an offset may end with an x
                    received += client.recv(65536)
        assert frames_of(received)[-1].endswith(b"data: " + b"x" * 200_000)
        client.close()
        publish(log, "a write finds out that it has gone")
        serving.join(2.0)


def ids_of(frames: Sequence[bytes]) -> list[str]:
    return [frame.split(b"\n")[0].removeprefix(b"id: ").decode() for frame in frames if frame.startswith(b"id: ")]


def test_a_heartbeat_says_no_cursor_of_what_is_still_to_be_written() -> None:
    """A client that half-closes while the next events are read has been sent none of those that wait with them."""
    log = GreenLog(random.Random(3))
    first = publish(log, "first")
    publish(log, *("x" * 10 for _ in range(1500)))  # more than one read: some of them wait for the second
    written: list[bytes] = []

    def half_close(after: str) -> None:
        if after != first and not written:
            (link,) = links._open
            link.hung_up(half=True)
            written.append(available(client))

    with pair() as (environ, client):
        log.before_read = half_close
        serving = gevent.spawn(serve, environ, Follow(log, PATH, first), SSE(first), FOREVER_S)
        eventually(lambda: written)
        client.close()
        serving.join(2.0)
    frames = frames_of(written[0])
    assert ids_of(frames)[-1] == ids_of([frame for frame in frames if b"data:" in frame])[-1]


def test_everybody_has_a_heartbeat_in_time() -> None:
    """One who came just before the others' heartbeat has not to wait for the one after it; each says its cursor."""
    log, heartbeat_s = GreenLog(random.Random(5)), 0.2
    with parked(log, 1, heartbeat_s) as pairs, pair() as (environ, late):
        after = everything(log)[-1].id
        gevent.sleep(0.75 * heartbeat_s)  # the pace of this test, not a wait
        gevent.spawn(serve, environ, Follow(log, PATH, after), SSE(after), heartbeat_s)
        eventually(lambda: parked_now() == 2)
        began = time.monotonic()
        head = len(available(late))
        eventually(lambda: len(available(late)))
        assert head
        assert time.monotonic() - began < 1.2 * heartbeat_s
        frames = frames_of(available(pairs[0][1]))
        assert set(ids_of(frames[1:])) == {after}
        late.close()


def test_a_client_that_reads_nothing_costs_the_others_nothing() -> None:
    """The others have every event within moments; it has them all, in order, when it reads at last."""
    log = GreenLog(random.Random(6))
    with parked(log, 3) as pairs, pair(2048) as (environ, stalled):
        after = everything(log)[-1].id
        serving = gevent.spawn(serve, environ, Follow(log, PATH, after), SSE(after), FOREVER_S)
        eventually(lambda: parked_now() == 4)
        bodies = [(bytearray(), connection) for _, connection in pairs]
        for n in range(300):
            publish(log, f"{n:03d}" + "x" * 2000)
            for body, connection in bodies:
                eventually(partial(arrived, body, connection, b"%03dx" % n))
        assert not serving.dead
        bodies.append((bytearray(), stalled))
        truth = [event.data for event in MemoryLog.read(log, PATH, after).events]
        for body, connection in bodies:
            eventually(partial(arrived, body, connection, b"299x"))
            eventually(lambda body=body, connection=connection: ended(body, connection))
            assert [frame.rpartition(b"data: ")[2] for frame in frames_of(bytes(body)) if b"data: " in frame] == truth
        stalled.close()


def ended(body: bytearray, connection: socket.socket) -> bool:
    """Whether the last chunk that has come is whole."""
    body += available(connection)
    return body.endswith(b"\n\n\r\n")


def arrived(body: bytearray, connection: socket.socket, text: bytes) -> bool:
    body += available(connection)
    return text in body


@pytest.mark.parametrize("framing", [SSE, Lines])
def test_the_bytes_are_those_of_the_generator(framing: Callable[[], Framing]) -> None:
    """Parked or not, and to its very end, a stream is the same body."""
    log = GreenLog(random.Random(7))
    publish(log, "stored")
    with pair() as (environ, client):
        serving = gevent.spawn(serve, environ, Follow(log, PATH, START), framing(), FOREVER_S)
        eventually(parked_now)
        for text in ("one", "two\nlines", "three", "ß"):
            publish(log, text)
            gevent.sleep(0.01)  # so that some come alone
        publish(log, "with the end")
        log.close(PATH)
        serving.join(2.0)
        body = Body()
        received = body.feed(available(client))
    assert body.ended
    assert received == b"".join(pump.pump(Follow(log, PATH, START), framing(), {}, FOREVER_S))


def test_a_deleted_stream_ends_for_those_who_are_parked() -> None:
    """They are told at once and not left waiting; what is made at its path later is not theirs."""
    log = GreenLog(random.Random(8))
    with parked(log, 3) as pairs:
        assert log.delete(PATH)
        publish(log, "another life")
        eventually(lambda: not links._open)
        for _, connection in pairs:
            body = Body()
            text = body.feed(available(connection))
            assert body.ended
            assert b"event: stream-error" in text
            assert b"another life" not in text


def test_an_event_that_cannot_be_written_is_told() -> None:
    """A failure while a tail encodes is none of its own: each reader comes to it, and says so. None passes over it."""
    log = GreenLog(random.Random(9))
    with parked(log, 3) as pairs:
        log.append(PATH, [Event(b"x", "no\ntype")])
        eventually(lambda: not links._open)
        for _, connection in pairs:
            assert b"event: stream-error" in available(connection)


def test_a_store_that_is_away_keeps_its_readers() -> None:
    """Heartbeats go on with the right cursor; when it is back, what was published meanwhile comes, once."""
    log = GreenLog(random.Random(10))
    with parked(log, 3, heartbeat_s=0.03) as pairs:
        before = everything(log)[-1].id
        log.away = True
        after = publish(log, "meanwhile")
        bodies = [bytearray() for _ in pairs]
        for body, (_, connection) in zip(bodies, pairs, strict=True):
            for _ in range(3):
                eventually(partial(arrived, beat := bytearray(), connection, b"id: "))
                body += beat
            assert set(ids_of(frames_of(bytes(body)))) == {before}
        log.away = False
        for body, (_, connection) in zip(bodies, pairs, strict=True):
            eventually(partial(arrived, body, connection, after.encode()))
            gevent.sleep(0.05)
            body += available(connection)
            assert body.count(b"data: meanwhile") == 1

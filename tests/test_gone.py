"""The moments in which a client can leave, one by one: streaming/wire.py on connections within this process."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from streaming.events import Event, Source
from streaming.framings import SSE
from streaming.links import links
from streaming.pump import pump
from streaming.wire import DUPLEX, END, Interrupted, Link

IDLE_S = 5.0


@pytest.fixture(autouse=True, scope="module")
def watched() -> None:
    """What a worker makes once and keeps (the epoll set and the sweeper) is there before the first test."""
    with pair() as (environ, _):
        Link(environ).close()


@contextlib.contextmanager
def pair() -> Iterator[tuple[dict[str, Any], socket.socket]]:
    """The server's end of a TCP connection, in an environ as gunicorn makes it, and the client's end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield {"gunicorn.socket": server, "SERVER_PROTOCOL": "HTTP/1.1"}, client


def silent() -> Source:
    """A source that has nothing for a long time, and then only one event."""
    gevent.sleep(IDLE_S)
    yield Event(b"too late")


def let_others_run() -> None:
    """As the pump does between two writes: long enough for the hub to hear of what has happened meanwhile."""
    gevent.sleep(0.02)


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """The wait ends with Interrupted, long before the source has something."""
    began = time.monotonic()
    with pytest.raises(Interrupted):
        yield
    assert time.monotonic() - began < IDLE_S / 2


def test_a_client_that_leaves_while_the_source_waits() -> None:
    """The wait is interrupted."""
    with pair() as (environ, client), contextlib.closing(Link(environ)) as link:
        gevent.spawn_later(0.05, client.close)
        with noticed():
            link.pull(silent())


def test_a_client_that_left_before_the_source_waits() -> None:
    """It left while nobody watched: the first wait ends at once."""
    with pair() as (environ, client):
        client.close()
        with contextlib.closing(Link(environ)) as link, noticed():
            link.pull(silent())


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_leaves_between_two_items(half: bool) -> None:
    """It left after a write, while the pump let others run: no write is under way, and the next wait still hears it."""
    with pair() as (environ, client), contextlib.closing(Link(environ)) as link:
        assert link.pull(iter([1])) == 1
        client.shutdown(socket.SHUT_WR) if half else client.close()
        let_others_run()
        with noticed():
            link.pull(silent())


def test_a_half_closed_client_is_asked_by_a_heartbeat() -> None:
    """With a probe it gets a heartbeat and the source goes on; a reset is then still noticed."""
    with pair() as (environ, client), contextlib.closing(Link(environ, probe=SSE().idle)) as link:
        link.pull(iter([1]))
        client.shutdown(socket.SHUT_WR)
        let_others_run()

        def patient() -> Source:
            gevent.sleep(0.1)
            yield Event(b"still here")

        assert link.pull(patient()) == Event(b"still here")
        assert client.recv(100) == b"3\r\n:\n\n\r\n"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gevent.spawn_later(0.05, client.close)
        with noticed():
            link.pull(silent())


def test_a_client_that_sends_is_not_stuck() -> None:
    """It reads nothing, and no write gets on; as long as its body comes it is left alone, and then it has its time."""
    with pair() as (environ, _), contextlib.closing(Link(environ)) as link:
        now = time.monotonic()
        assert not link.stalled(now + 10, limit_s=5)  # first seen
        assert link.stalled(now + 20, limit_s=5)
        environ[DUPLEX] = now + 18
        assert not link.stalled(now + 21, limit_s=5)
        assert link.stalled(now + 24, limit_s=5)


def test_a_client_that_is_answered_while_it_sends_may_end_its_side() -> None:
    """Its FIN may stand behind a body that is still to be read: its reader comes to it, and a reset is told."""
    with pair() as (environ, client), contextlib.closing(Link(environ | {DUPLEX: time.monotonic()})) as link:
        gevent.spawn_later(0.05, client.shutdown, socket.SHUT_WR)

        def reading() -> Source:
            gevent.sleep(0.2)
            yield Event(b"all of it")

        assert link.pull(reading()) == Event(b"all of it")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gevent.spawn_later(0.05, client.close)
        with noticed():
            link.pull(silent())


def test_a_closed_link_hears_nothing() -> None:
    """What the hub was about to tell when the response ended does not reach the next response of the connection."""
    with pair() as (environ, client):
        first = Link(environ)
        first.close()
        with contextlib.closing(Link(environ)) as second:
            client.close()
            first.hung_up(half=True)
            first.give_up()
            with noticed():
                second.pull(silent())


def test_a_drain_says_only_what_was_written() -> None:
    """Events that wait to be written together when a drain comes are written, before the cursor moves past them."""

    def source() -> Source:
        yield Event(b"a", id="1")
        yield Event(b"b", id="2")
        link.drain()  # as the hub does while the source waits for its database
        yield Event(b"c", id="3")

    with pair() as (environ, _):
        frames = pump(source(), SSE(), environ, 15.0)
        written = [next(frames)]
        (link,) = links._open
        written += frames
    text = b"".join(written).decode()
    assert re.fullmatch(r"retry: 1000\n:\n\nid: 1\ndata: a\n\nid: 2\ndata: b\n\nretry: [0-9]+\nid: 2\n\n", text)


def test_the_end_of_a_source_is_told_once() -> None:
    """END comes back from a source that is at its end, also a second time."""
    with pair() as (environ, _), contextlib.closing(Link(environ)) as link:
        assert link.pull(iter(())) is END
        assert link.pull(iter(())) is END

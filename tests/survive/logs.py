"""Kinds that live in the log: events, durable streams, durable runs. Each function is one client, to its end."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.clients import EventStream
from tests.survive.caller import Caller, Finding, prefix, same
from tests.survive.truth import Truth

_JSON = (("Content-Type", "application/json"),)
_EVENTS = (("Accept", "text/event-stream"),)


def events(caller: Caller, _: Truth) -> None:
    """A topic of its own: one publishes, each event with a key until it is acknowledged, and an EventSource follows."""
    count = caller.rng.randint(10, 60)
    topic = caller.name
    with _beside(lambda: _publish(caller, topic, count)):
        seen: list[int] = []
        last = ""
        while len(seen) < count:
            returning = (("Last-Event-ID", last),) if last else ()
            stream = EventStream()
            stream.last_event_id = stream._id = last
            answer = caller.ask(
                "GET",
                f"/api/events?topic={topic}&follow=1",
                (*_EVENTS, *returning),
                enough=lambda answer: bytes(answer.body).count(b'data: {"n":') >= count - len(seen),
            )
            if last and answer.status not in (0, 200):
                raise Finding(f"{caller.name}: an EventSource died of {answer}")
            caller.passing(answer, 200)
            if answer.status == 200:
                for event in stream.feed(bytes(answer.body)):
                    if event.type == "notification":
                        seen.append(json.loads(event.data)["n"])
                    elif event.type not in ("connected", "stream-error"):
                        raise Finding(f"{caller.name}: {event}")
                last = stream.last_event_id
            caller.later()
    same(caller.name, repr(seen).encode(), repr(list(range(count))).encode())


def _publish(caller: Caller, topic: str, count: int) -> None:
    publisher = Caller(caller.port, f"{caller.name} publisher", caller.rng, caller.deadline)
    for n in range(count):
        headers = (*_JSON, ("Idempotency-Key", f"{topic}-{n}"))
        publisher.insist("POST", f"/api/notifications?topic={topic}", headers, json.dumps({"n": n}).encode(), (201,))


def durable(caller: Caller, truth: Truth) -> None:
    """A stream of bytes: one appends as an idempotent producer and closes, and one reads catch-up and long-poll."""
    size = int(10 ** caller.rng.uniform(2, 5.5))
    target = f"/v1/stream/survive/{caller.name}"
    binary = (("Content-Type", "application/octet-stream"),)
    caller.insist("PUT", target, binary, b"", (200, 201))
    with _beside(lambda: _append(caller, target, truth.file[:size])):
        got, offset, closed = b"", "-1", False
        while not closed:
            answer = caller.ask("GET", f"{target}?offset={offset}&live=long-poll")
            caller.passing(answer, 200, 204)
            if answer.status in (200, 204) and answer.end == "clean":
                got += bytes(answer.body)
                offset = answer.header("stream-next-offset", offset)
                closed = answer.header("stream-closed") == "true"
            prefix(caller.name, got, truth.file[:size])
            caller.later()
    same(caller.name, got, truth.file[:size])


def _append(caller: Caller, target: str, content: bytes) -> None:
    producer = Caller(caller.port, f"{caller.name} producer", caller.rng, caller.deadline)
    at, seq = 0, 0
    while at < len(content):
        piece = content[at : at + caller.rng.randint(1, max(1, len(content) // 8))]
        at += len(piece)
        headers = (
            ("Content-Type", "application/octet-stream"),
            ("Producer-Id", caller.name),
            ("Producer-Epoch", "0"),
            ("Producer-Seq", str(seq)),
            *((("Stream-Closed", "true"),) if at == len(content) else ()),
        )
        producer.insist("POST", target, headers, piece, (200, 204))
        seq += 1


def durable_run(caller: Caller, _: Truth) -> None:
    """``?durable=1``: its bytes again under Location, whole or visibly not, also when its worker was killed."""
    count = caller.rng.randint(20, 120)
    expected = b"".join(b"Chunk %d\n" % n for n in range(count))
    while True:
        begun = caller.ask("GET", f"/api/stream?chunks={count}&interval=0.01&durable=1")
        caller.passing(begun, 200)
        prefix(caller.name, bytes(begun.body), expected)
        if begun.end == "clean" and begun.status == 200:
            same(caller.name, bytes(begun.body), expected)
        if location := begun.header("location"):
            break
        caller.later()
    got, offset = b"", "-1"
    while True:
        answer = caller.ask("GET", f"{location}?offset={offset}&live=long-poll")
        caller.passing(answer, 200, 204, 410)
        if answer.status == 410:  # its worker was killed: it is told, and what came before it is right
            prefix(caller.name, got, expected)
            return
        if answer.status in (200, 204) and answer.end == "clean":
            got += bytes(answer.body)
            offset = answer.header("stream-next-offset", offset)
            if answer.header("stream-closed") == "true":
                same(caller.name, got, expected)
                return
        prefix(caller.name, got, expected)
        caller.later()


@contextmanager
def _beside(work: object) -> Iterator[None]:
    """Do ``work`` in a thread meanwhile; what it raises is raised at the end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            yield
    finally:
        if failures:
            raise failures[0]

"""Kinds that live in the log: events, durable streams, durable runs. Each function is one client, to its end."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
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
    seen: list[int | None] = []  # None: it was told that something is lost
    last = ""
    with _publishing(caller, topic, count):
        while not any(n is not None and n >= count - 1 for n in seen):
            returning = (("Last-Event-ID", last),) if last else ()
            stream = EventStream()
            stream.last_event_id = stream._id = last
            answer = caller.ask(
                "GET",
                f"/api/events?topic={topic}&follow=1",
                (*_EVENTS, *returning),
                enough=lambda answer: _ends(bytes(answer.body), count),
            )
            if last and answer.status not in (0, 200):
                raise Finding(f"{caller.name}: an EventSource died of {answer}")
            caller.passing(answer, 200)
            if answer.status == 200:
                for event in stream.feed(bytes(answer.body)):
                    if event.type == "notification":
                        seen.append(json.loads(event.data)["n"])
                    elif event.type == "stream-reset" and caller.mishaps.emptied:
                        seen.append(None)
                    elif event.type not in ("connected", "stream-error"):
                        raise Finding(f"{caller.name}: {event}")
                last = stream.last_event_id
            caller.later()
    if caller.mishaps.emptied:
        told_of_losses(caller, seen)
    else:
        same(caller.name, repr(seen).encode(), repr(list(range(count))).encode())


def _ends(body: bytes, count: int) -> bool:
    """Whether the last event is there; to know it nothing of the frames is needed."""
    return any(int(n) >= count - 1 for n in re.findall(rb'data: {"n":([0-9]+)}\n', body))


def told_of_losses(caller: Caller, seen: list[int | None]) -> None:
    """Raise Finding where something was doubled, or is missing and nobody said so; before the first one nobody can.

    The one before a reset may come once more: whoever had no answer yet publishes it again, and its key is lost, too.
    """
    last = -1
    for before, after in itertools.pairwise([None, *seen]):
        if after is None:
            continue
        if after < last or (after == last and before is not None):
            raise Finding(f"{caller.name}: {after} is doubled, or out of order: {seen}")
        if before is not None and after != before + 1:
            raise Finding(f"{caller.name}: what is between {before} and {after} is missing, and nobody said so: {seen}")
        last = after


@contextmanager
def _publishing(caller: Caller, topic: str, count: int) -> Iterator[None]:
    """Publish 0, 1, … meanwhile, and after ``count`` of them more where the store was emptied: any may be lost."""
    over = threading.Event()

    def numbers() -> Iterator[int]:
        yield from range(count)
        more = itertools.count(count)
        while not over.wait(0.2):
            if caller.mishaps.emptied:
                yield next(more)

    def publish() -> None:
        publisher = caller.beside("publisher")
        for n in numbers():
            headers = (*_JSON, ("Idempotency-Key", f"{topic}-{n}"))
            body = json.dumps({"n": n}).encode()
            publisher.insist("POST", f"/api/notifications?topic={topic}", headers, body, (201,))

    with _beside(publish):
        try:
            yield
        finally:
            over.set()


def durable(caller: Caller, truth: Truth) -> None:
    """A stream of bytes: one appends as an idempotent producer and closes, and one reads catch-up and long-poll."""
    size = int(10 ** caller.rng.uniform(2, 5.5))
    target = f"/v1/stream/survive/{caller.name}"
    binary = (("Content-Type", "application/octet-stream"),)
    caller.insist("PUT", target, binary, b"", (200, 201))
    with _beside(lambda: _append(caller, target, truth.file[:size])):
        whole = _read(caller, target, truth.file[:size])
    if not whole:
        durable(caller.again(), truth)


def _read(caller: Caller, target: str, expected: bytes) -> bool:
    """Read to the end; False when it was told that the stream is lost."""
    got, offset, closed = b"", "-1", False
    while not closed:
        answer = caller.ask("GET", f"{target}?offset={offset}&live=long-poll")
        lost = (400, 404, 410) if caller.mishaps.emptied else ()
        caller.passing(answer, 200, 204, *lost)
        if answer.status in lost:
            return False
        if answer.status in (200, 204) and answer.end == "clean":
            got += bytes(answer.body)
            offset = answer.header("stream-next-offset", offset)
            closed = answer.header("stream-closed") == "true"
        prefix(caller.name, got, expected)
        caller.later()
    same(caller.name, got, expected)
    return True


def _append(caller: Caller, target: str, content: bytes) -> None:
    """Append all of it and close; or give up, when it was told that the stream is lost."""
    producer = caller.beside("producer")
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
        while True:
            answer = producer.ask("POST", target, headers, piece)
            if answer.status in (200, 204) and answer.end == "clean":
                break
            # 409: the stream was made again under this name, by a PUT that was repeated.
            if answer.status in (404, 409) and caller.mishaps.emptied:
                return
            producer.passing(answer, 200, 204)
            producer.later()
        seq += 1


def durable_run(caller: Caller, truth: Truth) -> None:
    """``?durable=1``: its bytes again under Location, whole or visibly not, also when its worker was killed."""
    count = caller.rng.randint(20, 120)
    expected = b"".join(b"Chunk %d\n" % n for n in range(count))
    while True:
        begun = caller.ask("GET", f"/api/stream?chunks={count}&interval=0.01&durable=1")
        caller.passing(begun, 200)
        if begun.status == 200:
            prefix(caller.name, bytes(begun.body), expected)
            if begun.end == "clean":
                same(caller.name, bytes(begun.body), expected)
        if location := begun.header("location"):
            break
        caller.later()
    got, offset = b"", "-1"
    while True:
        answer = caller.ask("GET", f"{location}?offset={offset}&live=long-poll")
        lost = (400, 404) if caller.mishaps.lifetimes else ()
        caller.passing(answer, 200, 204, 410, *lost)
        if answer.status in lost:
            return durable_run(caller.again(), truth)
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
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Do ``work`` in a thread meanwhile; what it raises is raised at the end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
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

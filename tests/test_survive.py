"""Some of ``make survive``: every kind of stream through faults, on each of the stages."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tests.clients import RawClient
from tests.survive import chats, episodes, faults, logs
from tests.survive.__main__ import OF_A_STAGE, parts
from tests.survive.caller import Caller, Finding
from tests.survive.episodes import Asked, Told, survive
from tests.survive.proxy import Fate, FaultProxy
from tests.survive.stage import STORES, available
from tests.survive.streams import text
from tests.survive.truth import Truth

SECONDS = 20.0
SEED = 100
TRUTH = Truth([], b"", b"")


@pytest.mark.slow(30)
@pytest.mark.timeout(600)
@pytest.mark.may_leak(reason="clients that were given up have a thread until their deadline")
@pytest.mark.parametrize("stores", STORES)
def test_nothing_is_lost_or_doubled(stores: str) -> None:
    """Twenty seconds of episodes, the same ones each time; SURVIVE_SEED begins with others, 0 with any."""
    if not available(stores):
        pytest.skip("there is no Redis or no PostgreSQL for this machine")
    seed = int(os.environ.get("SURVIVE_SEED", SEED)) or random.randrange(1, 10**6)
    told = survive(stores, Asked(seed, 1000, time.monotonic() + SECONDS))
    assert told.episodes
    assert not told.findings


@pytest.mark.parametrize("count", [1, 100, 101, 2000])
def test_every_episode_has_a_stage(count: int) -> None:
    """However many are asked for: each seed once, a hundred of a stage at most, the stages in turn."""
    stages = list(parts(Asked(7, count, 0.0, fault="reload"), ["a", "b"]))
    assert [seed for _, part in stages for seed in range(part.seed, part.seed + part.episodes)] == [
        *range(7, 7 + count)
    ]
    assert [name for name, _ in stages] == [["a", "b"][n % 2] for n in range(len(stages))]
    assert all(part.episodes <= OF_A_STAGE and part.fault == "reload" for _, part in stages)


def test_a_finding_is_told_with_what_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seed, its stage and what else was asked for; it ends its stage, and what was done before it counts."""

    def episode(stage: object, seed: int, asked: Asked, told: Told) -> None:
        if seed == 9:
            raise Finding("lost")
        told.episodes += 1

    server = SimpleNamespace(tail=lambda _: "its last lines")
    monkeypatch.setattr(episodes, "_episode", episode)
    monkeypatch.setattr(episodes, "stage", lambda *_: nullcontext(SimpleNamespace(server=server)))
    monkeypatch.setattr(faults, "missing", lambda _: {})
    told = survive("embedded", Asked(7, 100, time.monotonic() + 60, only="tus", fault="disk full"))
    again = "--seed 9 --episodes 1 --stores embedded --only tus --fault 'disk full'"
    assert (told.episodes, told.findings) == (2, [f"{again}: lost\nits last lines"])


def serve(body: bytes, status: int = 200) -> tuple[socket.socket, int]:
    """A server that gives everybody the same answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    threading.Thread(target=run, daemon=True).start()
    return listener, listener.getsockname()[1]


@pytest.mark.may_leak(reason="the thread of the small server ends a moment later")
@pytest.mark.parametrize("body", [b"Chunk 0\n" * 200, b"Chunk 1\n", b"Chunk 0\nChunk 2\n", b""])
def test_a_server_that_lies_is_found(body: bytes) -> None:
    """Lines doubled, lost or out of order, and a clean end that is none, are findings."""
    listener, port = serve(body)
    try:
        with pytest.raises(Finding):
            text(Caller(port, "liar", random.Random(1), deadline=float("inf")), TRUTH)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.may_leak(reason="the thread of the small server ends a moment later")
@pytest.mark.parametrize(
    ("status", "finishes", "found"),
    [
        (500, False, "500"),
        (401, False, "401"),
        (200, True, "without finish"),
        (502, True, "has not come to its end"),
        (502, False, ""),
        (429, False, ""),
    ],
)
def test_a_chat_is_refused_only_by_its_model(status: int, finishes: bool, found: str) -> None:
    """A refusal of ours is a finding, and a model that finishes is asked until it has answered."""
    listener, port = serve(b"", status)
    deadline = time.monotonic() + (1 if finishes else 30)
    try:
        with pytest.raises(Finding, match=found) if found else nullcontext():
            chats.ui(Caller(port, "asker", random.Random(1), deadline, finishes), TRUTH)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("seen", "is_finding"),
    [
        ([0, 1, None, 2], False),
        ([0, 1, None, 1, 2], False),  # published again by who had no answer, since its key was lost, too
        ([3, None, 9, 10], False),
        ([0, 0], True),
        ([0, 2], True),
        ([0, 1, None, 0], True),
        ([0, None, 0, 0], True),
        ([1, None, None, 0], True),
    ],
)
def test_what_an_emptied_store_may_do_to_events(seen: list[int | None], is_finding: bool) -> None:
    """Where a reader was told of a reset (None) some may be missing, and the last one come again; nothing else."""
    with pytest.raises(Finding) if is_finding else nullcontext():
        logs.told_of_losses(Caller(0, "reader", random.Random(1), deadline=0.0), seen)


@pytest.mark.may_leak(reason="the thread of the small server ends a moment later")
@pytest.mark.parametrize("kind", ["fin", "reset", "silence", "stall", "trickle"])
def test_fates_come(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is not whole, what stands still or trickles is; the proxy counts it."""
    fate = Fate(kind, 1000, False, 0.2)
    monkeypatch.setattr(Fate, "draw", staticmethod(lambda _: fate))
    listener, port = serve(bytes(100_000))
    with FaultProxy(port) as proxy:
        proxy.storm(random.Random(1))
        try:
            with RawClient(proxy.port) as client:
                answer = client.request("GET", "/").read_to_end()
        except ConnectionError:
            answer = client.answer
        whole = kind in ("stall", "trickle")
        assert (answer.end == "clean", len(answer.body) == 100_000) == (whole, whole)
        assert proxy.faults[kind] == 1
    listener.close()

"""Many open responses at once: what one sweep, or one turn of the loop, does to all of them."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from streaming import links
from streaming.links import Links
from tests.harness import LiveServer, RawClient, eventually


class Open:
    """What a sweep asks of a link; ``ends``: another one that ends meanwhile, whose socket cannot be asked any more."""

    def __init__(self, among: Links, ends: Open | None = None) -> None:
        self.among = among
        self.ends = ends
        self.asked = 0
        among._open.add(self)  # type: ignore[arg-type]

    def stalled(self, now: float, limit_s: float) -> bool:
        assert self in self.among._open
        self.asked += 1
        if self.ends:
            self.among._open.discard(self.ends)  # type: ignore[arg-type]
        return False


def test_a_sweep_asks_nothing_of_what_has_ended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests between two of them; were it to fail, nobody would be cut any more."""
    monkeypatch.setattr(links, "SWEEP_S", 0.01)
    among = Links()
    first, second = Open(among), Open(among)
    first.ends, second.ends = second, first
    sweeper: Any = gevent.spawn(among._sweep)
    gevent.sleep(0.2)
    assert not sweeper.dead
    assert sorted((first.asked > 1, second.asked > 1)) == [False, True]
    sweeper.kill()


def test_all_who_leave_in_one_moment_are_heard_of(server: LiveServer) -> None:
    """More than one turn of the loop hears of: the others are heard of in the next ones."""
    before = server.streams()
    clients = [RawClient(server.port) for _ in range(3 * links._AT_ONCE)]
    for client in clients:
        client.request("GET", "/api/stream?chunks=100&interval=5").read_body_until(b"Chunk 0\n")
    assert server.streams() == before + len(clients)
    for client in clients:
        client.close()
    eventually(lambda: server.streams() == before, 2.0, "all have gone")

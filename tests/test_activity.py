"""What the server does now: kinds by path, rates from counts, and the sum over workers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streaming.activity import KINDS, Sample, Sampler, kind_of, total
from streaming.links import Links
from tests.harness import LiveServer, RawClient


class Open:
    """A response as the sampler sees one."""

    def __init__(self, path: str, address: str, sent: int = 0, events: int = 0, waits: bool = False) -> None:
        self.environ = {"PATH_INFO": path, "REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": f"for {path}"}
        self.sent_bytes, self.events, self._waits = sent, events, waits

    def waits_to_write(self, now: float, for_s: float) -> bool:
        return self._waits


def links(*open: Open) -> Links:
    found = Links()
    found._open = set(open)  # type: ignore[arg-type]  # only what the sampler asks for
    return found


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/stream", "text"),
        ("/api/stream-json", "exports"),
        ("/api/stream-safe", "text"),
        ("/api/sse", "events"),
        ("/api/upload-progress/a", "uploads"),
        ("/v1/stream/chats/a", "chat"),
        ("/v1/stream/rivers", "streams"),
        ("/api/video/sample", "files"),
        ("/files", "other"),
        ("/api/activity", ""),
    ],
)
def test_a_path_has_a_kind(path: str, kind: str) -> None:
    """Each route of docs/http.md is of one kind; who looks is of none."""
    assert kind_of(path) == kind
    assert kind in (*KINDS, "")


def test_a_sample_counts_what_is_open() -> None:
    """Streams by kind, each address once, and behind are those who wait, but for downloads."""
    open = [
        Open("/api/sse", "a", waits=True),
        Open("/api/sse", "a"),
        Open("/api/video/x", "b", waits=True),
        Open("/api/activity", "c", waits=True),
    ]
    sample = Sampler(links(*open)).sample()
    assert (sample.kinds, sample.clients, sample.behind) == ({"events": 2, "files": 1}, 2, 1)
    assert Sampler(links(*open), "X-Forwarded-For").sample().clients == 2


def test_rates_are_what_came_since_the_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing at first; then what open and ended streams, and parked readers, had more, over the time that passed."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = Open("/api/sse", "a", sent=1000, events=10)
    found = links(stream)
    sampler = Sampler(found)
    assert (sampler.sample().bytes_s, sampler.sample().events_s) == (0, 0)
    stream.sent_bytes, stream.events = 1500, 14
    found.parked_bytes, found.parked_events, found.ended_bytes, found.ended_events = 300, 3, 200, 1
    now[0] += 2
    sample = sampler.sample()
    assert (sample.bytes_s, sample.events_s) == (500, 4)


def test_the_sum_is_over_workers() -> None:
    """What is told is the sum of all workers' samples; kinds that nobody has are left out."""
    told = total([Sample({"text": 1}, 1, 10.4, 1.5, 0), Sample({"text": 2, "chat": 1}, 2, 10.0, 2.0, 1)])
    assert told == {
        "workers": 2,
        "streams": 4,
        "kinds": {"text": 3, "chat": 1},
        "clients": 3,
        "bytes_s": 20,
        "events_s": 3.5,
        "behind": 1,
    }


@pytest.mark.slow
def test_all_workers_report_while_somebody_looks(live_server: Callable[..., LiveServer]) -> None:
    """Whichever worker has a stream, it is in the sum."""
    server = live_server(WEB_CONCURRENCY=2)
    with RawClient(server.port) as reader, RawClient(server.port) as watching:
        reader.request("GET", "/api/events?follow=1")
        watching.request("GET", "/api/activity")
        watching.read_body_until(b'{"workers":2,"streams":1,"kinds":{"events":1}', timeout_s=20.0)

"""What readers of logs are told at SIGTERM, whatever they read with: a clean end, when to come again, and where."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import EventStream, LiveServer, RawClient
from tests.houses import log_of, way_to

Live = Callable[..., LiveServer]
LINES = [("Accept", "application/x-ndjson")]
TOPICS = "topic=a&topic=b"


def publish(port: int, topic: str, value: str) -> None:
    with RawClient(port) as client:
        client.request("POST", f"/api/notifications?topic={topic}", body=value.encode())
        assert client.read_to_end().status == 201


def read_lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.split(b"\n") if line]


def messages(lines: list[dict[str, Any]]) -> list[str]:
    return [line["data"]["message"] for line in lines if line["type"] == "notification"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("house", "way"),
    [
        ("sqlite-1", "direct"),
        ("redis-2", "nginx"),
        pytest.param("sqlite-2", "nginx", marks=pytest.mark.slow_suite),
        pytest.param("redis-1", "direct", marks=pytest.mark.slow_suite),
    ],
)
def test_every_reader_of_a_log_is_handed_over(live_server: Live, tmp_path: Path, house: str, way: str) -> None:
    """NDJSON, long-polls and server-sent events end whole within seconds, and go on with exactly what comes next."""
    with log_of(house, tmp_path / "redis") as env, contextlib.ExitStack() as stack:
        server = live_server(HEARTBEAT_S=3600, GRACEFUL_TIMEOUT=30, **env)
        port = stack.enter_context(way_to(server, way, tmp_path))
        publish(port, "a", "one")

        def opened(target: str, *headers: tuple[str, str]) -> RawClient:
            return stack.enter_context(RawClient(port)).request("GET", target, headers)

        with RawClient(port) as maker:
            maker.request("PUT", "/v1/stream/s", [("Content-Type", "application/json")], b"[]").read_to_end()
        one, several, events = (
            opened("/api/events?topic=a&follow=1", *LINES),
            opened(f"/api/events?{TOPICS}&follow=1", *LINES),
            opened(f"/api/events?{TOPICS}&follow=1"),
        )
        for client in (one, several, events):
            client.read_body_until(b"one")
        cursor = read_lines(bytes(one.answer.body))[-1]["id"]
        durable = opened("/v1/stream/s?offset=now&live=long-poll")
        poll = opened(f"/api/events?topic=a&poll=1&after={cursor}")
        poll.read_head()  # and who came before it has been accepted, too
        server.signal(signal.SIGTERM)
        retries = set()
        for client in (one, several):
            answer = client.read_to_end()
            last = read_lines(bytes(answer.body))[-1]
            assert (answer.end, last["type"]) == ("clean", "stream-drain")
            assert 100 <= last["data"]["retry_ms"] <= 1000
            retries.add(last["data"]["retry_ms"])
        stream = EventStream()
        stream.feed(bytes(events.read_to_end().body))
        assert (events.answer.end, 100 <= (stream.retry_ms or 0) <= 1000) == ("clean", True)
        asked = (poll.read_to_end(), durable.read_to_end())
        assert [(answer.status, answer.end) for answer in asked] == [(200, "clean"), (204, "clean")]
        assert asked[0].json == {"events": [], "cursor": cursor}
        assert server.wait_exit(20) == 0
        server.restart()
        publish(port, "a", "two")
        for query, client in (("topic=a", one), (TOPICS, several)):
            last = read_lines(bytes(client.answer.body))[-1]["id"]
            with RawClient(port) as again:
                again.request("GET", f"/api/events?{query}&after={last}", LINES)
                assert messages(read_lines(bytes(again.read_to_end().body))) == ["two"]

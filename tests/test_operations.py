"""What docs/security.md and docs/operations.md claim, by every way to every house: who is let in, bounds, reloads.

What needs a server with settings of its own, or has more cases, is in test_access, test_limits and test_handover.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Answer, LiveServer, RawClient, eventually, parse_events
from tests.houses import every, log_of, way_to
from tests.tokens import ADMIN, KEY, bearer, signed, static

pytestmark = pytest.mark.slow

LINES = {"Accept": "application/x-ndjson"}
EVENTS = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Place:
    """A server, the port at which it is asked, and what is written down of that."""

    server: LiveServer
    port: int
    access_log: Path
    proxied: bool

    def opened(
        self, target: str, token: str = "", method: str = "GET", body: bytes | None = None, **more: str
    ) -> RawClient:
        headers = (bearer(token) if token else {}) | {name.replace("_", "-"): value for name, value in more.items()}
        return RawClient(self.port).request(method, target, headers.items(), body)

    def ask(self, target: str, token: str = "", method: str = "GET", body: bytes | None = None, **more: str) -> Answer:
        with self.opened(target, token, method, body, **more) as client:
            return client.read_to_end()


@pytest.fixture(scope="module", params=every("redis-2 nginx"))
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sample_database: str
) -> Iterator[Place]:
    house, _, way = request.param.partition(" ")
    folder = tmp_path_factory.mktemp("operations")
    callers = ("ann", "full", "heavy", "keeper", "slow")
    with log_of(house, folder / "redis") as log, contextlib.ExitStack() as stack:
        env = {
            "DATABASE_URL": sample_database,
            "API_TOKENS": static(**dict.fromkeys(callers, "*"), reader="read:/topics/a"),
            "JWT_KEY": KEY,
            "TRUSTED_PROXIES": int(way == "nginx"),
            "HEARTBEAT_S": 3600,
            "BODY_TIMEOUT_S": 2,
            "CALLER_STREAMS": 2,
            "CALLER_APPEND_BYTES": 2000,
            "CALLER_STREAM_PATHS": 3,
            **log,
        }
        server = LiveServer(folder / "server", env)
        stack.callback(server.stop)
        server.start()
        port = stack.enter_context(way_to(server, way, folder))
        access_log = folder / "nginx" / "access.log" if way == "nginx" else server.log_path
        yield Place(server, port, access_log, way == "nginx")


def test_who_is_let_in(place: Place) -> None:
    """By a static token, a signed one, a cookie and a link; not without, not beyond its scope, not from elsewhere."""
    topic = "/api/events?topic=a"
    assert [place.ask(topic, token).status for token in ("", "nobody", "reader")] == [401, 401, 200]
    assert place.ask("/api/events?topic=b", "reader").status == 403
    assert place.ask(topic, signed(read=["/topics/a"])).status == 200
    assert place.ask(topic, signed(read=["/topics/a"], for_s=-5)).status == 401
    login = place.ask("/api/login", "reader", "POST", b"")
    cookie = re.match(r"[^;]+", login.header("set-cookie"))
    assert cookie
    assert place.ask(topic, Cookie=cookie[0]).status == 200
    link = place.ask("/api/links", "reader", "POST", json.dumps({"url": topic}).encode()).json["url"]
    assert place.ask(link).status == 200
    assert place.ask(link.replace("topic=a", "topic=b")).status == 403
    eventually(lambda: '"GET /api/events HTTP/1.1" 403' in place.access_log.read_text() or not place.proxied)
    assert link.partition("token=")[2] not in place.access_log.read_text()
    for origin in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert place.ask("/api/notifications?topic=a", "ann", "POST", b"x", **origin).status == 403


def test_streams_end_with_their_token(place: Place) -> None:
    """Server-sent events cleanly, and whoever comes back with it is told and lives on; lines with the reason."""
    token = signed(read=["*"], for_s=5)
    with (
        place.opened("/api/events?topic=a&follow=1", token, **EVENTS) as events,
        place.opened("/api/events?topic=a&follow=1", token, **LINES) as lines,
    ):
        for client in (events, lines):
            client.read_body_until(b"connected")
        assert (events.read_to_end().end, lines.read_to_end().end) == ("clean", "clean")
    assert re.search(rb"retry: \d+\n(id: [^\n]*\n)?:?\n*$", events.answer.body)
    assert lines.answer.body.endswith(b'{"error":"The token has expired."}\n')
    back = place.ask("/api/events?topic=a&follow=1", token, Last_Event_ID="x", **EVENTS)
    assert (back.status, [event.type for event in parse_events(bytes(back.body))]) == (200, ["stream-error"])


def test_a_caller_at_its_bound_is_told_when_to_come_again(place: Place) -> None:
    """Streams: 429 with Retry-After, and its own language for an EventSource that comes back; nobody else notices."""
    target = "/api/events?topic=a&follow=1"
    with contextlib.ExitStack() as stack:
        # As many as both workers have, and then one that either of them refuses.
        for _ in range(2 * len(place.server.pids()) + 8):
            client = stack.enter_context(place.opened(target, "full"))
            if client.read_head().status == 429:
                break
        assert (client.answer.status, client.answer.header("retry-after")) == (429, "5")
        assert "q=2" in client.answer.header("ratelimit-policy")
        assert place.ask("/api/stream?chunks=1", "ann").status == 200

        def comes_back() -> bool:
            with place.opened(target, "full", Last_Event_ID="x", **EVENTS) as back:
                answer = back.read_until(lambda answer: b"stream-error" in answer.body or b"connected" in answer.body)
                return answer.status == 200 and b'"status":429' in answer.body

        # By a worker that has none free.
        eventually(comes_back, 10)


def test_what_a_caller_appends_and_keeps_is_bounded(place: Place) -> None:
    """Bytes in an hour and streams that are kept: refused before anything is done, by whichever worker."""
    statuses = [place.ask(f"/v1/stream/k{n}", "keeper", "PUT", b"").status for n in range(6)]
    assert sorted(statuses) == [201] * 3 + [429] * 3
    answers = [place.ask("/api/notifications?topic=heavy", "heavy", "POST", b"x" * 1500) for _ in range(4)]
    refused = [answer for answer in answers if answer.status != 201]
    # In Redis all workers count together; in memory each for itself.
    assert 2 <= len(refused) <= 3
    for answer in refused:
        assert (answer.status, answer.header("ratelimit-policy")) == (429, '"append-bytes-per-caller";q=2000;w=3600')
        assert 0 < int(answer.header("retry-after")) <= 3600
    assert place.ask("/api/notifications?topic=light", "ann", "POST", b"x" * 1500).status == 201


def test_a_body_in_drops_is_given_up(place: Place) -> None:
    """A 408 with one sentence, also through a proxy that passes on what it gets."""
    with RawClient(place.port) as client:
        head = "POST /api/upload-progress?filename=d HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer slow\r\n"
        client.send(f"{head}Content-Length: 1000\r\n\r\n".encode(), "POST")

        def answered() -> bool:
            with contextlib.suppress(OSError):
                client.send(b"x")
            with contextlib.suppress(TimeoutError):
                client.receive(timeout_s=0.1)
            return bool(client.answer.end)

        eventually(answered, 20)
    assert (client.answer.status, client.answer.json["title"]) == (408, "Request Timeout")


def test_refusals_are_seen_by_the_operator(place: Place) -> None:
    """In /metrics of any worker, by status; and the proxy shows it to nobody outside."""
    assert place.ask("/api/stream?chunks=1").status == 401

    def counted() -> bool:
        text = place.server.get("/metrics", headers=bearer(ADMIN))[1].decode()
        return bool(re.search(r'^perennial_refused_total\{status="401"\} [1-9]', text, re.MULTILINE))

    eventually(counted, 10)
    assert place.ask("/metrics", ADMIN).status == (404 if place.proxied else 200)


def test_a_reload_loses_nothing(place: Place) -> None:
    """SIGHUP under readers of events and lines: each is handed over, goes on at once, and has every event once."""
    targets = ((EVENTS, b"id: "), (LINES, b'{"id":'))
    before = set(place.server.pids())
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(place.opened("/api/events?topic=r&follow=1", ADMIN, **headers))
            for headers, _ in targets
        ]
        for client in readers:
            client.read_body_until(b"connected")
        assert place.ask("/api/notifications?topic=r", "ann", "POST", b"first").status == 201
        for client in readers:
            client.read_body_until(b"first")
        place.server.signal(signal.SIGHUP)
        ends = [client.read_to_end(30) for client in readers]
    assert [answer.end for answer in ends] == ["clean", "clean"]
    eventually(lambda: place.server.pids() and not before & set(place.server.pids()), 30)
    assert place.ask("/api/notifications?topic=r", "ann", "POST", b"second").status == 201
    after = json.loads(ends[1].body.strip().split(b"\n")[-1])
    assert after["type"] == "stream-drain"
    cursors = (re.findall(rb"id: ([^\n]+)", ends[0].body)[-1].decode(), after["id"])
    for (headers, _), cursor in zip(targets, cursors, strict=True):
        body = bytes(place.ask(f"/api/events?topic=r&after={cursor}", ADMIN, **headers).body)
        assert (body.count(b'"first"'), body.count(b'"second"')) == (0, 1)

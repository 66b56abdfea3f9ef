"""/api/events and /api/notifications beyond the seed: formats, cursors, reconnects (docs/http.md)."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from streaming.links import links
from tests.harness import LiveServer, RawClient, ServerSentEvent, eventually, parse_events

NDJSON = {"Accept": "application/x-ndjson"}
SSE = {"Accept": "text/event-stream"}


def publish(client: FlaskClient, topic: str, value: Any, query: str = "", **headers: str) -> str:
    answer = client.post(f"/api/notifications?topic={topic}{query}", json=value, headers=headers)
    assert answer.status_code == 201, answer.data
    return str(answer.json["id"])


def lines(client: FlaskClient, query: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/events?{query}", headers=NDJSON)
    assert (answer.status_code, answer.content_type) == (200, "application/x-ndjson"), answer.data
    return [json.loads(each) for each in answer.data.splitlines()]


def events(client: FlaskClient, query: str, **headers: str) -> list[ServerSentEvent]:
    answer = client.get(f"/api/events?{query}", headers=headers)
    assert answer.content_type == "text/event-stream; charset=utf-8", answer.data
    return parse_events(answer.data)


def notes(said: list[dict[str, Any]]) -> list[Any]:
    return [each["data"]["n"] for each in said if each["type"] == "notification"]


# Formats


def test_the_same_events_in_every_format(client: FlaskClient) -> None:
    """SSE, NDJSON and a long-poll carry the same ids, types and data, and any cursor continues any of them."""
    for n in range(4):
        publish(client, "ab"[n % 2], {"n": n})
    frames = [e for e in events(client, "topic=a,b") if e.type == "notification"]
    rows = [each for each in lines(client, "topic=a,b") if each["type"] == "notification"]
    polled = client.get("/api/events?topic=b&topic=a&poll=1").json
    assert [(e.id, json.loads(e.data)) for e in frames] == [(each["id"], each["data"]) for each in rows]
    assert polled["events"] == rows
    assert polled["cursor"] == rows[-1]["id"]
    assert [each["topic"] for each in rows] == ["a", "a", "b", "b"]
    for done, row in enumerate(rows):
        rest = [each["data"]["n"] for each in rows[done + 1 :]]
        assert notes(lines(client, f"topic=a,b&after={row['id']}")) == rest
        assert [json.loads(e.data)["n"] for e in events(client, f"topic=a,b&after={row['id']}")[1:-1]] == rest


def test_one_topic_keeps_the_plain_offset(client: FlaskClient) -> None:
    """As id, in every format; and there is no topic in its lines."""
    ids = [publish(client, "a", {"n": n}) for n in range(2)]
    assert [e.id for e in events(client, "topic=a")[1:-1]] == ids
    rows = lines(client, "topic=a")
    assert rows[1] == {"id": ids[0], "type": "notification", "data": {"n": 0}}
    assert rows[-1] == {"id": f"{ids[1]}.complete", "type": "complete", "data": {"total": 2}}


@pytest.mark.parametrize(
    ("accept", "type"),
    [
        ("*/*", "text/event-stream; charset=utf-8"),
        ("text/html", "text/event-stream; charset=utf-8"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/event-stream, application/x-ndjson;q=0.9", "text/event-stream; charset=utf-8"),
        ("text/event-stream;q=0.1, application/x-ndjson", "application/x-ndjson"),
    ],
)
def test_accept_chooses(client: FlaskClient, accept: str, type: str) -> None:
    """SSE unless NDJSON is wanted more (RFC 9110, 12.5.1), and caches are told (Vary)."""
    answer = client.get("/api/events", headers={"Accept": accept})
    assert (answer.content_type, answer.headers["Vary"]) == (type, "Accept")


@pytest.mark.parametrize("query", ["follow=1", "poll=1", "topic=a,b&follow=1", ""])
def test_head_is_cheap_and_true(client: FlaskClient, query: str) -> None:
    """The same headers as GET, no body, and it waits for nothing."""
    begun = time.monotonic()
    head = client.head(f"/api/events?{query}")
    assert (head.status_code, head.data) == (200, b"")
    assert time.monotonic() - begun < 1
    with client.get(f"/api/events?{query}") as got:
        assert list(got.headers) == list(head.headers)


# since


def test_since_an_id_a_time_or_a_duration(client: FlaskClient) -> None:
    """Each says where to begin; what comes after is the same stream."""
    ids = [publish(client, "a", {"n": n}) for n in range(3)]
    assert notes(lines(client, f"topic=a&since={ids[0]}")) == [1, 2]
    assert notes(lines(client, "topic=a&since=10m")) == [0, 1, 2]
    assert notes(lines(client, "topic=a&since=2020-01-01T00:00:00Z")) == [0, 1, 2]
    assert notes(lines(client, "topic=a&since=2999-01-01")) == []
    assert notes(client.get("/api/events?topic=a&poll=1&since=1h").json["events"]) == [0, 1, 2]


def test_a_last_event_id_wins(client: FlaskClient) -> None:
    """An EventSource comes back with the URL it began with."""
    ids = [publish(client, "a", {"n": n}) for n in range(3)]
    for query in ("since=10m", f"after={ids[0]}"):
        seen = events(client, f"topic=a&{query}", **{"Last-Event-ID": ids[1]})
        assert [json.loads(e.data)["n"] for e in seen[1:-1]] == [2]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("topic=a,", "topic"),
        ("topic=", "topic"),
        ("topic=a&topic=b/c", "topic"),
        ("topic=" + ",".join(map(str, range(17))), "topic"),
        ("since=2026-02-30", "since"),
        ("since=yesterday", "since"),
        ("since=", "since"),
        ("since=10m&after=000000000001-abcdef", "since"),
        ("after=garbage", "after"),
        ("topic=a,b&after=000000000001-abcdef", "after"),
        ("poll=2", "poll"),
        ("poll=1&follow=1", "poll"),
    ],
)
def test_what_cannot_be_is_a_400_that_names_it(client: FlaskClient, query: str, parameter: str) -> None:
    """Also an id that no stream could have given out."""
    answer = client.get(f"/api/events?{query}")
    assert (answer.status_code, answer.json["parameter"]) == (400, parameter)


def test_sixteen_topics_are_taken(client: FlaskClient) -> None:
    """Named in any order and more than once, and the cursor has them sorted."""
    names = [f"t{n:02}" for n in range(16)]
    for name in names:
        publish(client, name, {"n": 1})
    last = lines(client, "topic=" + ",".join(reversed(names)) + "&topic=t00")[-2]
    assert [re.split("[:=]", part)[0] for part in last["id"].split(",")] == names
    assert len(last["id"]) < 1024


# Cursors that cannot be continued


@pytest.mark.parametrize("follow", ["0", "1"])
@pytest.mark.parametrize("headers", [SSE, {}])
def test_an_id_of_another_life_is_told_to_everybody(client: FlaskClient, follow: str, headers: dict[str, str]) -> None:
    """stream-reset with what was asked, where it goes on and whether something was missed; no replay."""
    tail = publish(client, "a", {"n": 1})
    with client.get(f"/api/events?topic=a&follow={follow}&after=000000000001-zzzzzz", headers=headers) as answer:
        wire = b""
        for piece in answer.iter_encoded():
            wire += piece
            if b"stream-reset" in wire:
                break
    reset = parse_events(wire)[1]
    assert json.loads(reset.data) == {"asked": "000000000001-zzzzzz", "from": tail, "missed": None}
    assert (reset.type, reset.id) == ("stream-reset", tail)
    # Who loses the connection before the reset has come still has its own cursor, and is told again.
    assert parse_events(wire)[0].id == ""


def test_a_poll_is_told_of_a_reset_at_once(client: FlaskClient) -> None:
    """And its cursor continues from there."""
    tail = publish(client, "a", {"n": 1})
    answer = client.get("/api/events?topic=a&poll=1&after=000000000007-zzzzzz").json
    assert [each["type"] for each in answer["events"]] == ["stream-reset"]
    assert answer["cursor"] == tail


@pytest.mark.parametrize("query", ["follow=1", "poll=1", "topic=default,b&follow=1"])
def test_a_closed_topic_ends_with_204(client: FlaskClient, query: str) -> None:
    """Nothing will ever come after it, which an EventSource learns by a 204 (HTML standard, 9.2.3)."""
    log = client.application.extensions["log"]
    cursor = publish(client, "default", {"n": 1})
    for topic in ("default", "b"):
        log.close(f"notifications/{topic}")
    after = f"b:,default:{cursor}" if "b" in query.split(",")[-1] else cursor
    assert client.get(f"/api/events?{query}&after={after}").status_code == 204
    assert client.post("/api/notifications", json={}).status_code == 409


# A worker that goes down


@pytest.mark.parametrize("target", ["/api/events?follow=1", "/api/events?poll=1", "/api/sse?count=3"])
def test_a_drain_is_told(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """A stream that would be ended at once is not begun: a returning EventSource is told in events, others by a 503."""
    monkeypatch.setattr(links, "draining", True)
    first = client.get(target)
    assert (first.status_code, first.headers["Retry-After"]) == (503, "1")
    again = client.get(target, headers={"Last-Event-ID": "1", **SSE})
    if "poll" in target:
        assert again.status_code == 503
        return
    assert again.status_code == 200
    assert [event.type for event in parse_events(again.data)] == ["stream-error"]
    assert re.search(rb"^retry: (1\d{3}|2000)$", again.data, re.MULTILINE)


# Publishing


def test_a_type_is_delivered(client: FlaskClient) -> None:
    """As the event's type, on every wire."""
    publish(client, "a", {"n": 1}, "&type=order.created")
    assert events(client, "topic=a")[1].type == "order.created"
    assert lines(client, "topic=a")[1]["type"] == "order.created"


@pytest.mark.parametrize("type", ["", "a b", "x" * 65, "ä", "a\n", "connected", "complete", "stream-reset"])
def test_a_type_that_cannot_be_is_refused(client: FlaskClient, type: str) -> None:
    """With a sentence that says why."""
    answer = client.post("/api/notifications", query_string={"type": type}, json={})
    assert (answer.status_code, answer.json["parameter"]) == (400, "type")


@pytest.mark.parametrize("type", ["open", "error", "message", "stream-error"])
def test_a_type_with_another_meaning_is_refused(client: FlaskClient, type: str) -> None:
    """A browser fires open and error itself, message is what has no type (HTML standard, 9.2.6)."""
    answer = client.post(f"/api/notifications?type={type}", json={})
    assert answer.status_code == 400
    assert "own" in answer.json["detail"]


def test_a_key_is_one_event(client: FlaskClient) -> None:
    """However often it comes; with another body or type it is a 422."""
    key = {"Idempotency-Key": uuid.uuid4().hex}
    assert len({publish(client, "a", {"n": 1}, **key) for _ in range(3)}) == 1
    assert len(lines(client, "topic=a")) == 3
    assert client.post("/api/notifications?topic=a", json={"n": 2}, headers=key).status_code == 422
    assert client.post("/api/notifications?topic=a&type=x", json={"n": 1}, headers=key).status_code == 422


# Over a real server


@pytest.fixture
def topic() -> str:
    return uuid.uuid4().hex


def post(server: LiveServer, topic: str, value: Any) -> str:
    with RawClient(server.port) as client:
        answer = client.request("POST", f"/api/notifications?topic={topic}", [], json.dumps(value).encode())
        return str(answer.read_to_end().json["id"])


@pytest.mark.parametrize("workers", [1, 2])
def test_several_topics_live(live_server: Callable[..., LiveServer], topic: str, workers: int) -> None:
    """Each event arrives by a wake-up, without a wait for the next tick, whichever worker takes and gives it."""
    server = live_server(WEB_CONCURRENCY=workers)
    with RawClient(server.port) as client:
        client.request("GET", f"/api/events?topic={topic}.a,{topic}.b&follow=1").read_body_until(b"connected")
        begun = time.monotonic()
        for n in range(20):
            post(server, f"{topic}.{'ab'[n % 2]}", {"n": n})
            client.read_body_until(b'{"n":%d}' % n)
        assert time.monotonic() - begun < 4  # by ticks it would be 20 times up to half a second
    seen = [e for e in parse_events(bytes(client.answer.body)) if e.type == "notification"]
    assert [json.loads(e.data)["n"] for e in seen] == list(range(20))


@pytest.mark.parametrize("others", [",x", ""])
def test_ndjson_live(server: LiveServer, topic: str, others: str) -> None:
    """A line the moment it is published, to one topic and to several."""
    target = f"/api/events?topic={topic}{others}&follow=1"
    with RawClient(server.port) as client:
        client.request("GET", target, NDJSON.items()).read_body_until(b"connected")
        for n in range(3):
            id = post(server, topic, {"n": n})
            row = json.loads(client.read_body_until(b'{"n":%d}}\n' % n).body.splitlines()[-1])
            assert (row["type"], row["data"]) == ("notification", {"n": n})
            assert id in row["id"]


def test_a_long_poll_waits_and_answers(live_server: Callable[..., LiveServer]) -> None:
    """With the event as soon as it is published; empty, with the same cursor, when its time is over."""
    server = live_server(LONG_POLL_S=2, STREAMS_URL="memory:")
    cursor = post(server, "a", {"n": 0})
    with RawClient(server.port) as client:
        client.request("GET", f"/api/events?topic=a&poll=1&after={cursor}").read_head()
        assert client.answer.header("content-type") == "application/json"
        post(server, "a", {"n": 1})
        answer = client.read_to_end(1.5).json
        assert [each["data"] for each in answer["events"]] == [{"n": 1}]
        cursor = answer["cursor"]
        client.request("GET", f"/api/events?topic=a&poll=1&after={cursor}")
        assert client.read_to_end(5).json == {"events": [], "cursor": cursor}


def test_a_poller_that_leaves_is_noticed(server: LiveServer, topic: str) -> None:
    """Within a second, while nothing is sent."""
    with RawClient(server.port) as client:
        client.request("GET", f"/api/events?topic={topic}&poll=1").read_head()
        assert server.streams() == 1
    eventually(lambda: server.streams() == 0, 1.0)


def test_a_returning_event_source_survives_the_limit(live_server: Callable[..., LiveServer]) -> None:
    """200, a jittered retry, the reason, the end: any other status would end it for good. All others get 503."""
    server = live_server(MAX_STREAMS=1, STREAMS_URL="memory:")
    cursor = post(server, "default", {"n": 1})
    with RawClient(server.port) as holder, RawClient(server.port) as client:
        holder.request("GET", "/api/events?follow=1").read_body_until(b"connected")
        retries = set()
        for headers, query in (
            ({"Last-Event-ID": cursor}, ""),
            ({"Last-Event-ID": cursor, **SSE}, ""),
            (SSE, f"&after={cursor}"),
        ):
            answer = client.request("GET", f"/api/events?follow=1{query}", headers.items()).read_to_end()
            assert (answer.status, answer.end) == (200, "clean")
            assert answer.header("content-type") == "text/event-stream; charset=utf-8"
            assert answer.header("cache-control") == "no-store, no-transform"
            retries.add(int(re.search(rb"^retry: (\d+)$", answer.body, re.MULTILINE)[1]))
            (event,) = parse_events(bytes(answer.body))
            assert (event.type, json.loads(event.data)["status"]) == ("stream-error", 503)
        assert len(retries) > 1
        assert all(5000 <= retry <= 10000 for retry in retries)
        for headers, query in (
            ({}, ""),
            (SSE, ""),
            ({}, f"&after={cursor}"),
            ({"Last-Event-ID": cursor, **NDJSON}, ""),
        ):
            answer = client.request("GET", f"/api/events?follow=1{query}", headers.items()).read_to_end()
            assert (answer.status, answer.header("retry-after")) == (503, "5")
        answer = client.request("GET", f"/api/events?poll=1&after={cursor}", SSE.items()).read_to_end()
        assert answer.status == 503


@pytest.mark.slow
def test_a_slow_reader_costs_only_itself(live_server: Callable[..., LiveServer]) -> None:
    """One that does not read holds up neither publishing nor the others, and later gets all of it, in order."""
    server = live_server(STREAMS_URL="memory:")
    text = "x" * 20_000
    with RawClient(server.port, receive_buffer_bytes=4096) as slow, RawClient(server.port) as quick:
        for client in (slow, quick):
            client.request("GET", "/api/events?topic=a,b&follow=1").read_body_until(b"connected")
        with RawClient(server.port) as publisher:
            for n in range(300):
                body = json.dumps({"n": n, "text": text}).encode()
                publisher.request("POST", f"/api/notifications?topic={'ab'[n % 2]}", [], body).read_to_end(2)
                quick.read_body_until(b'"n":%d,' % n)
        for client in (quick, slow):
            client.read_until(
                lambda answer: answer.body.count(b"event: notification\n") == 300 and answer.body.endswith(b"\n\n"), 20
            )
            seen = [
                json.loads(e.data)["n"] for e in parse_events(bytes(client.answer.body)) if e.type == "notification"
            ]
            assert [[n for n in seen if n % 2 == odd] for odd in (0, 1)] == [
                list(range(0, 300, 2)),
                list(range(1, 300, 2)),
            ]

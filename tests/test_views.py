"""The routes in memory, held to docs/http.md: bounds, HEAD, problems, and the meaning of each answer."""

from __future__ import annotations

import atexit
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from settings import Settings
from streaming.compression import zstd
from streaming.links import links
from tests.harness import EventStream, ServerSentEvent, parse_events

PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


@pytest.fixture
def make_client(settings: Settings) -> Iterator[Callable[..., FlaskClient]]:
    """A client of an application with other settings: ``make_client(NOTIFICATIONS_KEEP=2)``."""
    from app import create_app

    apps: list[Flask] = []

    def make(**changes: object) -> FlaskClient:
        apps.append(create_app(replace(settings, **changes)))  # type: ignore[arg-type]
        return apps[-1].test_client()

    yield make
    for app in apps:
        app.extensions["uploads"].dispose()
        for store in (app.extensions["log"], app.extensions["tables"], app.extensions["videos"]):
            store.dispose()
            atexit.unregister(store.dispose)


def problem(response: TestResponse, status: int) -> dict[str, Any]:
    """The body of a problem (RFC 9457), once it has proved to be one."""
    with response:
        assert (response.status_code, response.content_type) == (status, PROBLEM), response.data
        body: dict[str, Any] = json.loads(response.data)
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def event_list(response: TestResponse) -> list[tuple[str, Any]]:
    """Type and decoded data of each event of a whole stream."""
    assert (response.status_code, response.content_type) == (200, EVENT_STREAM)
    return [(event.type, json.loads(event.data)) for event in parse_events(response.data)]


# Parameters

ID_CHARACTERS = ["", "x" * 65, "a b", "ä", "a/b", "a\n", "\0"]
SECONDS = ["-1", "60.1", "nan", "inf", "1e1", "", "x"]


def count(most: int) -> list[str]:
    return ["0", str(most + 1), "-1", "1.5", "", "x", "1e3", " 1"]


def within(most: int) -> list[str]:
    return ["-1", str(most + 1), "x", "", "1.0"]


BOUNDS: dict[str, dict[str, list[str]]] = {
    "GET /api/stream": {"chunks": count(100_000), "interval": SECONDS, "after": within(9)},
    "GET /api/sse": {"count": count(100_000), "interval": SECONDS, "after": within(9)},
    "GET /api/stream-safe": {
        "count": count(100_000),
        "interval": SECONDS,
        "after": within(9),
        "fail_after": within(100_000),
    },
    "GET /api/events": {
        "topic": [*ID_CHARACTERS, "a+b"],
        "follow": ["2", "", "true", "on"],
        "after": ["x", "0", "x" * 129],
    },
    "GET /api/stream-json": {
        "table": ["", "x" * 129],
        "columns": ["", "nothing", "id,", ",", "id;", "x" * 4097],
        "after": ["x" * 1025, "x"],
        "limit": within(10**9),
        "order": ["", "name", "up", "id.up"],
    },
    "GET /api/export": {
        "table": ["", "x" * 129],
        "columns": ["", "nothing", "id,"],
        "after": ["x" * 1025, "x"],
        "limit": within(10**9),
        "order": ["", "name.desc", "DESC"],
        "format": ["", "xml", "CSV"],
        "filename": ["", ".hidden", "a/b.csv", 'a".csv', "a\nb", "x" * 201],
        "excel": ["2", "", "true"],
        "length": ["", "1", "EXACT"],
        "id": [*ID_CHARACTERS, "a.b"],
    },
    "GET /api/export/users.ndjson": {"excel": ["1"], "columns": ["nothing"], "format": ["parquet"]},
    "GET /api/export/users.csv-metadata.json": {"columns": ["", "nothing"]},
    "GET /api/export/an-id": {"after": ["x" * 129]},
    "POST /api/transform": {
        "to": [
            "",
            "UPPER",
            "rot13",
            "upper ",
            "upper,",
            ",upper",
            "upper,,lower",
            "upper,rot13",
            ",".join(["upper"] * 9),
        ]
    },
    "POST /api/notifications": {"topic": ID_CHARACTERS},
    "POST /api/upload-progress": {
        "filename": [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/",
            "..\\a",
            "a\\b",
            "x" * 201,
            "é" * 101,
            "a\0b",
            "a\nb",
            "\u202ea",
        ],
        "id": [*ID_CHARACTERS, "a.b"],
        "exists": ["", "Rename", "replace"],
    },
    "POST /api/uploads": {},
    "PATCH /api/uploads/an-id": {},
    "GET /api/upload-progress/an-id": {"after": ["x" * 129]},
    "GET /api/download/a.txt": {},
    "GET /api/video/a": {"download": ["", "2", "true"]},
    "POST /api/video": {"id": [*ID_CHARACTERS, "a.b"]},
    "GET /api/files": {"after": ["x" * 4097], "limit": [*within(1000), "0"]},
}
OUT_OF_BOUNDS = [(route, name, text) for route, of in BOUNDS.items() for name, texts in of.items() for text in texts]


def ask(client: FlaskClient, route: str, query: str) -> TestResponse:
    method, _, path = route.partition(" ")
    return client.open(f"{path}?{query}", method=method, data=b"body" if method == "POST" else None)


@pytest.mark.parametrize(("route", "name", "text"), OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_names_its_parameter(client: FlaskClient, route: str, name: str, text: str) -> None:
    """Also where it is of another type or empty: a 400 as problem+json, and nothing was done."""
    assert problem(ask(client, route, f"{name}={quote(text)}"), 400)["parameter"] == name


# A topic may be given several times: they are read together.
ONCE = [(route, name) for route, of in BOUNDS.items() for name in of if (route, name) != ("GET /api/events", "topic")]


@pytest.mark.parametrize(("route", "name"), ONCE)
def test_a_parameter_given_twice_is_refused(client: FlaskClient, route: str, name: str) -> None:
    """Which of the two would count? Proxies and frameworks do not agree."""
    assert problem(ask(client, route, f"{name}=1&{name}=1"), 400)["parameter"] == name


@pytest.mark.parametrize("route", BOUNDS)
def test_an_unknown_parameter_is_refused(client: FlaskClient, route: str, settings: Settings) -> None:
    """A misspelt one would pass in silence otherwise."""
    (settings.FILES_DIR / "a.txt").write_text("a")
    (settings.FILES_DIR / "videos" / "a.mp4").write_text("a")
    assert problem(ask(client, route, "colour=red"), 400)["parameter"] == "colour"


@pytest.mark.parametrize("route", ["/api/stream-json", "/api/export"])
@pytest.mark.parametrize("table", ["nothing", "sqlite_master", "users;", "users--", '"users"', "Users "])
def test_a_table_that_is_not_exported_is_not_found(client: FlaskClient, route: str, table: str) -> None:
    """Not even whether it exists is told."""
    assert problem(client.get(route, query_string={"table": table}), 404)["parameter"] == "table"


# HEAD and methods

SAMPLES = {"filename": "a.txt", "id": "a", "name": "users.csv", "model": Settings().CHAT_MODEL}
# What is known only by making the content may be left out of HEAD (RFC 9110, 9.3.2): the moment of an export.
MADE = {"Export-Snapshot", "Export-Receipt"}
QUERIES = {"/api/stream": "interval=0", "/api/sse": "interval=0", "/api/stream-safe": "interval=0"}


def get_routes(app: Flask) -> list[str]:
    # What clients make, and what pages are made of, has tests of its own: tests/test_streams.py,
    # tests/test_tus_routes.py, tests/test_page_parts.py.
    made = ("static", "streams.", "resumables.", "assets.", "pages.other_docs", "pages.plot")
    rules = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.startswith(made)]
    bind = app.url_map.bind("localhost")
    return [
        bind.build(rule.endpoint, {name: SAMPLES[name] for name in rule.arguments}, method="GET")
        for rule in rules
        if "GET" in (rule.methods or ())
    ]


def test_head_says_what_get_says(app: Flask, client: FlaskClient, settings: Settings) -> None:
    """On every route that takes GET: the same status and headers, and no body (RFC 9110, 9.3.2)."""
    (settings.FILES_DIR / "a.txt").write_text("a")
    (settings.FILES_DIR / "videos" / "a.mp4").write_text("a")
    routes = get_routes(app)
    assert len(routes) >= 15
    for path in routes:
        url = f"{path}?{QUERIES.get(path, '')}"
        with client.get(url) as get, client.head(url) as head:
            assert head.data == b"", path
            assert head.status_code == get.status_code, path
            assert get.status_code in (200, 204), path
            assert dict(head.headers) == {name: text for name, text in get.headers.items() if name not in MADE}, path
    assert len(links) == 0


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/nothing", "/api/download", "/api/upload-progress/a/b"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_unknown_path_is_a_problem(client: FlaskClient, method: str, path: str) -> None:
    """404, in the form of all problems."""
    if method == "HEAD":
        with client.head(path) as response:
            assert (response.status_code, response.content_type, response.data) == (404, PROBLEM, b"")
    else:
        problem(client.open(path, method=method), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/stream", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/api/download/a.txt", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/api/notifications", {"POST", "OPTIONS"}),
        ("PUT", "/api/transform", {"POST", "OPTIONS"}),
        ("GET", "/api/upload-progress", {"POST", "OPTIONS"}),
        ("GET", "/api/uploads", {"POST", "OPTIONS"}),
        ("PUT", "/api/uploads/a", {"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"}),
    ],
)
def test_another_method_is_a_problem(client: FlaskClient, method: str, path: str, allowed: set[str]) -> None:
    """405, with Allow (RFC 9110, 15.5.6)."""
    response = client.open(path, method=method)
    assert set(response.headers["Allow"].split(", ")) == allowed
    problem(response, 405)


# Text and records


def test_chunks(client: FlaskClient) -> None:
    """As the contract has it, and from after a given one."""
    with client.get("/api/stream?chunks=3&interval=0") as response:
        assert (response.content_type, response.data) == (
            "text/plain; charset=utf-8",
            b"Chunk 0\nChunk 1\nChunk 2\n",
        )
    assert client.get("/api/stream?chunks=3&interval=0&after=1").data == b"Chunk 2\n"
    assert client.get("/api/stream?chunks=3&interval=0&after=2").data == b""


@pytest.mark.parametrize(("fail_after", "items"), [("0", 0), ("3", 3), ("10", 10), ("100", 10)])
def test_a_stream_that_fails_says_so(client: FlaskClient, fail_after: str, items: int) -> None:
    """The items before the failure, a line that tells it, and a clean end; beyond its end nothing fails."""
    with client.get(f"/api/stream-safe?interval=0&fail_after={fail_after}") as response:
        lines = response.data.decode().removesuffix("\n").split("\n")
    assert [json.loads(line)["item"] for line in lines[:items]] == list(range(items))
    assert lines[items:] == (['{"error":"Stream failed"}'] if items < 10 else [])


def test_a_failing_stream_goes_on(client: FlaskClient) -> None:
    """After the items that came; ``fail_after`` counts those of the new response."""
    lines = client.get("/api/stream-safe?interval=0&after=7&fail_after=2").data.splitlines()
    assert [json.loads(line).get("item") for line in lines] == [8, 9]


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("upper", "STRASSE\nE\u0301"),
        ("lower", "straße\ne\u0301"),
        ("casefold", "strasse\ne\u0301"),
        ("identity", "Straße\ne\u0301"),
        ("nfc", "Straße\né"),
        ("lines", "     1\tStraße\n     2\te\u0301"),
        ("nfc,upper,lines", "     1\tSTRASSE\n     2\tÉ"),
        ("gzip,gunzip,zstd,unzstd,upper,lower,nfc,upper", "STRASSE\nÉ"),
    ],
)
def test_a_transform(client: FlaskClient, to: str, expected: str) -> None:
    """Each by its name, several in a row; upper without one."""
    with client.post(f"/api/transform?to={to}", data="Straße\ne\u0301".encode()) as response:
        assert (response.content_type, response.data.decode()) == ("text/plain; charset=utf-8", expected)
    assert client.post("/api/transform", data=b"a").data == b"A"


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("zstd", zstd.compress),
        ("identity", bytes),
        ("gzip, zstd", lambda data: zstd.compress(gzip.compress(data))),
        ("identity,gzip", gzip.compress),
    ],
)
def test_a_body_that_is_encoded(client: FlaskClient, coding: str, encode: Callable[[bytes], bytes]) -> None:
    """A Content-Encoding is undone before the transforms, the last one first (RFC 9110, 8.4); the answer has none."""
    answer = client.post("/api/transform", data=encode("Grüße".encode()), headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.data.decode()) == (200, "GRÜSSE")
    assert "Content-Encoding" not in answer.headers
    refused = client.post("/api/transform", data=b"no archive", headers={"Content-Encoding": coding})
    assert refused.status_code == (200 if coding == "identity" else 400)


@pytest.mark.parametrize("coding", ["br", "gzip, br", "deflate", ", ".join(["gzip"] * 9)])
def test_a_body_that_is_encoded_otherwise(client: FlaskClient, coding: str) -> None:
    """415, and which codings are known (RFC 9110, 15.5.16)."""
    answer = client.post("/api/transform", data=b"x", headers={"Content-Encoding": coding})
    assert "gzip or zstd" in problem(answer, 415)["detail"]
    assert answer.headers["Accept-Encoding"] == "gzip, zstd"


def test_an_archive_is_the_answer_and_not_its_coding(client: FlaskClient) -> None:
    """A client that undoes Content-Encoding by itself must not undo what was asked for."""
    with client.post("/api/transform?to=gzip", data=b"river") as answer:
        assert answer.content_type == "application/gzip"
        assert "Content-Encoding" not in answer.headers
        assert gzip.decompress(answer.data) == b"river"


def test_a_bomb_is_a_413(make_client: Callable[..., FlaskClient]) -> None:
    """As far as it is known before the first byte."""
    answer = make_client(TRANSFORM_BYTES=1000).post("/api/transform?to=gunzip", data=gzip.compress(bytes(2000)))
    assert "1000 bytes" in problem(answer, 413)["detail"]


def test_a_transform_of_nothing_or_of_no_text(client: FlaskClient) -> None:
    """What cannot be is a 400 before the first byte."""
    assert "no body" in problem(client.post("/api/transform"), 400)["detail"]
    assert "Byte 1 of" in problem(client.post("/api/transform", data=b"a\xff"), 400)["detail"]
    assert "Byte 0 of" in problem(client.post("/api/transform", data=b"\xe2\x82"), 400)["detail"]


# Ticks


def ticks(response: TestResponse) -> list[int]:
    return [data["count"] for type, data in event_list(response) if type == "message"]


def test_ticks_and_their_end(client: FlaskClient) -> None:
    """Each has its count as id; who has the last one is told 204, which ends an EventSource (HTML, 9.2.3)."""
    response = client.get("/api/sse?count=3&interval=0")
    events = parse_events(response.data)
    assert [(event.id, event.type, json.loads(event.data)["count"]) for event in events] == [
        ("0", "message", 0),
        ("1", "message", 1),
        ("2", "message", 2),
    ]
    assert json.loads(events[0].data)["time"].endswith("Z")
    for last, rest in (("0", [1, 2]), ("1", [2])):
        assert ticks(client.get("/api/sse?count=3&interval=0", headers={"Last-Event-ID": last})) == rest
        assert ticks(client.get(f"/api/sse?count=3&interval=0&after={last}")) == rest
    end = client.get("/api/sse?count=3&interval=0", headers={"Last-Event-ID": "2"})
    assert (end.status_code, end.data) == (204, b"")
    assert ticks(client.get("/api/sse?count=3&interval=0&after=0", headers={"Last-Event-ID": "1"})) == [2]


@pytest.mark.parametrize(
    "cursor", ["3", "99999999", "x", "-1", "1.0", "\xb2", "\u0661".encode().decode("latin-1"), " 0"]
)
def test_ticks_after_a_cursor_that_is_none(client: FlaskClient, cursor: str) -> None:
    """It is told, and the stream begins anew: a 400 would end an EventSource for good."""
    response = client.get("/api/sse?count=3&interval=0", environ_overrides={"HTTP_LAST_EVENT_ID": cursor})
    first, *rest = event_list(response)
    assert first[0] == "stream-reset"
    assert first[1]["asked"] == cursor.encode("latin-1").decode("utf-8", "replace")
    assert [data["count"] for _, data in rest] == [0, 1, 2]


# Notifications


def publish(client: FlaskClient, body: Any, topic: str = "default", **headers: str) -> str:
    response = client.post(f"/api/notifications?topic={topic}", json=body, headers=headers)
    assert response.status_code == 201, response.data
    assert set(response.json or {}) == {"id", "topic"}
    assert response.headers["Location"] == f"/api/events?topic={topic}"
    return str((response.json or {})["id"])


def test_events_of_an_empty_topic(client: FlaskClient) -> None:
    """Connected, and complete with a total of 0; then 204 to the reconnect."""
    response = client.get("/api/events")
    assert event_list(response) == [("connected", {"status": "ok"}), ("complete", {"total": 0})]
    last = parse_events(response.data)[-1].id
    assert last
    again = client.get("/api/events", headers={"Last-Event-ID": last})
    assert (again.status_code, again.data) == (204, b"")


def test_events_are_what_was_published(client: FlaskClient) -> None:
    """In order, each once, with the ids that publishing returned; then complete, and 204."""
    ids = [publish(client, {"n": n}) for n in range(3)]
    publish(client, {"n": "elsewhere"}, topic="other")
    response = client.get("/api/events?topic=default")
    expected = [("notification", {"n": n}) for n in range(3)]
    assert event_list(response) == [("connected", {"status": "ok"}), *expected, ("complete", {"total": 3})]
    events = parse_events(response.data)
    assert [event.id for event in events[1:4]] == ids
    assert client.get("/api/events", headers={"Last-Event-ID": events[-1].id}).status_code == 204
    for at, id in enumerate(ids):
        asked = {"Last-Event-ID": id}
        for query, headers in (({}, asked), ({"after": id}, {}), ({"after": ids[0]}, asked)):
            again = client.get("/api/events", query_string=query, headers=headers)
            assert event_list(again)[1:] == [*expected[at + 1 :], ("complete", {"total": 3})]


def test_the_first_frame_sets_the_cursor(client: FlaskClient) -> None:
    """A connection lost before its first event loses nothing: id without data fires nothing and is remembered."""
    ids = [publish(client, {"n": n}) for n in range(2)]
    with client.get("/api/events", headers={"Last-Event-ID": ids[0]}) as response:
        reader = EventStream()
        assert reader.feed(next(response.iter_encoded())) == []
        assert reader.last_event_id == ids[0]


def test_following_delivers_what_is_published_later(client: FlaskClient, app: Flask) -> None:
    """What was stored, then what comes, and no complete."""
    publish(client, {"n": 1})
    with client.get("/api/events?follow=1") as response:
        reader, seen = EventStream(), []
        for piece in response.iter_encoded():
            seen += reader.feed(piece)
            if [json.loads(event.data).get("n") for event in seen] == [None, 1]:
                publish(app.test_client(), {"n": 2})
            if len(seen) == 3:
                break
    assert [(event.type, event.data) for event in seen] == [
        ("connected", '{"status":"ok"}'),
        ("notification", '{"n":1}'),
        ("notification", '{"n":2}'),
    ]


@pytest.mark.parametrize("before", [0, 2])
def test_following_after_complete_misses_nothing(client: FlaskClient, before: int) -> None:
    """Who had everything, and now follows, gets what was published since: also when there was nothing before."""
    for n in range(before):
        publish(client, {"n": n})
    cursor = parse_events(client.get("/api/events").data)[-1].id
    publish(client, {"n": "since"})
    with client.get("/api/events?follow=1", headers={"Last-Event-ID": cursor}) as response:
        reader, seen = EventStream(), list[ServerSentEvent]()
        for piece in response.iter_encoded():
            seen += reader.feed(piece)
            if len(seen) >= 2:
                break
    assert [json.loads(event.data) for event in seen] == [{"status": "ok"}, {"n": "since"}]


@pytest.mark.parametrize("follow", ["0", "1"])
def test_a_cursor_that_was_never_given_out_is_told(client: FlaskClient, follow: str) -> None:
    """As an event to an EventSource, with where it goes on; as a 400 to who wrote the parameter."""
    tail = publish(client, {"n": 1})
    with client.get(f"/api/events?follow={follow}", headers={"Last-Event-ID": "garbage"}) as response:
        reader, seen = EventStream(), list[ServerSentEvent]()
        for piece in response.iter_encoded():
            seen += reader.feed(piece)
            if len(seen) >= 2:
                break
    assert (seen[1].type, json.loads(seen[1].data)) == (
        "stream-reset",
        {"asked": "garbage", "from": tail, "missed": None},
    )
    assert problem(client.get(f"/api/events?follow={follow}&after=garbage"), 400)["parameter"] == "after"


def test_a_cursor_whose_successors_are_gone_is_told(make_client: Callable[..., FlaskClient]) -> None:
    """With how many are missing, and from where it goes on."""
    client = make_client(NOTIFICATIONS_KEEP=2)
    ids = [publish(client, {"n": n}) for n in range(5)]
    events = event_list(client.get("/api/events", headers={"Last-Event-ID": ids[0]}))
    assert events[1:] == [
        ("stream-reset", {"asked": ids[0], "from": ids[3], "missed": 2}),
        ("notification", {"n": 3}),
        ("notification", {"n": 4}),
        ("complete", {"total": 2}),
    ]


BODIES = [
    (
        "application/json",
        b'{"a": [1, 2.5, null, true], "b": {"c": "\\u00e9"}}',
        {"a": [1, 2.5, None, True], "b": {"c": "é"}},
    ),
    ("application/json", b"{}", {}),
    ("application/json", b'{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
    ("application/x-www-form-urlencoded", b'{"message": "curl -d"}', {"message": "curl -d"}),
    ("text/plain", b'{"a": 1}', {"a": 1}),
    ("", b'{"a": 1}', {"a": 1}),
    ("application/json", b"[1, 2]", {"message": "[1, 2]"}),
    ("application/json", b'"text"', {"message": '"text"'}),
    ("application/x-www-form-urlencoded", b"hello world", {"message": "hello world"}),
    ("application/x-www-form-urlencoded", b"message=hello+w%C3%B6rld", {"message": "hello wörld"}),
    ("application/x-www-form-urlencoded", b"message=a=b", {"message": "a=b"}),
    ("application/x-www-form-urlencoded", b"100% sure", {"message": "100% sure"}),
    ("application/x-www-form-urlencoded", b"a & b", {"message": "a & b"}),
    ("application/x-www-form-urlencoded", b"message=a&b=c", {"message": "message=a&b=c"}),
    ("text/plain; charset=utf-8", "日本 🙂\r\nline two\n".encode(), {"message": "日本 🙂\r\nline two\n"}),
    ("text/plain", b"{broken", {"message": "{broken"}),
    ("text/plain", b"message=x", {"message": "message=x"}),
]


@pytest.mark.parametrize(("content_type", "body", "expected"), BODIES)
def test_a_body_is_delivered(client: FlaskClient, content_type: str, body: bytes, expected: dict[str, Any]) -> None:
    """A JSON object as it is, a form's message, any other text as a message; exactly, line ends and all."""
    headers = {"Content-Type": content_type} if content_type else {}
    response = client.post("/api/notifications", data=body, headers=headers)
    assert response.status_code == 201, response.data
    assert event_list(client.get("/api/events"))[1] == ("notification", expected)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""),
        ("text/plain", b""),
        ("text/plain", b" \r\n\t"),
        ("text/plain", b"\xff"),
        ("application/json", b"{broken"),
        ("application/json", b'{"a": NaN}'),
        ("application/json", b'{"a": 1} {"b": 2}'),
        ("application/json", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ],
    ids=range(8),
)
def test_a_body_that_cannot_be_published(client: FlaskClient, content_type: str, body: bytes) -> None:
    """A 400 that says why, and nothing is published."""
    problem(client.post("/api/notifications", data=body, content_type=content_type), 400)
    assert event_list(client.get("/api/events"))[1:] == [("complete", {"total": 0})]


def test_deeply_nested_text_is_text(client: FlaskClient) -> None:
    """What no decoder can take is no object, and no failure."""
    body = '{"a":' * 10_000
    assert client.post("/api/notifications", data=body, content_type="text/plain").status_code == 201
    assert event_list(client.get("/api/events"))[1] == ("notification", {"message": body})


def test_a_notification_has_a_bound(client: FlaskClient) -> None:
    """64 KiB are taken, a byte more is a 413."""
    assert client.post("/api/notifications", data=b"x" * 2**16).status_code == 201
    problem(client.post("/api/notifications", data=b"x" * (2**16 + 1)), 413)


def test_a_notification_with_a_key_is_published_once(client: FlaskClient) -> None:
    """However often it is sent; the key with another body is a 422, in another topic another key."""
    first = publish(client, {"n": 1}, **{"Idempotency-Key": "k-1"})
    publish(client, {"n": 2})
    assert publish(client, {"n": 1}, **{"Idempotency-Key": "k-1"}) == first
    response = client.post("/api/notifications", json={"n": 3}, headers={"Idempotency-Key": "k-1"})
    problem(response, 422)
    assert publish(client, {"n": 3}, topic="other", **{"Idempotency-Key": "k-1"}) != first
    assert [data for type, data in event_list(client.get("/api/events")) if type == "notification"] == [
        {"n": 1},
        {"n": 2},
    ]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a\tb", "\x7f", "é"])
def test_a_key_that_cannot_be(client: FlaskClient, key: str) -> None:
    """1 to 255 visible ASCII characters, or a 400."""
    body = problem(client.post("/api/notifications", json={}, environ_overrides={"HTTP_IDEMPOTENCY_KEY": key}), 400)
    assert "Idempotency-Key" in body["detail"]


# Uploads


def upload(client: FlaskClient, body: bytes = b"content", query: str = "", **options: Any) -> TestResponse:
    return client.post(f"/api/upload-progress?{query}", data=body, **options)


def stored(settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (settings.FILES_DIR / "uploads").iterdir()}


def test_an_upload_is_stored_and_told(client: FlaskClient, settings: Settings) -> None:
    """201 with what became of it, under a URL that serves it; its progress can be read again, and then is over."""
    response = upload(client, b"a,b\n", "filename=über 1.csv&id=an-id")
    assert response.status_code == 201
    url = "/api/download/uploads/%C3%BCber%201.csv"
    told = {"received": 4, "id": "an-id", "filename": "über 1.csv", "url": url}
    assert (response.json, response.headers["Location"]) == (told, url)
    assert stored(settings) == {"über 1.csv": b"a,b\n"}
    with client.get(url) as download:
        assert download.data == b"a,b\n"
    progress = client.get("/api/upload-progress/an-id")
    first, *_, last = event_list(progress)
    assert (first[0], first[1]["received"], first[1]["total"]) == ("progress", 0, 4)
    assert last == ("complete", told)
    cursor = parse_events(progress.data)[-1].id
    assert client.get("/api/upload-progress/an-id", headers={"Last-Event-ID": cursor}).status_code == 204
    published = event_list(client.get("/api/events"))[1]
    assert published[0] == "notification"
    assert published[1].items() >= told.items()


def test_an_upload_without_a_name(client: FlaskClient, settings: Settings) -> None:
    """It gets one, and an id; a second one gets a number."""
    names = [(upload(client).json or {})["filename"] for _ in range(2)]
    assert names == ["upload.bin", "upload (2).bin"]
    ids = {(upload(client).json or {})["id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("own", "query", "stored_as"),
    [
        ("a.txt", "", "a.txt"),
        ("a.txt", "filename=b.txt", "b.txt"),
        ("../../evil.txt", "", "evil.txt"),
        ("C:\\\\dir\\\\evil.txt", "", "evil.txt"),
        (".env", "", "env"),
        ("..", "", "upload.bin"),
        ("日本.txt", "", "日本.txt"),
        ("é" * 150, "", "é" * 100),
    ],
)
def test_a_form_with_a_file(client: FlaskClient, settings: Settings, own: str, query: str, stored_as: str) -> None:
    """The parameter's name wins over the part's own, of which only a plain name is taken."""
    response = client.post(f"/api/upload-progress?{query}", data={"x": "1", "file": (io.BytesIO(b"content"), own)})
    assert response.status_code == 201, response.data
    assert (response.json or {})["filename"] == stored_as
    assert stored(settings) == {stored_as: b"content"}


def test_an_id_is_used_once(client: FlaskClient, settings: Settings) -> None:
    """409 after it was used, also by an upload that failed; nothing is stored."""
    assert upload(client, query="id=an-id").status_code == 201
    assert problem(upload(client, query="id=an-id"), 409)["parameter"] == "id"
    assert list(stored(settings)) == ["upload.bin"]


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/plain", ""])
def test_an_upload_of_nothing(client: FlaskClient, settings: Settings, content_type: str) -> None:
    """No body is a 400, whatever it says it is, and uses up no id."""
    problem(upload(client, b"", "id=an-id", content_type=content_type), 400)
    assert stored(settings) == {}
    assert upload(client, query="id=an-id").status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\ncut off",
        b"no form",
    ],
)
def test_a_form_that_cannot_be(client: FlaskClient, settings: Settings, body: bytes) -> None:
    """Without a file, cut off, or none at all: a 400, told to who watches, and nothing left."""
    detail = problem(upload(client, body, "id=an-id", content_type="multipart/form-data; boundary=x"), 400)["detail"]
    assert event_list(client.get("/api/upload-progress/an-id"))[-1] == ("failed", {"error": detail})
    assert stored(settings) == {}
    problem(upload(client, body, content_type="multipart/form-data"), 400)


def test_an_upload_that_is_too_large(make_client: Callable[..., FlaskClient], settings: Settings) -> None:
    """A 413, told to who watches, and nothing left; up to the bound it is taken."""
    client = make_client(MAX_UPLOAD_BYTES=1000)
    detail = problem(upload(client, b"x" * 1001, "id=an-id"), 413)["detail"]
    assert event_list(client.get("/api/upload-progress/an-id"))[-1] == ("failed", {"error": detail})
    assert stored(settings) == {}
    assert upload(client, b"x" * 1000).status_code == 201


def test_an_upload_that_ends_early(client: FlaskClient, settings: Settings) -> None:
    """Fewer bytes than announced are a 400, told to who watches, and nothing left."""
    problem(upload(client, b"x" * 10, "id=an-id", environ_overrides={"CONTENT_LENGTH": "20"}), 400)
    assert event_list(client.get("/api/upload-progress/an-id"))[-1][0] == "failed"
    assert stored(settings) == {}


def test_progress_may_be_opened_before_the_upload(client: FlaskClient, app: Flask) -> None:
    """An id that nobody uses waits, and then sees all of it."""
    with client.get("/api/upload-progress/an-id") as response:
        pieces = response.iter_encoded()
        next(pieces)
        assert upload(app.test_client(), query="id=an-id").status_code == 201
        events = EventStream().feed(b"".join(pieces))
    assert [event.type for event in events] == ["progress", "complete"]


def test_progress_after_a_cursor_of_before(client: FlaskClient) -> None:
    """A cursor that nobody knows begins at the beginning: what there is, is short."""
    upload(client, query="id=an-id")
    events = event_list(client.get("/api/upload-progress/an-id", headers={"Last-Event-ID": "000000000009-xxxxxx"}))
    assert [type for type, _ in events] == ["progress", "complete"]


@pytest.mark.parametrize("id", ["x" * 65, "a.b", "ä", "a b"])
def test_progress_of_what_can_be_no_id(client: FlaskClient, id: str) -> None:
    """It would wait for ever for an upload that cannot come: a 400 that names it."""
    assert problem(client.get(f"/api/upload-progress/{quote(id)}"), 400)["parameter"] == "id"


# Status


def test_the_server_lives_and_is_ready(client: FlaskClient) -> None:
    """Both say so in JSON."""
    assert (client.get("/healthz").json or {})["status"] == "ok"
    assert client.get("/readyz").json == {"status": "ok"}


def test_a_worker_that_drains_is_not_ready(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, so that a balancer looks elsewhere; it still lives."""
    monkeypatch.setattr(links, "draining", True)
    response = client.get("/readyz")
    assert response.headers["Retry-After"]
    problem(response, 503)
    assert client.get("/healthz").status_code == 200


def test_beyond_max_streams_there_is_a_503(make_client: Callable[..., FlaskClient]) -> None:
    """New streams are refused with Retry-After; short requests always find a place."""
    client = make_client(MAX_STREAMS=1)
    assert client.put("/v1/stream/followed", content_type="text/plain").status_code == 201
    (client.application.extensions["settings"].FILES_DIR / "file.txt").write_bytes(b"content")
    with client.get("/api/events?follow=1") as first:
        next(first.iter_encoded())
        for path in (
            "/api/stream?interval=0",
            "/v1/stream/followed?live=long-poll&offset=-1",
            "/api/download/file.txt",
        ):
            response = client.get(path)
            assert response.headers["Retry-After"] == "5"
            assert "as many open streams as it takes" in problem(response, 503)["detail"]
        assert publish(client, {"n": 1})
        assert client.get("/healthz").json == {"status": "ok", "streams": 1, "protocol": "HTTP/1.1"}
    with client.get("/api/stream?interval=0&chunks=1") as response:
        assert response.data == b"Chunk 0\n"


def test_a_resumable_upload_needs_no_gunicorn(client: FlaskClient, settings: Settings) -> None:
    """Under any WSGI server: made, appended to, asked after, and then a file."""
    tus = {"Tus-Resumable": "1.0.0"}
    made = client.post("/api/uploads", headers={**tus, "Upload-Length": "10", "Upload-Metadata": "filename YS50eHQ="})
    url = made.headers["Location"]
    for offset, piece in ((0, b"never"), (5, b"-dry!")):
        headers = {**tus, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        assert client.patch(url, data=piece, headers=headers).status_code == 204
        assert client.head(url, headers=tus).headers["Upload-Offset"] == str(offset + 5)
    assert (settings.FILES_DIR / "uploads" / "a.txt").read_bytes() == b"never-dry!"

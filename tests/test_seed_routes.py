"""The thirteen seed routes, in the order of DESIGN's table, as a client sees them over a socket."""

from __future__ import annotations

import contextlib
import csv
import email.utils
import hashlib
import io
import json
import os
import re
import select
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Answer, EventStream, LiveServer, RawClient, eventually, parse_events
from tests.sockets import holder

Headers = list[tuple[str, str]]
STREAM_HEADERS = {
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    "x-content-type-options": "nosniff",
}


def get(server: LiveServer, target: str, headers: Headers | None = None, method: str = "GET") -> Answer:
    """The whole answer, which must have a clean end."""
    with RawClient(server.port, timeout_s=30.0) as client:
        answer = client.request(method, target, headers or []).read_to_end()
        assert answer.end == "clean", answer
        return answer


def post(server: LiveServer, target: str, body: bytes, content_type: str = "text/plain", **headers: str) -> Answer:
    sent = [("Content-Type", content_type), *((name.replace("_", "-"), value) for name, value in headers.items())]
    with RawClient(server.port, timeout_s=30.0) as client:
        return client.request("POST", target, sent, body).read_to_end()


def begin_chunked(client: RawClient, target: str, headers: str = "") -> RawClient:
    # Small chunks leave at once: what is tested here is the server, not Nagle's algorithm.
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    return client.send(head.encode(), "POST")


def begin_length(client: RawClient, target: str, length: int) -> RawClient:
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
    return client.send(head.encode(), "POST")


def publish(server: LiveServer, topic: str, value: object) -> str:
    """The id of the notification."""
    answer = post(server, f"/api/notifications?topic={topic}", json.dumps(value).encode(), "application/json")
    assert answer.status == 201, answer
    return str(answer.json["id"])


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def database(server: LiveServer) -> Iterator[sqlite3.Connection]:
    """The database that the server exports from, to compare with."""
    with contextlib.closing(sqlite3.connect(f"file:{server.instance / 'app.db'}?mode=ro", uri=True)) as connection:
        yield connection


# What holds for all of them.

GETS = {
    "/api/stream?chunks=2&interval=0": "text/plain; charset=utf-8",
    "/api/stream-json?limit=2": "application/x-ndjson",
    "/api/sse?count=2&interval=0": "text/event-stream; charset=utf-8",
    "/api/events?topic=nobody": "text/event-stream; charset=utf-8",
    "/api/export?limit=2": "text/csv; charset=utf-8; header=present",
    "/api/stream-safe?count=2&interval=0": "application/x-ndjson",
}


@pytest.mark.parametrize("target", GETS)
def test_a_stream_names_its_type_and_forbids_to_keep_it(server: LiveServer, target: str) -> None:
    """Every stream has the content type and the headers of the contract, chunked and without a length."""
    answer = get(server, target)
    assert answer.status == 200
    assert answer.header("content-type") == GETS[target]
    assert {name: answer.header(name) for name in STREAM_HEADERS} == STREAM_HEADERS
    assert answer.header("transfer-encoding") == "chunked"


@pytest.mark.parametrize("target", [*GETS, "/api/events?follow=1", "/api/download/poem.txt", "/api/video/sample"])
def test_head_is_get_without_its_body(server: LiveServer, target: str) -> None:
    """HEAD answers with GET's headers, at once, and the connection takes the next request (RFC 9110, 9.3.2)."""
    with RawClient(server.port) as client:
        client.request("GET", target)
        got = client.read_head()
    with RawClient(server.port) as client:
        head = client.request("HEAD", target).read_to_end()
        assert (head.end, bytes(head.body), head.status) == ("clean", b"", got.status)
        for field in ("content-type", "content-length", "cache-control", "content-disposition", "etag"):
            assert head.header(field) == got.header(field), field
        assert client.request("GET", "/healthz").read_to_end().status == 200


OUT_OF_BOUNDS = [
    ("/api/stream?chunks=0", "chunks"),
    ("/api/stream?chunks=100001", "chunks"),
    ("/api/stream?chunks=1e3", "chunks"),
    ("/api/stream?chunks=%D9%A1", "chunks"),  # an Arabic-Indic digit
    ("/api/stream?interval=60.1", "interval"),
    ("/api/stream?interval=-1", "interval"),
    ("/api/stream?interval=nan", "interval"),
    ("/api/stream?chunks=3&after=3", "after"),
    ("/api/stream?chunks=3&chunks=3", "chunks"),
    ("/api/stream?chunk=3", "chunk"),
    ("/api/stream-json?table=nothing", "table"),
    ("/api/stream-json?columns=id,nothing", "columns"),
    ("/api/stream-json?limit=-1", "limit"),
    ("/api/stream-json?after=abc", "after"),
    ("/api/sse?count=0", "count"),
    ("/api/sse?interval=61", "interval"),
    ("/api/events?topic=a/b", "topic"),
    ("/api/events?topic=" + "a" * 65, "topic"),
    ("/api/events?follow=2", "follow"),
    ("/api/events?after=nowhere", "after"),
    ("/api/export?table=sqlite_schema", "table"),
    ("/api/stream-safe?fail_after=-1", "fail_after"),
    ("/api/upload-progress/x?since=1", "since"),
]


@pytest.mark.parametrize(("target", "parameter"), OUT_OF_BOUNDS)
def test_a_parameter_out_of_bounds_is_named(server: LiveServer, target: str, parameter: str) -> None:
    """It is a problem (RFC 9457) with status 400, or 404 for a table that is not there, that names the parameter."""
    answer = get(server, target)
    assert answer.status == (404 if "table" in parameter else 400)
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json["status"] == answer.status
    assert answer.json["parameter"] == parameter


# 1. GET /api/stream


@pytest.mark.slow
def test_chunks_leave_when_they_are_made(server: LiveServer) -> None:
    """The first chunk comes at once and each later one at its time, not all at the end."""
    began = time.monotonic()
    answer = get(server, "/api/stream?chunks=5&interval=0.4")
    assert bytes(answer.body) == b"Chunk 0\nChunk 1\nChunk 2\nChunk 3\nChunk 4\n"
    times = [at - began for at, _ in answer.pieces]
    assert [data for _, data in answer.pieces] == [b"Chunk %d\n" % n for n in range(5)]
    assert times[0] < 1.6, "before the last one is made"
    assert all(at > 0.4 * n * 0.95 for n, at in enumerate(times)), times


def test_text_goes_on_after_a_chunk(server: LiveServer) -> None:
    """With after=n the answer begins with chunk n + 1."""
    assert bytes(get(server, "/api/stream?chunks=5&interval=0&after=2").body) == b"Chunk 3\nChunk 4\n"


def test_text_in_bulk_is_whole(server: LiveServer) -> None:
    """A hundred thousand chunks without a pause are all there, in order, in few pieces."""
    answer = get(server, "/api/stream?chunks=100000&interval=0")
    assert bytes(answer.body) == b"".join(b"Chunk %d\n" % n for n in range(100_000))


# 2. GET /api/stream-json


@pytest.mark.slow
def test_every_row_is_a_line_of_json(server: LiveServer, database: sqlite3.Connection) -> None:
    """The NDJSON, parsed line by line, equals the table in key order, value for value."""
    lines = get(server, "/api/stream-json?table=users").body.split(b"\n")
    assert lines.pop() == b""
    rows = database.execute("SELECT * FROM users ORDER BY id")
    columns = [column[0] for column in rows.description]
    assert len(lines) == 100_000
    for line, row in zip(lines, rows, strict=True):
        assert json.loads(line) == dict(zip(columns, row, strict=True))


def test_rows_go_on_after_a_key(server: LiveServer) -> None:
    """after, limit and columns choose the rows and their members, in the order asked for."""
    answer = get(server, "/api/stream-json?table=users&columns=email,id&after=41&limit=2")
    lines = bytes(answer.body).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [42, 43]
    assert [list(json.loads(line)) for line in lines] == [["email", "id"]] * 2


def test_no_rows_are_an_empty_answer(server: LiveServer) -> None:
    """limit=0, and a key after the last, are whole answers without a line."""
    assert get(server, "/api/stream-json?limit=0").body == b""
    assert get(server, "/api/stream-json?after=100000").body == b""


# 3. GET /api/sse


def test_ticks_have_ids_and_times(server: LiveServer) -> None:
    """Every event is {"count": n, "time": ISO 8601 in UTC} under the id n."""
    events = parse_events(bytes(get(server, "/api/sse?count=3&interval=0.05").body))
    assert [(event.type, event.id, json.loads(event.data)["count"]) for event in events] == [
        ("message", "0", 0),
        ("message", "1", 1),
        ("message", "2", 2),
    ]
    for event in events:
        assert datetime.fromisoformat(json.loads(event.data)["time"]).utcoffset() is not None


def test_ticks_go_on_after_the_last_event_id(server: LiveServer) -> None:
    """Last-Event-ID says where to go on, and wins over after."""
    answer = get(server, "/api/sse?count=4&interval=0&after=0", [("Last-Event-ID", "1")])
    assert [event.id for event in parse_events(bytes(answer.body))] == ["2", "3"]
    answer = get(server, "/api/sse?count=4&interval=0&after=0")
    assert [event.id for event in parse_events(bytes(answer.body))] == ["1", "2", "3"]


def test_after_the_last_tick_there_is_nothing(server: LiveServer) -> None:
    """A reconnect with the last id is answered 204, which ends an EventSource (HTML, 9.2.3)."""
    answer = get(server, "/api/sse?count=4", [("Last-Event-ID", "3")])
    assert (answer.status, bytes(answer.body)) == (204, b"")


@pytest.mark.parametrize("cursor", ["4", "-1", "1.0", "nonsense", "Grüße", "١", "1" * 5000])
def test_a_foreign_cursor_begins_anew_and_says_so(server: LiveServer, cursor: str) -> None:
    """A Last-Event-ID that is no cursor of this stream is told with stream-reset; it is never a 400."""
    latin = cursor.encode().decode("latin-1")
    answer = get(server, "/api/sse?count=2&interval=0", [("Last-Event-ID", latin)])
    events = parse_events(bytes(answer.body))
    assert [(event.type, event.id) for event in events] == [("stream-reset", ""), ("message", "0"), ("message", "1")]


def test_a_cursor_leaves_before_the_first_event(server: LiveServer) -> None:
    """A connection lost while nothing has come yet goes on from where it began."""
    with RawClient(server.port) as client:
        client.request("GET", "/api/sse?count=9&interval=60", [("Last-Event-ID", "5")])
        client.read_body_until(b"id: 5\n\n")


# 4. GET /api/events, POST /api/notifications


def test_stored_notifications_are_told_and_counted(server: LiveServer, name: str) -> None:
    """connected, one notification for each stored one as it was published, complete with their number, a clean end."""
    ids = [publish(server, name, {"n": n, "text": "Zeile\nzwei – 川"}) for n in range(3)]
    events = parse_events(bytes(get(server, f"/api/events?topic={name}").body))
    assert [event.type for event in events] == ["connected", *["notification"] * 3, "complete"]
    assert json.loads(events[0].data) == {"status": "ok"}
    assert [json.loads(event.data) for event in events[1:4]] == [{"n": n, "text": "Zeile\nzwei – 川"} for n in range(3)]
    assert [event.id for event in events[1:4]] == ids
    assert json.loads(events[4].data) == {"total": 3}


@pytest.mark.parametrize(
    ("body", "content_type", "told"),
    [
        ("Hello", "application/x-www-form-urlencoded", {"message": "Hello"}),
        ("a=b&c", "application/x-www-form-urlencoded", {"message": "a=b&c"}),
        ("100 % + 1", "application/x-www-form-urlencoded", {"message": "100 % + 1"}),
        ('{"a":[1,null]}', "application/x-www-form-urlencoded", {"a": [1, None]}),
        ('{"a":1}', "application/json", {"a": 1}),
        ("[1]", "application/json", {"message": "[1]"}),
        ("data: x\r\r\nid: 7\n\nevent: y", "text/plain", {"message": "data: x\r\r\nid: 7\n\nevent: y"}),
    ],
)
def test_any_body_can_be_published(
    server: LiveServer, name: str, body: str, content_type: str, told: dict[str, Any]
) -> None:
    """An object is delivered as it is and everything else, what curl -d sends too, as a message; nothing injects."""
    answer = post(server, f"/api/notifications?topic={name}", body.encode(), content_type)
    assert answer.status == 201
    assert answer.header("location") == f"/api/events?topic={name}"
    events = parse_events(bytes(get(server, f"/api/events?topic={name}").body))
    assert [json.loads(event.data) for event in events if event.type == "notification"] == [told]
    assert events[1].id == answer.json["id"]


def test_a_reconnect_gets_the_rest_and_then_nothing(server: LiveServer, name: str) -> None:
    """Last-Event-ID resumes after that notification; with the id of complete the answer is 204."""
    ids = [publish(server, name, {"n": n}) for n in range(3)]
    events = parse_events(bytes(get(server, f"/api/events?topic={name}", [("Last-Event-ID", ids[0])]).body))
    assert [event.id for event in events if event.type == "notification"] == ids[1:]
    answer = get(server, f"/api/events?topic={name}", [("Last-Event-ID", events[-1].id)])
    assert (answer.status, bytes(answer.body)) == (204, b"")


def test_the_number_told_is_the_number_sent(server: LiveServer, name: str) -> None:
    """A notification that comes while a slow client still reads is neither sent nor counted: complete fits the rest."""
    for n in range(100):
        publish(server, name, {"n": n, "padding": "x" * 60_000})
    with RawClient(server.port, receive_buffer_bytes=8192) as client:
        client.request("GET", f"/api/events?topic={name}").read_body_until(b'{"n":0,')
        publish(server, name, {"n": 100})
        body = bytes(client.read_to_end(30.0).body)
    events = parse_events(body)
    assert json.loads(events[-1].data) == {"total": sum(event.type == "notification" for event in events)}


def test_a_lost_history_is_told(server: LiveServer, name: str) -> None:
    """A cursor that the topic never gave out becomes a stream-reset, not an error and not the whole history."""
    publish(server, name, {"n": 0})
    with RawClient(server.port) as client:
        client.request("GET", f"/api/events?topic={name}&follow=1", [("Last-Event-ID", "000000000009-zzzzzz")])
        client.read_body_until(b"event: stream-reset")
        publish(server, name, {"n": 1})
        body = bytes(client.read_body_until(b'{"n":1}').body)
    assert [event.type for event in parse_events(body)] == ["connected", "stream-reset", "notification"]


def test_a_key_publishes_once(server: LiveServer, name: str) -> None:
    """The same Idempotency-Key gives the same id and one notification; with another body it is a 422."""
    target = f"/api/notifications?topic={name}"
    first, again = (post(server, target, b"once", Idempotency_Key="k1") for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    assert post(server, target, b"other", Idempotency_Key="k1").status == 422
    assert bytes(get(server, f"/api/events?topic={name}").body).count(b"event: notification") == 1


@pytest.mark.parametrize(("body", "status"), [(b"x" * 65536, 201), (b"x" * 65537, 413), (b"", 400), (b"\xff", 400)])
def test_a_notification_has_bounds(server: LiveServer, name: str, body: bytes, status: int) -> None:
    """At most 64 KiB of UTF-8, and something."""
    assert post(server, f"/api/notifications?topic={name}", body).status == status


@pytest.mark.slow
def test_every_worker_delivers_what_any_worker_takes(live_server: Callable[..., LiveServer]) -> None:
    """With two workers, what is published through either reaches the live readers of both, once and in order."""
    server = live_server(WEB_CONCURRENCY=2)
    with contextlib.ExitStack() as stack:
        readers: list[RawClient] = []
        held: set[int] = set()
        # One listener is shared unevenly: connect until both workers have readers.
        while len(held) < 2 or len(readers) < 8:
            assert len(readers) < 200, "one worker took them all"
            reader = stack.enter_context(RawClient(server.port))
            readers.append(reader.request("GET", "/api/events?follow=1&topic=shared"))
            reader.read_body_until(b"event: connected")
            held.add(holder(server, reader))
        publishers: dict[int, RawClient] = {}
        for attempt in range(200):
            if len(publishers) == 2:
                break
            client = stack.enter_context(RawClient(server.port))
            assert client.request("GET", "/healthz").read_to_end().status == 200, attempt
            publishers.setdefault(holder(server, client), client)
        assert set(publishers) == held == set(server.pids())
        ids = []
        for n in range(6):
            for client in publishers.values():
                body = b'{"n":%d}' % n
                answer = client.request("POST", "/api/notifications?topic=shared", [], body).read_to_end()
                ids.append(answer.json["id"])
        for reader in readers:
            reader.read_until(lambda answer: answer.body.count(b"event: notification") >= 12)
            events = parse_events(bytes(reader.answer.body))
            assert [event.id for event in events if event.type == "notification"] == ids


# 5. The page /events


def test_the_page_of_events_is_a_page(server: LiveServer) -> None:
    """It is HTML with a script of its own, which tests/test_pages.py drives in a browser."""
    answer = get(server, "/events")
    assert answer.status == 200
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert b"<script" in answer.body


# 6. and 7. POST /api/chat, offline


def ask(server: LiveServer, target: str, message: dict[str, Any], **more: Any) -> Answer:
    answer = post(server, target, json.dumps({"messages": [message], **more}).encode(), "application/json")
    assert (answer.status, answer.end) == (200, "clean"), answer
    return answer


HELLO = {"role": "user", "content": "Hello"}
HELLO_PARTS = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}


@pytest.mark.slow
def test_three_protocols_say_the_same(server: LiveServer) -> None:
    """Text, the data stream and the UI message stream carry one answer, as it is made, and each its own end."""
    text = ask(server, "/api/chat", HELLO)
    assert text.header("content-type") == "text/plain; charset=utf-8"
    assert len(text.pieces) > 5, "token by token"
    said = text.body.decode()
    assert "offline" in said

    data = ask(server, "/api/chat", HELLO_PARTS, id="c1")
    assert data.header("x-vercel-ai-data-stream") == "v1"
    parts = [line.split(":", 1) for line in data.body.decode().splitlines()]
    assert "".join(json.loads(value) for code, value in parts if code == "0") == said
    assert parts[-1][0] == "d"
    assert json.loads(parts[-1][1])["finishReason"] == "stop"

    ui = ask(server, "/api/chat", HELLO_PARTS, id="c1", trigger="submit-message")
    assert ui.header("x-vercel-ai-ui-message-stream") == "v1"
    events = [event.data for event in parse_events(bytes(ui.body))]
    assert events.pop() == "[DONE]"
    decoded = [json.loads(event) for event in events]
    assert "".join(event["delta"] for event in decoded if event["type"] == "text-delta") == said
    assert (decoded[0]["type"], decoded[-1]["type"]) == ("start", "finish")


def test_the_protocol_can_be_asked_for(server: LiveServer) -> None:
    """The parameter wins over the header, and the header over the body's shape."""
    for target, headers, version in (
        ("/api/chat", {"X_Stream_Protocol": "ui"}, "x-vercel-ai-ui-message-stream"),
        ("/api/chat?protocol=data", {"X_Stream_Protocol": "ui"}, "x-vercel-ai-data-stream"),
    ):
        body = json.dumps({"messages": [HELLO]}).encode()
        sent = [("Content-Type", "application/json"), *((k.replace("_", "-"), v) for k, v in headers.items())]
        with RawClient(server.port) as client:
            assert client.request("POST", target, sent, body).read_head().header(version) == "v1"


# 8. GET /api/download/<filename>

TEN = bytes(range(250)) * 40  # 10,000 bytes, as in the examples of RFC 9110, 14.1.2


@pytest.fixture
def ten(server: LiveServer, name: str) -> Iterator[str]:
    path = server.files / f"{name}.bin"
    path.write_bytes(TEN)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    yield f"/api/download/{path.name}"
    path.unlink()


def test_a_download_is_the_file_with_its_length(server: LiveServer, ten: str) -> None:
    """An attachment under its own name, byte for byte, with length, validators and Accept-Ranges."""
    answer = get(server, ten)
    assert (answer.status, bytes(answer.body)) == (200, TEN)
    assert answer.header("content-length") == "10000"
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("etag").startswith('"')
    assert answer.header("last-modified") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert answer.header("content-disposition") == f"attachment; filename={ten.rpartition('/')[2]}"
    assert answer.header("x-content-type-options") == "nosniff"


def test_a_name_in_any_script_survives(server: LiveServer) -> None:
    """RFC 6266 and 8187: filename* holds the name in UTF-8, percent-encoded."""
    path = "/api/download/Gr%C3%BC%C3%9Fe%20vom%20Fluss%20%E2%80%93%20%E5%B7%9D.txt"
    disposition = get(server, path).header("content-disposition")
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe%20vom%20Fluss%20%E2%80%93%20%E5%B7%9D.txt" in disposition


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-499", 0, 499),
        ("bytes=500-999", 500, 999),
        ("bytes=-500", 9500, 9999),
        ("bytes=9500-", 9500, 9999),
        ("bytes=0-0", 0, 0),
        ("bytes=-1", 9999, 9999),
        ("bytes=9999-20000", 9999, 9999),
        ("Bytes=0-1", 0, 1),
        ("bytes=-20000", 0, 9999),
    ],
)
def test_a_range_is_answered(server: LiveServer, ten: str, asked: str, first: int, last: int) -> None:
    """206 with exactly those bytes and their Content-Range (RFC 9110, 14.1.2; a suffix may exceed the length)."""
    answer = get(server, ten, [("Range", asked)])
    assert answer.status == 206
    assert answer.header("content-range") == f"bytes {first}-{last}/10000"
    assert answer.header("content-length") == str(last - first + 1)
    assert bytes(answer.body) == TEN[first : last + 1]


def test_a_range_after_the_end_is_refused(server: LiveServer, ten: str) -> None:
    """416 with the length (RFC 9110, 15.5.17)."""
    answer = get(server, ten, [("Range", "bytes=10000-")])
    assert (answer.status, answer.header("content-range")) == (416, "bytes */10000")


@pytest.mark.parametrize("asked", ["items=0-1", "bytes=0-0,-1"])
def test_a_range_that_is_not_understood_is_ignored(server: LiveServer, ten: str, asked: str) -> None:
    """An unknown unit MUST be ignored (RFC 9110, 14.2); several ranges are answered with parts, or with the whole."""
    answer = get(server, ten, [("Range", asked)])
    assert answer.status == 200 or answer.header("content-type").startswith("multipart/byteranges")


def test_conditions_are_weighed(server: LiveServer, ten: str) -> None:
    """304 for what the client has, 412 for what it must not get (RFC 9110, 13.2.2)."""
    etag = get(server, ten).header("etag")
    before, after = (email.utils.formatdate(1_700_000_000 + delta, usegmt=True) for delta in (-60, 60))
    assert get(server, ten, [("If-None-Match", etag)]).status == 304
    assert get(server, ten, [("If-None-Match", f'"x", W/{etag}')]).status == 304
    assert get(server, ten, [("If-None-Match", '"other"')]).status == 200
    assert get(server, ten, [("If-Modified-Since", after)]).status == 304
    assert get(server, ten, [("If-Modified-Since", before)]).status == 200
    assert get(server, ten, [("If-Match", etag)]).status == 200
    assert get(server, ten, [("If-Match", '"other"')]).status == 412


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (("If-Unmodified-Since", "Tue, 14 Nov 2023 22:12:20 GMT"), 412),
        (("If-None-Match", "{etag}"), 304),
        (("If-Match", '"other"'), 412),
        (("If-Range", "W/{etag}"), 200),
        (("If-Range", "Tue, 14 Nov 2023 22:14:20 GMT"), 200),  # a date matches exactly (13.1.5)
    ],
)
def test_conditions_come_before_a_range(server: LiveServer, ten: str, condition: tuple[str, str], status: int) -> None:
    """A range is looked at only when the conditions hold (RFC 9110, 13.2.2), and a failed If-Range gives the whole."""
    etag = get(server, ten).header("etag")
    answer = get(server, ten, [("Range", "bytes=0-9"), (condition[0], condition[1].format(etag=etag))])
    assert answer.status == status


def test_if_range_protects_a_resumption(server: LiveServer, ten: str) -> None:
    """The range of the file that the client knows, or the whole of another one (RFC 9110, 13.1.5)."""
    etag = get(server, ten).header("etag")
    assert get(server, ten, [("Range", "bytes=5000-"), ("If-Range", etag)]).status == 206
    answer = get(server, ten, [("Range", "bytes=5000-"), ("If-Range", '"other"')])
    assert (answer.status, bytes(answer.body)) == (200, TEN)


def test_curl_continues_a_download(server: LiveServer, ten: str, tmp_path: Path) -> None:
    """curl -C - completes a file that it has half of."""
    target = tmp_path / "half"
    target.write_bytes(TEN[:4321])
    subprocess.run(["curl", "-sf", "-C", "-", "-o", str(target), server.url + ten], check=True, timeout=30)
    assert target.read_bytes() == TEN


def test_the_end_of_a_large_file_comes_at_once(server: LiveServer, name: str) -> None:
    """The last MiB of 5 GiB is not read from byte 0, and nobody else waits for it."""
    path = server.files / f"{name}.bin"
    with path.open("wb") as file:
        file.truncate(5 * 2**30 - 4)
        file.seek(0, os.SEEK_END)
        file.write(b"tail")
    try:
        began = time.monotonic()
        answer = get(server, f"/api/download/{path.name}", [("Range", "bytes=-1048576")])
        assert time.monotonic() - began < 3.0
        assert answer.header("content-range") == f"bytes {5 * 2**30 - 2**20}-{5 * 2**30 - 1}/{5 * 2**30}"
        assert len(answer.body) == 2**20
        assert answer.body.endswith(b"\0tail")
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2f..%2fetc%2fpasswd",
        "../app.py",
        "%2e%2e/app.py",
        "..%5capp.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "poem.txt%00.png",
        "poem.txt/",
        ".hidden",
        "videos",
        "videos/",
        "link",
        "linked/passwd",
        "fifo",
        "missing",
        "a" * 300,
        "%ff%fe",
    ],
)
def test_nothing_but_the_files_can_be_had(server: LiveServer, path: str) -> None:
    """Traversal in any encoding, hidden names, links, folders and FIFOs are a 404, and none of them waits."""
    with contextlib.suppress(FileExistsError):
        (server.files / ".hidden").write_text("secret")
        (server.files / "link").symlink_to("/etc/passwd")
        (server.files / "linked").symlink_to("/etc")
        os.mkfifo(server.files / "fifo")
    assert get(server, f"/api/download/{path}").status == 404


# 9. GET /api/video/<id>


def test_a_video_can_be_seeked(server: LiveServer) -> None:
    """206 with the bytes asked for, 416 beyond the end, If-Range as for downloads; inline, as video/mp4."""
    video = (server.files / "videos" / "sample.mp4").read_bytes()
    whole = get(server, "/api/video/sample")
    assert (whole.status, whole.header("content-type"), bytes(whole.body)) == (200, "video/mp4", video)
    assert whole.header("content-disposition") == "inline"
    part = get(server, "/api/video/sample", [("Range", "bytes=1000-1999")])
    assert (part.status, bytes(part.body)) == (206, video[1000:2000])
    assert part.header("content-range") == f"bytes 1000-1999/{len(video)}"
    probe = get(server, "/api/video/sample", [("Range", "bytes=0-")])  # what Chromium asks first
    assert (probe.status, probe.header("content-range")) == (206, f"bytes 0-{len(video) - 1}/{len(video)}")
    assert get(server, "/api/video/sample", [("Range", f"bytes={len(video)}-")]).status == 416
    ranged: Headers = [("Range", "bytes=0-9"), ("If-Range", '"other"')]
    assert get(server, "/api/video/sample", ranged).status == 200
    ranged[1] = ("If-Range", whole.header("etag"))
    assert get(server, "/api/video/sample", ranged).status == 206


@pytest.mark.parametrize("id", ["missing", "..%2fsample", "sample.mp4", "%2e%2e", "a" * 65, "sample%0a"])
def test_there_is_no_such_video(server: LiveServer, id: str) -> None:
    """An id that is unknown, or no id, is a 404."""
    assert get(server, f"/api/video/{id}").status == 404


# 10. POST /api/upload-progress, GET /api/upload-progress/<id>


def watched(server: LiveServer, id: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of an upload that has ended."""
    events = parse_events(bytes(get(server, f"/api/upload-progress/{id}").body))
    return [(event.type, json.loads(event.data)) for event in events]


def parts(server: LiveServer) -> list[str]:
    """What unfinished uploads have left behind."""
    return [path.name for path in (server.files / "uploads").iterdir() if path.name.startswith(".part-")]


def test_a_body_is_stored_and_told(server: LiveServer, name: str) -> None:
    """201 with what was received; the file can be downloaded, and the topic default hears of it."""
    body = os.urandom(300_000)
    answer = post(server, f"/api/upload-progress?filename={name}.bin&id={name}", body)
    assert (answer.status, answer.header("location")) == (201, f"/api/download/uploads/{name}.bin")
    assert answer.json == {
        "received": 300_000,
        "id": name,
        "filename": f"{name}.bin",
        "url": f"/api/download/uploads/{name}.bin",
    }
    assert bytes(get(server, answer.json["url"]).body) == body
    events = watched(server, name)
    assert (events[0][0], events[0][1]["total"]) == ("progress", 300_000)
    assert events[-1][0] == "complete"
    assert events[-1][1]["received"] == 300_000
    assert name.encode() in get(server, "/api/events").body


def test_a_chunked_body_is_stored(server: LiveServer, name: str) -> None:
    """A body without a length, in pieces of every kind, arrives whole; its total is null."""
    pieces = [b"a", os.urandom(70_000), b"\r\n0\r\n\r\n", b"z" * 8192]
    with RawClient(server.port) as client:
        begin_chunked(client, f"/api/upload-progress?filename={name}&id={name}")
        for piece in [*pieces, b""]:
            client.send_chunk(piece)
        answer = client.read_to_end()
    assert (answer.status, answer.json["received"]) == (201, sum(map(len, pieces)))
    assert bytes(get(server, answer.json["url"]).body) == b"".join(pieces)
    assert watched(server, name)[0][1]["total"] is None


def test_a_form_is_stored(server: LiveServer, name: str, tmp_path: Path) -> None:
    """curl -F sends a form: its file is stored under its own name, and a name that exists gets a number."""
    (tmp_path / "größe ü.txt").write_bytes(b"\r\n--x--\r\n" * 30_000)
    command = ["curl", "-sf", "-F", f"file=@{tmp_path / 'größe ü.txt'};filename={name} ü.txt"]
    for number in ("", " (2)"):
        told = json.loads(subprocess.run([*command, f"{server.url}/api/upload-progress"], capture_output=True).stdout)
        assert told["filename"] == f"{name} ü{number}.txt"
        assert bytes(get(server, told["url"]).body) == b"\r\n--x--\r\n" * 30_000


def test_an_id_is_used_once(server: LiveServer, name: str) -> None:
    """A second upload under the same id is a 409."""
    assert post(server, f"/api/upload-progress?id={name}", b"x").status == 201
    assert post(server, f"/api/upload-progress?id={name}", b"x").status == 409


@pytest.mark.parametrize("body", [b"", None])
def test_no_body_is_refused(server: LiveServer, body: bytes | None) -> None:
    """Neither an empty nor a missing body is an upload."""
    with RawClient(server.port) as client:
        assert client.request("POST", "/api/upload-progress", [], body).read_to_end().status == 400
    with RawClient(server.port) as client:
        assert begin_chunked(client, "/api/upload-progress").send_chunk(b"").read_to_end().status == 400


@pytest.mark.parametrize("filename", ["..%2fx", "%2fetc%2fx", ".hidden", "a%00b", "a%0ab", "", "%C3%A4" * 101, "a%5cb"])
def test_a_name_is_only_a_name(server: LiveServer, filename: str) -> None:
    """What is more or less than a name is a 400 that says which parameter."""
    answer = post(server, f"/api/upload-progress?filename={filename}", b"x")
    assert (answer.status, answer.json.get("parameter")) == (400, "filename")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_ends_early_leaves_nothing(server: LiveServer, name: str, framing: str) -> None:
    """400, a failed event for who watches, and no part of a file."""
    with RawClient(server.port) as client:
        if framing == "length":
            begin_length(client, f"/api/upload-progress?id={name}", 99).send(b"half")
        else:
            begin_chunked(client, f"/api/upload-progress?id={name}").send_chunk(b"half")
        client.half_close()
        assert client.read_to_end().status == 400
    assert watched(server, name)[-1][0] == "failed"
    assert parts(server) == []


@pytest.mark.slow
def test_a_body_that_stalls_is_given_up(live_server: Callable[..., LiveServer]) -> None:
    """After BODY_TIMEOUT_S without a byte it is a 408, a failed event, and no part of a file."""
    server = live_server(BODY_TIMEOUT_S=1)
    with RawClient(server.port) as client:
        begin_chunked(client, "/api/upload-progress?id=s").send_chunk(b"half")
        assert client.read_head().status == 408
    assert watched(server, "s")[-1][0] == "failed"
    assert parts(server) == []


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_too_much_is_refused_while_the_client_keeps_sending(
    live_server: Callable[..., LiveServer], framing: str
) -> None:
    """A client that writes 300 MiB without looking gets its 413, and /healthz is quick all the while."""
    server = live_server(MAX_UPLOAD_BYTES=2**20)
    block = bytes(2**20)
    with RawClient(server.port, timeout_s=30.0) as client:
        worst = threading.Thread(target=(pulse := Pulse(server)).run)
        worst.start()
        if framing == "length":
            begin_length(client, "/api/upload-progress", 314572800)
        else:
            begin_chunked(client, "/api/upload-progress")
        for _ in range(300):
            client.send(block) if framing == "length" else client.send_chunk(block)
        if framing == "chunked":
            client.send_chunk(b"")
        assert client.read_to_end().status == 413
        pulse.stop.set()
        worst.join()
    assert pulse.longest_s < 1.0
    assert parts(server) == []


class Pulse:
    """Asks /healthz over and over: ``longest_s`` is the worst answer."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self.stop = threading.Event()
        self.longest_s = 0.0
        self.count = 0

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            self._server.get("/healthz")
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.count += 1


@pytest.mark.slow
def test_a_large_upload_needs_no_memory(server: LiveServer, name: str) -> None:
    """64 MiB pass, and the process grows by less than half of that."""
    block = os.urandom(2**20)
    before = server.rss_bytes()
    with RawClient(server.port, timeout_s=60.0) as client:
        begin_length(client, f"/api/upload-progress?filename={name}", 64 * 2**20)
        for _ in range(64):
            client.send(block)
        grown = server.rss_bytes() - before
        assert client.read_to_end().json["received"] == 64 * 2**20
    stored = server.files / "uploads" / name
    with stored.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(block * 64).digest()
    stored.unlink()
    assert grown < 32 * 2**20


def test_progress_is_seen_while_it_happens(server: LiveServer, name: str) -> None:
    """A second connection, opened before the upload, hears of every step before the body has ended."""
    with RawClient(server.port) as watcher, RawClient(server.port) as uploader:
        watcher.request("GET", f"/api/upload-progress/{name}").read_head()
        begin_length(uploader, f"/api/upload-progress?id={name}", 40000)
        stream, told, sent = EventStream(), [], 0
        for step in (10_000, 20_000, 30_000):
            uploader.send(b"x" * 9_000)
            sent += 9_000
            # Steps are told ten times a second at most, when a piece comes: so a byte now and then, until it is.
            while not told or told[-1]["received"] < step - 5_000:
                assert sent < step, f"no progress: {told}"
                with contextlib.suppress(TimeoutError):
                    events = stream.feed(watcher.receive(0.15))
                    told += [json.loads(event.data) for event in events if event.type == "progress"]
                uploader.send(b"x")
                sent += 1
        assert [event["received"] for event in told] == sorted(event["received"] for event in told)
        assert all(event["total"] == 40_000 for event in told)
        uploader.send(b"x" * (40_000 - sent))
        assert uploader.read_to_end().json["received"] == 40_000
        watcher.read_to_end()
        assert b"event: complete" in watcher.answer.body
        last = parse_events(bytes(watcher.answer.body))[-1].id
    answer = get(server, f"/api/upload-progress/{name}", [("Last-Event-ID", last)])
    assert answer.status == 204


# 11. GET /api/export

FIELD = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)')


def strict_csv(text: str) -> Iterator[list[str]]:
    """The records of RFC 4180, section 2, fields still quoted; AssertionError at the first byte that is not so."""
    at, record = 0, []
    while at < len(text):
        match = FIELD.match(text, at)
        assert match, f"no CSV at {at}: {text[at : at + 80]!r}"
        record.append(match[1])
        at = match.end()
        if match[2] == "\r\n":
            yield record
            record = []
    assert not record, "the last line has no end"


def written(value: object) -> str:
    """A field as the contract wants it: NULL empty, the empty string quoted, quotes only where they are needed."""
    if value is None:
        return ""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if not text or re.search('[",\r\n]', text) else text


@pytest.mark.slow
def test_an_export_is_the_table(server: LiveServer, database: sqlite3.Connection) -> None:
    """The CSV, parsed by the letter of RFC 4180, has a header and every row of the table, field for field."""
    answer = get(server, "/api/export?table=users")
    assert answer.header("content-disposition") == 'attachment; filename="users.csv"'
    records = strict_csv(answer.body.decode())
    rows = database.execute("SELECT * FROM users ORDER BY id")
    assert next(records) == [column[0] for column in rows.description]
    count = 0
    for record, row in zip(records, rows, strict=True):
        assert record == [written(value) for value in row]
        count += 1
    assert count == 100_000


def test_a_common_reader_reads_an_export(server: LiveServer, database: sqlite3.Connection) -> None:
    """Python's csv, strict, reads a part of the table with its columns in another order."""
    answer = get(server, "/api/export?columns=note,id&after=1990&limit=500")
    rows = list(csv.reader(io.StringIO(answer.body.decode(), newline=""), strict=True))
    expected = database.execute("SELECT ifnull(note, ''), id FROM users WHERE id > 1990 ORDER BY id LIMIT 500")
    assert rows == [["note", "id"], *([note, str(id)] for note, id in expected)]


def test_an_export_of_nothing_has_a_header(server: LiveServer) -> None:
    """Without rows there is the line of names."""
    assert bytes(get(server, "/api/export?limit=0&columns=id,name").body) == b"id,name\r\n"


# 12. GET /api/stream-safe


def test_a_failure_is_told_in_the_stream(server: LiveServer) -> None:
    """After the items before it comes {"error": "Stream failed"}, nothing of the cause, and a clean end."""
    answer = get(server, "/api/stream-safe?count=9&interval=0.01&fail_after=2")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["item"] for line in lines[:2]] == [0, 1]
    assert lines[2:] == [{"error": "Stream failed"}]
    assert b"fail_after" not in answer.body


def test_without_a_failure_there_are_all_items(server: LiveServer) -> None:
    """All items, none twice, after the one asked for."""
    answer = get(server, "/api/stream-safe?count=5&interval=0&after=1")
    assert [json.loads(line)["item"] for line in answer.body.splitlines()] == [2, 3, 4]


def test_leaving_cancels_and_is_logged(server: LiveServer) -> None:
    """A client that leaves ends the source, and the log says who left what."""
    before = server.log_text().count("GET /api/stream-safe: the client left")
    with RawClient(server.port) as client:
        client.request("GET", "/api/stream-safe?interval=60").read_body_until(b'"item":0')
        assert server.streams() == 1
    eventually(lambda: server.streams() == 0, 1.0)
    eventually(lambda: server.log_text().count("GET /api/stream-safe: the client left") == before + 1)


# 13. POST /api/transform


def test_the_answer_begins_before_the_request_has_ended(server: LiveServer) -> None:
    """What was sent comes back in upper case while more is still to come."""
    with RawClient(server.port) as client:
        begin_chunked(client, "/api/transform").send_chunk("grüße, ".encode())
        answer = client.read_body_until("GRÜSSE, ".encode())
        assert answer.header("content-type") == "text/plain; charset=utf-8"
        client.send_chunk("straße".encode()).read_body_until(b"STRASSE")
        assert client.send_chunk(b"").read_to_end().end == "clean"
        assert answer.body.decode() == "GRÜSSE, STRASSE"


def test_with_a_length_too(server: LiveServer) -> None:
    """A body with Content-Length is transformed as it arrives, and the connection takes the next request."""
    with RawClient(server.port) as client:
        begin_length(client, "/api/transform", 6).send(b"abc")
        client.read_body_until(b"ABC")
        assert bytes(client.send(b"def").read_to_end().body) == b"ABCDEF"
        assert client.request("GET", "/healthz").read_to_end().status == 200


SCRIPTS = "aé€😀ß川ﬁ\u0301Z"


@pytest.mark.parametrize("to", ["upper", "lower", "casefold", "identity"])
def test_characters_may_be_cut_anywhere(server: LiveServer, to: str) -> None:
    """At every boundary of a chunk, within a character too, the answer is that of the whole text."""
    body = SCRIPTS.encode()
    convert: dict[str, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower, "casefold": str.casefold}
    expected = convert.get(to, str)(SCRIPTS).encode()
    with RawClient(server.port) as client:
        for cut in range(1, len(body)):
            begin_chunked(client, f"/api/transform?to={to}")
            client.send_chunk(body[:cut]).send_chunk(body[cut:]).send_chunk(b"")
            assert bytes(client.read_to_end().body) == expected, cut
        begin_chunked(client, f"/api/transform?to={to}")
        for byte in body:
            client.send_chunk(bytes([byte]))
        assert bytes(client.send_chunk(b"").read_to_end().body) == expected


def test_packets_may_end_within_a_character(server: LiveServer) -> None:
    """Bytes that arrive one packet at a time give the same text; each character leaves when it is whole."""
    with RawClient(server.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = "é€😀".encode()
        begin_length(client, "/api/transform", len(body) + 2).send(b"ab")
        client.read_body_until(b"AB")
        for character in "é€😀":
            for byte in character.encode():
                assert not select.select([client.socket], [], [], 0.02)[0], "half a character"
                client.send(bytes([byte]))
            client.read_body_until(character.upper().encode())
        assert client.read_to_end().end == "clean"


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_may_write_all_before_it_reads(server: LiveServer, framing: str) -> None:
    """64 MiB are taken from a client that reads nothing meanwhile; it then gets them all, out of constant memory."""
    line = ("grüße vom fluss 0123456789\n" * 40_000).encode()
    times = 64 * 2**20 // len(line)
    before = server.rss_bytes()
    with RawClient(server.port, timeout_s=60.0) as client:
        if framing == "length":
            begin_length(client, "/api/transform", times * len(line))
        else:
            begin_chunked(client, "/api/transform")
        for _ in range(times):
            client.send(line) if framing == "length" else client.send_chunk(line)
        if framing == "chunked":
            client.send_chunk(b"")
        grown = server.rss_bytes() - before
        answer, expected = client.read_to_end(), line.decode().upper().encode() * times
        assert (answer.end, len(answer.body)) == ("clean", len(expected))
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(expected).digest()
    assert grown < 32 * 2**20


def test_a_client_may_write_and_read_in_turns(server: LiveServer) -> None:
    """A client that sends a MiB and waits for its answer before it sends the next one is not kept waiting."""
    block = b"a" * 2**20
    with RawClient(server.port, timeout_s=20.0) as client:
        begin_chunked(client, "/api/transform")
        for n in range(1, 4):
            client.send_chunk(block).read_until(lambda answer, n=n: len(answer.body) >= n * len(block), 5.0)
        assert client.send_chunk(b"").read_to_end().end == "clean"
        assert client.answer.body == block.upper() * 3


@pytest.mark.parametrize("half", [2, 8 * 2**20])
def test_a_client_may_close_its_side_after_its_body(server: LiveServer, half: int) -> None:
    """A body and then a FIN, as nc -N sends it, is answered whole: a half-closed client still reads."""
    with RawClient(server.port, timeout_s=30.0) as client:
        begin_length(client, "/api/transform", half)
        client.send(b"a" * half).half_close()
        answer = client.read_to_end()
        assert (answer.end, answer.body == b"A" * half) == ("clean", True)


def test_what_is_no_text_is_refused_or_cut(server: LiveServer) -> None:
    """Before the first byte of the answer it is a 400, after it a cut, also when the end is missing a byte."""
    assert post(server, "/api/transform", b"\xff").status == 400
    assert post(server, "/api/transform", "é".encode()[:1]).status == 400
    assert post(server, "/api/transform", b"").status == 400
    for late in (b"\xff", b"\xc3"):
        with RawClient(server.port) as client:
            begin_chunked(client, "/api/transform").send_chunk(b"good").read_body_until(b"GOOD")
            assert client.send_chunk(late).send_chunk(b"").read_to_end().end == "cut"


def test_a_body_that_ends_early_is_a_cut(server: LiveServer) -> None:
    """The transformed half of a body is not passed off as the whole."""
    with RawClient(server.port) as client:
        begin_length(client, "/api/transform", 9).send(b"half")
        client.read_body_until(b"HALF")
        client.half_close()
        assert client.read_to_end().end == "cut"


@pytest.mark.parametrize("path", ["/api/notifications", "/v1/stream/notifications/refused"])
def test_a_refusal_before_the_body_was_read_says_that_it_closes(server: LiveServer, path: str) -> None:
    """Or a client would send its next request into a connection that is being closed (RFC 9112, 9.6)."""
    with RawClient(server.port) as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n" % path.encode(), "POST")
        answer = client.read_head()
    assert answer.status in (403, 413)
    assert answer.header("Connection") == "close"

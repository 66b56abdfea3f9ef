"""Every route in OpenAPI 3.1: docs/http.md for machines. A test holds it to the application's routes, both ways.

Rules:
- Bounds are those that the views check, and statuses those that they answer with; docs/http.md says what they mean.
- ``HEAD`` comes with ``GET`` everywhere, and is written only where its answer is another one.
"""

from __future__ import annotations

from collections.abc import Iterable

from streaming.openapi import (
    ANY,
    EVENTS,
    JSON,
    NDJSON,
    OCTETS,
    PROBLEM,
    PROBLEM_SCHEMA,
    TEXT,
    Described,
    answer,
    body,
    flag,
    header,
    integer,
    number,
    operation,
    path,
    query,
    record,
    text,
)
from streaming.openapi_access import SCHEMES, guarded, routes
from streaming.openapi_pages import CHAT_ERRORS, TOPIC, forms, pages
from streaming.openapi_transfers import LAST_EVENT, ROWS, exports, files, resumables

_COUNT = integer(1, 100_000, 10)
_DURABLE = query("durable", flag(), "Run it into a log, under the URL in Location.")
_MESSAGES = {
    "type": "object",
    "required": ["messages"],
    "properties": {"messages": {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "object"}}},
}
_CHAT_TYPES = (TEXT, EVENTS)
_PROTOCOL = query("protocol", {"type": "string", "enum": ["text", "data", "ui", "openai"]}, "The form of the answer.")
_STREAM_PATH = path("path", text(longest=512))
_STANDING = answer("How it stands, in Stream-Next-Offset and Stream-Closed.")


def _generated() -> Described:
    chunks = [
        query("chunks", _COUNT, "How many in all."),
        query("interval", number(0, 60, 0.5), "Seconds between two."),
    ]
    after = query("after", integer(0, 99_999), "Go on after that one.")
    ticks = [
        query("count", _COUNT, "How many in all."),
        query("interval", number(0, 60, 1), "Seconds between two."),
        after,
    ]
    safe = [
        query("fail_after", integer(0, 100_000), "The source fails after that many items."),
        query("table", text(), "Items are its rows."),
    ]
    rows = [query("table", text(default="users"), "One of EXPORT_TABLES."), *ROWS, _DURABLE]
    kinds = query("to", text(), "Up to 8 transforms, comma-separated; `upper` without it.")
    transformed = operation(
        "A body back, transformed while it is still arriving.", {200: answer("In the type of the last transform.", ANY)},
        (400, 408, 413, 415, 503), [kinds, _DURABLE], body(OCTETS, "text/plain"),
    )  # fmt: skip
    return {
        "/api/stream": {"get": operation("Lines, one each interval.", {200: answer("`Chunk 0`, …", TEXT)}, (400, 503), [*chunks, after, _DURABLE])},
        "/api/stream-json": {"get": operation("Every row of a table.", {200: answer("An object a line.", NDJSON)}, (400, 404, 503), rows)},
        "/api/sse": {"get": operation("Ticks.", {200: answer("Events.", EVENTS), 204: answer("That was the last.")}, (400, 503), [*ticks, LAST_EVENT])},
        "/api/stream-safe": {"get": operation("A stream whose failure is its last line.", {200: answer("An object a line.", NDJSON)}, (400, 404, 503), [*ticks, *safe, *ROWS[:1], *ROWS[2:], _DURABLE])},
        "/api/transform": {"post": transformed},
    }  # fmt: skip


def _events() -> Described:
    asked = [
        query("topic", TOPIC, "Which; several are comma-separated."),
        query("follow", flag(), "Stay live."),
        query("poll", flag(), "One answer, as soon as there is something."),
        query("after", text(), "Go on after that id."),
        query("since", text(), "An id, a time or a duration."),
        LAST_EVENT,
    ]
    told = {200: answer("The events.", EVENTS, NDJSON, JSON), 204: answer("There will be no more.")}
    key = header("Idempotency-Key", text("[!-~]{1,255}"), "Published once, however often it is sent.")
    publish = operation(
        "Publish one event.", {201: answer("Its id.", JSON, schema=record(id="string", topic="string"))},
        (400, 408, 409, 413, 422, 503), [query("topic", TOPIC, "Where."), query("type", TOPIC | {"default": "notification"}, "Its type."), key],
        body(JSON, "text/plain", "application/x-www-form-urlencoded"),
    )  # fmt: skip
    now = answer("`activity`, one a second.", EVENTS)
    return {
        "/api/events": {"get": operation("The events of topics, stored and live.", told, (400, 503), asked)},
        "/api/notifications": {"post": publish},
        "/api/activity": {"get": operation("What the server does now.", {200: now}, (400, 503))},
    }


def _chat() -> Described:
    chat_id = path("id", text())
    stopped = record(run="string", outcome="string", usage="object?")
    whole = answer("The answer.", JSON, EVENTS)
    models = answer("Their names.", JSON, schema=record(object="string", data="array"))
    read = {200: answer("The answer, as it is made.", *_CHAT_TYPES), 204: answer("There is none.")}
    form = header("X-Stream-Protocol", text(), "As `protocol`.")
    return {
        "/api/chat": {
            "post": operation("Ask a model.", {200: answer("The answer, as it is made.", *_CHAT_TYPES)}, CHAT_ERRORS, [_PROTOCOL, form, _DURABLE], body(JSON, schema=_MESSAGES), (TEXT, PROBLEM)),
            "get": operation("The answer of a chat, for AI SDK 4.", {200: answer("The answer; empty when there is none.", *_CHAT_TYPES)}, (400, 404, 503), [query("chatId", text(), "The chat's id.", required=True), _PROTOCOL], refused_in=(TEXT, PROBLEM)),
        },
        "/api/chat/{id}/stream": {"get": operation("The answer of a chat.", read, (400, 404, 503), [chat_id, _PROTOCOL, query("running", flag(), "Only one that is still made."), LAST_EVENT], refused_in=(TEXT, PROBLEM))},
        "/api/chat/{id}/stop": {"post": operation("End an answer where it is.", {200: answer("How it ended.", JSON, schema=stopped)}, (400, 404, 503), [chat_id], refused_in=(TEXT, PROBLEM))},
        "/v1/chat/completions": {"post": operation("The same as OpenAI's.", {200: whole}, CHAT_ERRORS, (), body(JSON, schema=_MESSAGES), (JSON, PROBLEM))},
        "/v1/models": {"get": operation("The models.", {200: models}, (400, 503), refused_in=(JSON, PROBLEM))},
        "/v1/models/{model}": {"get": operation("One model.", {200: answer("It.", JSON, schema=record(id="string", object="string"))}, (400, 404), [path("model", text())], refused_in=(JSON, PROBLEM))},
    }  # fmt: skip


def _streams() -> Described:
    closed = header("Stream-Closed", {"type": "string", "const": "true"}, "Nothing will be added.")
    lifetimes = [
        header("Stream-TTL", integer(0, 2**31), "Seconds."),
        header("Stream-Expires-At", {"type": "string", "format": "date-time"}, "When."),
    ]
    asked = [
        _STREAM_PATH,
        query("offset", text(), "After which to read."),
        query("live", {"type": "string", "enum": ["long-poll", "sse"]}, "Wait for what comes."),
        query("cursor", text(), "The last Stream-Cursor."),
        LAST_EVENT,
    ]
    content = body(JSON, OCTETS, "text/plain", required=False)
    read = {200: answer("What follows.", ANY), 204: answer("Nothing came."), 304: answer("As it was.")}
    page = [
        query("prefix", text(longest=512), "Only below it."),
        query("after", text(longest=512), "Behind that path."),
        query("limit", integer(1, 1000, 100), "At most."),
    ]
    errors = (400, 403, 404, 408, 409, 410, 413, 415, 429, 503)
    return {
        "/api/streams": {"get": operation("Which streams there are.", {200: answer("A page.", JSON, schema=record(streams="array", after="string?"))}, (400, 503), page)},
        "/v1/stream/{path}": {
            "put": operation("Make a stream.", {200: _STANDING, 201: _STANDING}, errors, [_STREAM_PATH, closed, *lifetimes], content),
            "post": operation("Append.", {200: _STANDING, 204: _STANDING}, errors, [_STREAM_PATH, closed], content),
            "get": operation("Read.", read, errors, asked),
            "delete": operation("Delete.", {204: answer("Gone.")}, errors, [_STREAM_PATH]),
        },
    }  # fmt: skip


def _server() -> Described:
    alive = record(status="string")
    asset = [path("release", text()), path("name", text())]
    return {
        "/healthz": {"get": operation("Whether the process lives.", {200: answer("It does.", JSON, schema=alive)}, ())},
        "/readyz": {"get": operation("Whether it can serve.", {200: answer("It can.", JSON, schema=alive)}, (503,))},
        "/metrics": {"get": operation("Prometheus's text format.", {200: answer("Counters.", "text/plain")}, ())},
        "/openapi.json": {"get": operation("This description.", {200: answer("OpenAPI 3.1.", JSON)}, ())},
        "/assets/{release}/{name}": {
            "get": operation("What pages are made of.", {200: answer("It.", ANY)}, (404,), asset)
        },
    }


def _merged(parts: Iterable[Described]) -> Described:
    """A path may stand in several parts, with a method in each."""
    paths: Described = {}
    for part in parts:
        for url, methods in part.items():
            paths.setdefault(url, {}).update(methods)
    return paths


def description() -> Described:
    """Return the whole description."""
    parts = (_generated, _events, _chat, files, resumables, exports, _streams, _server, pages, forms, routes)
    return {
        "openapi": "3.1.1",
        "info": {"title": "Perennial", "version": "1", "description": "A streaming server; the contract is at /docs."},
        "servers": [{"url": "/"}],
        "paths": guarded(_merged(part() for part in parts)),
        "components": {"schemas": {"Problem": PROBLEM_SCHEMA}, "securitySchemes": SCHEMES},
        # Where access control is on; out of the box nothing is asked for.
        "security": [{}, *({name: []} for name in SCHEMES)],
    }

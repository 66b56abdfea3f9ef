"""Every route in OpenAPI 3.1: docs/http.md for machines. A test holds it to the application's routes, both ways.

Rules:
- Bounds are those that the views check, and statuses those that they answer with; docs/http.md says what they mean.
- ``HEAD`` comes with ``GET`` everywhere, and is written only where its answer is another one.
"""

from __future__ import annotations

from streaming.openapi import (
    ANY,
    EVENTS,
    HTML,
    JSON,
    NDJSON,
    OCTETS,
    PROBLEM,
    PROBLEM_SCHEMA,
    TEXT,
    Described,
    answer,
    body,
    choice,
    conditions,
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

_TOPIC = text("[A-Za-z0-9._-]{1,64}", default="default")
_ID = text("[A-Za-z0-9_-]{1,64}")
_COUNT = integer(1, 100_000, 10)
_DURABLE = query("durable", flag(), "Run it into a log, under the URL in Location.")
_LAST = header("Last-Event-ID", text(), "Go on after that event; wins over `after`.")
_MESSAGES = {
    "type": "object",
    "required": ["messages"],
    "properties": {"messages": {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "object"}}},
}
_ROWS = (
    query("columns", text(), "Which, in which order, comma-separated."),
    query("after", text(), "Only rows behind that key."),
    query("limit", integer(0, 1_000_000_000), "At most that many rows."),
    query("order", choice("asc", "desc"), "By the key, or against it."),
    conditions(),
)
_RANGE = (
    header("Range", text(), "RFC 9110, 14.2."),
    header("If-Range", text(), "RFC 9110, 13.1.5."),
    header("If-None-Match", text(), "RFC 9110, 13.1.2."),
)
_FILE = {
    200: answer("The whole.", ANY),
    206: answer("The ranges asked for.", ANY),
    304: answer("As it was."),
}
_CHAT_TYPES = (TEXT, EVENTS)
_CHAT_ERRORS = (400, 404, 406, 408, 409, 413, 415, 422, 429, 502, 503, 504)
_PROTOCOL = query("protocol", {"type": "string", "enum": ["text", "data", "ui", "openai"]}, "The form of the answer.")
_BODY_ERRORS = (400, 408, 409, 413, 415, 503, 507)
_STREAM_PATH = path("path", text(longest=512))
_STANDING = answer("How it stands, in Stream-Next-Offset and Stream-Closed.")


def _pages() -> Described:
    names = ("", "events", "streams", "chat", "upload", "files", "video", "export", "transform", "docs")
    refused = {"/video": (404,), "/export": (404, 503), "/streams": (503,)}
    pages = {
        f"/{name}": {"get": operation("A page.", {200: answer("HTML.", HTML)}, refused.get(f"/{name}", ()))}
        for name in names
    }
    document = operation("A document as a page.", {200: answer("HTML.", HTML)}, (404,), [path("name", text())])
    plot = operation(
        "A picture of a document.", {200: answer("A plot.", "image/svg+xml")}, (404,), [path("name", text())]
    )
    return pages | {"/docs/{name}": {"get": document}, "/docs/plots/{name}.svg": {"get": plot}}


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
    rows = [query("table", text(default="users"), "One of EXPORT_TABLES."), *_ROWS, _DURABLE]
    kinds = query("to", text(), "Up to 8 transforms, comma-separated; `upper` without it.")
    transformed = operation(
        "A body back, transformed while it is still arriving.", {200: answer("In the type of the last transform.", ANY)},
        (400, 408, 413, 415, 503), [kinds, _DURABLE], body(OCTETS, "text/plain"),
    )  # fmt: skip
    return {
        "/api/stream": {"get": operation("Lines, one each interval.", {200: answer("`Chunk 0`, …", TEXT)}, (400, 503), [*chunks, after, _DURABLE])},
        "/api/stream-json": {"get": operation("Every row of a table.", {200: answer("An object a line.", NDJSON)}, (400, 404, 503), rows)},
        "/api/sse": {"get": operation("Ticks.", {200: answer("Events.", EVENTS), 204: answer("That was the last.")}, (400, 503), [*ticks, _LAST])},
        "/api/stream-safe": {"get": operation("A stream whose failure is its last line.", {200: answer("An object a line.", NDJSON)}, (400, 404, 503), [*ticks, *safe, *_ROWS[:1], *_ROWS[2:], _DURABLE])},
        "/api/transform": {"post": transformed},
    }  # fmt: skip


def _events() -> Described:
    asked = [
        query("topic", _TOPIC, "Which; several are comma-separated."),
        query("follow", flag(), "Stay live."),
        query("poll", flag(), "One answer, as soon as there is something."),
        query("after", text(), "Go on after that id."),
        query("since", text(), "An id, a time or a duration."),
        _LAST,
    ]
    told = {200: answer("The events.", EVENTS, NDJSON, JSON), 204: answer("There will be no more.")}
    key = header("Idempotency-Key", text("[!-~]{1,255}"), "Published once, however often it is sent.")
    publish = operation(
        "Publish one event.", {201: answer("Its id.", JSON, schema=record(id="string", topic="string"))},
        (400, 408, 409, 413, 422, 503), [query("topic", _TOPIC, "Where."), query("type", _TOPIC | {"default": "notification"}, "Its type."), key],
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
            "post": operation("Ask a model.", {200: answer("The answer, as it is made.", *_CHAT_TYPES)}, _CHAT_ERRORS, [_PROTOCOL, form, _DURABLE], body(JSON, schema=_MESSAGES), (TEXT, PROBLEM)),
            "get": operation("The answer of a chat, for AI SDK 4.", {200: answer("The answer; empty when there is none.", *_CHAT_TYPES)}, (400, 404, 503), [query("chatId", text(), "The chat's id.", required=True), _PROTOCOL], refused_in=(TEXT, PROBLEM)),
        },
        "/api/chat/{id}/stream": {"get": operation("The answer of a chat.", read, (400, 404, 503), [chat_id, _PROTOCOL, query("running", flag(), "Only one that is still made."), _LAST], refused_in=(TEXT, PROBLEM))},
        "/api/chat/{id}/stop": {"post": operation("End an answer where it is.", {200: answer("How it ended.", JSON, schema=stopped)}, (400, 404, 503), [chat_id], refused_in=(TEXT, PROBLEM))},
        "/v1/chat/completions": {"post": operation("The same as OpenAI's.", {200: whole}, _CHAT_ERRORS, (), body(JSON, schema=_MESSAGES), (JSON, PROBLEM))},
        "/v1/models": {"get": operation("The models.", {200: models}, (400, 503), refused_in=(JSON, PROBLEM))},
        "/v1/models/{model}": {"get": operation("One model.", {200: answer("It.", JSON, schema=record(id="string", object="string"))}, (400, 404), [path("model", text())], refused_in=(JSON, PROBLEM))},
    }  # fmt: skip


def _files() -> Described:
    files = record(files="array", after="string?")
    page = [query("after", text(longest=4096), "Behind that name."), query("limit", integer(1, 1000, 100), "At most.")]
    posted = answer("Stored.", JSON, schema=record(id="string", received="integer", url="string"))
    name, exists = (
        query("filename", text(), "What it will be called."),
        query("exists", choice("rename", "refuse"), "Where there is one of that name."),
    )
    file = body(OCTETS, "multipart/form-data")
    progress = {200: answer("`progress`, at last `complete` or `failed`.", EVENTS), 204: answer("It has ended.")}
    return {
        "/api/files": {"get": operation("What can be downloaded.", {200: answer("A page of it.", JSON, schema=files)}, (400,), page)},
        "/api/download/{filename}": {"get": operation("A file as an attachment.", _FILE, (400, 404, 412, 416), [path("filename", text()), *_RANGE])},
        "/api/video/{id}": {"get": operation("A film.", _FILE, (400, 404, 412, 416), [path("id", _ID), query("download", flag(), "As an attachment."), *_RANGE])},
        "/api/video": {"post": operation("Store a film.", {201: posted}, _BODY_ERRORS, [query("id", _ID, "What it will be called.")], body("video/mp4", OCTETS))},
        "/api/upload-progress": {"post": operation("Store a file.", {201: posted}, _BODY_ERRORS, [name, exists, query("id", _ID, "Under which progress is told.")], file)},
        "/api/upload-progress/{id}": {"get": operation("The progress of an upload.", progress, (400, 404, 503), [path("id", _ID), query("after", text(), "Go on after that id."), _LAST])},
    }  # fmt: skip


def _resumables() -> Described:
    errors = (400, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 423, 460, 503, 507)
    version = header("Tus-Resumable", {"type": "string", "const": "1.0.0"}, "tus 1.0; without it, the IETF's draft.")
    at = header("Upload-Offset", integer(0, 2**53 - 1), "Where the body begins.")
    length = header("Upload-Length", integer(0, 2**53 - 1), "How many bytes it will have.")
    piece = body("application/offset+octet-stream", "application/partial-upload", OCTETS, required=False)
    one, told = (
        [path("id", text()), version],
        {200: answer("Done."), 204: answer("Where it stands, in Upload-Offset.")},
    )
    made = {201: answer("Its URL is in Location."), 200: answer("Stored whole.")}
    return {
        "/api/uploads": {"post": operation("Make a resumable upload.", made, errors, [version, length], piece)},
        "/api/uploads/{id}": {
            "head": operation("Where it stands.", told, errors, one),
            "get": operation("As HEAD.", told, errors, one),
            "patch": operation("Append at an offset.", told, errors, [*one, at], piece),
            "delete": operation("Forget it.", told, errors, one),
            "post": operation("Another method, by X-HTTP-Method-Override.", told, errors, one, piece),
        },
    }


def _exports() -> Described:
    formats = query(
        "format", choice("csv", "ndjson", "json", "json-seq", "arrow"), "Else by the file's ending, or Accept."
    )
    asked = [
        *_ROWS,
        formats,
        query("excel", flag(), "CSV for spreadsheets."),
        query("length", {"type": "string", "const": "exact"}, "With Content-Length, and ranges."),
        query("filename", text(longest=200), "What the file is called."),
        query("id", _ID, "Of the receipt."),
        *_RANGE,
    ]
    errors = (400, 404, 406, 409, 412, 416, 503)
    done = _FILE | {204: answer("This receipt's events have ended.")}
    return {
        "/api/export": {"get": operation("A table as a file; without parameters, what there is.", _FILE, errors, [query("table", text(), "One of EXPORT_TABLES."), *asked])},
        "/api/export/{name}": {"get": operation("A table as a file, its schema, or a receipt.", done, errors, [path("name", text()), *asked])},
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
        _LAST,
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


def description() -> Described:
    """Return the whole description."""
    parts = (_generated, _events, _chat, _files, _resumables, _exports, _streams, _server, _pages, routes)
    return {
        "openapi": "3.1.1",
        "info": {"title": "Perennial", "version": "1", "description": "A streaming server; the contract is at /docs."},
        "servers": [{"url": "/"}],
        "paths": guarded({url: methods for part in parts for url, methods in part().items()}),
        "components": {"schemas": {"Problem": PROBLEM_SCHEMA}, "securitySchemes": SCHEMES},
        # Where access control is on; out of the box nothing is asked for.
        "security": [{}, *({name: []} for name in SCHEMES)],
    }

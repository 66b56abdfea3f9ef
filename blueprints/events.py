"""Server-sent events: ticks, and the notifications of a topic, stored and live."""

from __future__ import annotations

import re
import time
import urllib.parse
from datetime import UTC, datetime
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, jsonify, request

from stores.base import Log
from streaming import bodies, positions, publishing, reconnects, topics
from streaming.body_limits import limited
from streaming.cursors import Parameters, last_event_id
from streaming.errors import BadRequest
from streaming.event_lines import DRAIN, Lines, Poll, line
from streaming.events import Source, json_event, pause
from streaming.framings import NDJSON, SSE, Framing
from streaming.response import respond

blueprint = Blueprint("events", __name__)

TOPICS = 16
OWN_TYPES = ("connected", "complete", "stream-reset", "stream-error", DRAIN)
BROWSER_TYPES = ("open", "error", "message")
_CURSOR = ("(?s).{1,2048}", "an id of these topics")


@blueprint.get("/api/sse")
def sse() -> Response:
    query = Parameters("count", "interval", "after")
    count = query.integer("count", 10, 1, 100_000)
    interval_s = query.number("interval", 1, 0, 60)
    after = query.optional_integer("after", 0, count - 1)
    cursor = last_event_id() or ("" if after is None else str(after))
    known = cursor.isascii() and cursor.isdigit() and len(cursor) <= 6 and int(cursor) < count
    if known and int(cursor) == count - 1:
        return Response(status=204)
    source = ticks(count, interval_s, int(cursor) if known else -1, asked=cursor if not known else "")
    return respond(source, SSE(cursor if known else ""))


def ticks(count: int, interval_s: float, after: int, asked: str = "") -> Source:
    """Yield a tick for every number after ``after``, ``interval_s`` seconds apart; ``asked`` was no cursor of this."""
    if asked:
        yield json_event({"asked": asked, "from": None, "missed": None}, "stream-reset")
    for n in range(after + 1, count):
        yield json_event({"count": n, "time": datetime.now(UTC)}, id=str(n))
        if n < count - 1:
            yield from pause(interval_s)


@blueprint.get("/api/events")
def events() -> Response:
    query = Parameters("follow", "poll", "after", "since", lists=("topic",))
    follow, poll = query.flag("follow"), query.flag("poll")
    if follow and poll:
        raise BadRequest("follow and poll are two ways to wait: one of them.", parameter="poll")
    log: Log = current_app.extensions["log"]
    start = _start(query, log)
    if start.ended if follow or poll else start.complete:
        return Response(status=204)
    framing = _framing(start, poll)
    reader = topics.Reader(log, start, topics.frame if isinstance(framing, SSE) else line)
    wait_s = current_app.extensions["settings"].LONG_POLL_S
    source = reader.poll(wait_s) if poll else reader.follow() if follow else reader.stored()
    return respond(source, framing, headers={"Vary": "Accept"})


def _start(query: Parameters, log: Log) -> topics.Start:
    """Return where to begin: a Last-Event-ID wins; ``after`` is a cursor, ``since`` a cursor, a date or a duration."""
    names = query.texts("topic", "default", *publishing.NAME, most=TOPICS)
    cursor, since = last_event_id() or query.text("after", "", *_CURSOR), query.text("since", "", *_CURSOR)
    if query.has("after") and query.has("since"):
        raise BadRequest("after and since both say where to begin: one of them.", parameter="since")
    try:
        time_s = positions.moment(since, time.time()) if since and not cursor else None
    except ValueError as error:
        raise BadRequest(f"since must be an id, a time or a duration: {error}.", parameter="since") from error
    if time_s is not None:
        return topics.begin_since(log, names, time_s)
    cursor = cursor or since
    if not reconnects.from_event_source() and (unknown := positions.read(cursor, names).unknown):
        parameter = "after" if query.has("after") else "since"
        raise BadRequest(
            f"{parameter} must be an id of these topics, and {unknown[0][:40]!r} is none.", parameter=parameter
        )
    return topics.begin_at(log, names, cursor)


def _framing(start: topics.Start, poll: bool) -> Framing:
    if poll:
        return Poll(start.cursor)
    if request.accept_mimetypes.best_match(["text/event-stream", NDJSON.content_type]) == NDJSON.content_type:
        return Lines(start.cursor)
    # The frame that opens the stream must not move a cursor whose reader has not been told yet what became of it.
    return SSE("" if start.resets else start.cursor)


@blueprint.post("/api/notifications")
@limited("appends")
def notifications() -> tuple[Response, int, dict[str, str]]:
    query = Parameters("topic", "type")
    topic = query.text("topic", "default", *publishing.NAME)
    type = _type(query)
    key = request.headers.get("Idempotency-Key", "")
    if "Idempotency-Key" in request.headers and not re.fullmatch("[!-~]{1,255}", key):
        raise BadRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    body = bodies.taken(publishing.NOTIFICATION_BYTES)
    appended = publishing.publish(topic, json_event(_notification(body), type), key)
    return jsonify(id=appended.offset, topic=topic), 201, {"Location": f"/api/events?topic={topic}"}


def _type(query: Parameters) -> str:
    """Return the event's type. The stream's own would deceive its readers, and a browser gives some other meanings."""
    type = query.text("type", "notification", *publishing.NAME)
    if type in OWN_TYPES:
        raise BadRequest(f"type {type} is the stream's own: it says something of the connection.", parameter="type")
    if type in BROWSER_TYPES:
        raise BadRequest(f"type {type} is the browser's own: an EventSource fires it for itself.", parameter="type")
    return type


def _notification(body: bytes) -> dict[str, Any]:
    """A JSON object as it is; a form's ``message``, or any other text, as ``{"message": …}``."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The body is not UTF-8.") from error
    if not text.strip():
        raise BadRequest("There is no body to publish.")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        if request.mimetype == "application/json":
            raise BadRequest(f"The body is not JSON: {error}.") from error
        value = None
    if isinstance(value, dict):
        return value
    form = (
        urllib.parse.parse_qs(text, max_num_fields=1)
        if request.mimetype.endswith("urlencoded") and "&" not in text
        else {}
    )
    return publishing.message(form["message"][0] if "message" in form else text)

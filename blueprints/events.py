"""Server-sent events: ticks, and the notifications of a topic, stored and live."""

from __future__ import annotations

import re
import urllib.parse
from datetime import UTC, datetime
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, jsonify, request

from stores.base import START, Batch, KeyReused, Log, UnknownOffset
from streaming import bodies, readers
from streaming.cursors import Parameters, last_event_id
from streaming.errors import BadRequest, Unprocessable
from streaming.events import Event, Source, json_event, pause
from streaming.framings import SSE
from streaming.response import respond

blueprint = Blueprint("events", __name__)

NOTIFICATION_BYTES = 64 * 1024
TOPIC = ("[A-Za-z0-9._-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 . _ -")
# The id of ``complete`` is the tail, or _EMPTY in a topic without notifications, and this: who reconnects with it has
# everything up to there.
_COMPLETE = ".complete"
_EMPTY = "start"


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
    query = Parameters("topic", "follow", "after")
    topic = query.text("topic", "default", *TOPIC)
    follow = query.flag("follow")
    cursor = last_event_id() or query.text("after", START, "(?s).{0,128}", "an id of this topic")
    if cursor.endswith(_COMPLETE):
        if not follow:
            return Response(status=204)
        cursor = START if cursor == _EMPTY + _COMPLETE else cursor.removesuffix(_COMPLETE)
    log: Log = current_app.extensions["log"]
    asked = ""
    try:
        state = log.read(_path(topic), cursor, limit=0)
    except UnknownOffset as error:
        if not last_event_id():
            raise BadRequest(f"after must be an id of this topic: {error}", parameter="after") from error
        # An EventSource must not die of it (a 400 ends it for good), nor be told everything once more.
        asked = cursor
        state = log.read(_path(topic), START, limit=0)
        cursor = state.tail
    source = live(log, topic, cursor, asked) if follow else stored(log, topic, cursor, state, asked)
    return respond(source, SSE(cursor))


def live(log: Log, topic: str, cursor: str, asked: str) -> Source:
    """Yield ``connected`` and every notification after ``cursor``, for ever."""
    yield from _greeting(cursor, asked)
    yield from readers.follow(log, _path(topic), cursor)


def stored(log: Log, topic: str, cursor: str, state: Batch, asked: str) -> Source:
    """Yield ``connected``, every notification after ``cursor`` that ``state`` has, and ``complete`` with its total."""
    yield from _greeting(cursor, asked)
    yield from readers.replay(log, _path(topic), cursor, state.tail)
    yield json_event({"total": state.total}, "complete", (state.tail or "start") + _COMPLETE)


def _greeting(cursor: str, asked: str) -> Source:
    yield json_event({"status": "ok"}, "connected")
    if asked:
        yield json_event({"asked": asked, "from": cursor, "missed": None}, "stream-reset")


@blueprint.post("/api/notifications")
def notifications() -> tuple[Response, int, dict[str, str]]:
    query = Parameters("topic")
    topic = query.text("topic", "default", *TOPIC)
    key = request.headers.get("Idempotency-Key", "")
    if "Idempotency-Key" in request.headers and not re.fullmatch("[!-~]{1,255}", key):
        raise BadRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    settings = current_app.extensions["settings"]
    body = bodies.read_all(request.environ, NOTIFICATION_BYTES, settings.BODY_TIMEOUT_S)
    event = Event(msgspec.json.encode(_notification(body)), "notification")
    try:
        offset = current_app.extensions["log"].append(_path(topic), [event], key=key, keep=settings.NOTIFICATIONS_KEEP)
    except KeyReused as error:
        raise Unprocessable(str(error)) from error
    return jsonify(id=offset, topic=topic), 201, {"Location": f"/api/events?topic={topic}"}


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
    return {"message": form["message"][0] if "message" in form else text}


def _path(topic: str) -> str:
    return f"notifications/{topic}"

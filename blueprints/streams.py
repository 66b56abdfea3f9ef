"""Streams at ``/v1/stream/<path>`` by the Durable Streams protocol: create, append, close, read, follow, delete."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

from flask import Blueprint, Response, current_app, request

from settings import Settings
from stores.base import Batch, Log, State
from stores.errors import NoStream, StoreError, StreamGone
from streaming import bodies, callers, durable, durable_answers, durable_errors, durable_reads, needs
from streaming.body_limits import limited
from streaming.chat_answers import chats
from streaming.durable import Place
from streaming.durable_framings import Body, DurableSSE, body
from streaming.errors import BadRequest, Conflict
from streaming.events import Event
from streaming.kept import Kept
from streaming.leases import CHATS
from streaming.links import links
from streaming.quotas import Quota
from streaming.response import respond

blueprint = Blueprint("streams", __name__)

URL = durable.PREFIX + "<path:path>"
# 12.7; and whoever makes a stream of text/html has made no page of this server: it runs nothing, and has no origin.
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_ASKED = (
    "Content-Type, If-None-Match, Last-Event-ID, Producer-Epoch, Producer-Id, Producer-Seq, Stream-Closed, "
    "Stream-Expires-At, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Stream-Forked-From, Stream-Seq, Stream-TTL"
)


@blueprint.put(URL)
@limited("appends")
def create(path: str) -> Response:
    path = durable.of_clients(_path())
    config, closed, sent = durable.creation(request.headers), durable.closing(request.headers), _body()
    log = _log()
    if config.forked_from:
        callers.check(needs.stream("read", config.forked_from))
    with _forking():
        if config.forked_from and sent and not config.content_type:
            config = replace(config, content_type=log.state(config.forked_from).config.content_type)
        _quota().enter(path)
        with _kept().making(callers.key(), path):
            state = log.create(path, config, durable.events(sent, config.content_type), closed=closed)
    headers = durable_answers.standing(state)
    if not state.created:
        return Response(content_type=state.config.content_type, headers=headers)
    _quota().made()
    headers["Location"] = request.root_url.rstrip("/") + durable.PREFIX + quote(path)
    return Response(status=201, content_type=state.config.content_type, headers=headers)


@blueprint.post(URL)
@limited("appends")
def append(path: str) -> Response:
    path = durable.of_clients(_path())
    headers = request.headers
    producer, close, seq = durable.producer(headers), durable.closing(headers), headers.get("Stream-Seq", "")
    sent = _body()
    content_type = durable.content_type(headers) if sent else ""
    events = durable.appending(sent, content_type, close)
    result = _log().append(path, events, content_type=content_type, producer=producer, seq=seq, close=close)
    new = producer and sent and not result.duplicate
    return _empty(200 if new else 204, durable_answers.appended(result, producer))


@blueprint.delete(URL)
def delete(path: str) -> Response:
    path = durable.of_clients(_path())
    if not _log().delete(path):
        raise NoStream("There is no stream at this path.")
    _quota().deleted()
    _kept().deleted(callers.key(), path)
    return _empty(204, {})


@blueprint.get(URL)
def read(path: str) -> Response:
    path, log = _path(), _log()
    state = log.state(path)
    if request.method == "HEAD":
        headers = durable_answers.standing(state) | {"Cache-Control": "no-store"}
        return Response(content_type=state.config.content_type, headers=headers)
    mode = _mode()
    place = durable.place(_offset(mode))
    return {"": _caught_up, "long-poll": _polled, "sse": _live}[mode](log, path, place, state)


def _caught_up(log: Log, path: str, place: Place, state: State) -> Response:
    batch = durable_reads.read(log, path, place, state)
    headers = durable_answers.caught_up(batch, place, state.config, time.time())
    if request.if_none_match.contains_weak(headers.get("ETag", "").strip('"')):
        return _empty(304, headers)
    return _whole(batch, state, headers)


def _polled(log: Log, path: str, place: Place, state: State) -> Response:
    settings = _settings()
    links.check_place(settings.MAX_STREAMS)
    leave = current_app.extensions["streams"].enter(callers.key())
    try:
        batch = durable_reads.poll(log, path, place, state, settings.LONG_POLL_S, request.environ)
    finally:
        leave()
    asked = request.args.get("cursor", "")
    headers = durable_answers.polled(batch, place, state.config, time.time(), asked)
    return _whole(batch, state, headers) if batch.events else _empty(204, headers)


def _live(log: Log, path: str, place: Place, state: State) -> Response:
    if request.headers.get("Last-Event-ID") and state.closed and place.offset == state.tail:
        return _empty(204, {})  # an EventSource comes back after every end; only this tells it that it was the last
    durable_reads.read(log, path, place, state, limit=1)  # what cannot be read is refused before the first byte
    source = durable_reads.live(log, path, place, state, request.args.get("cursor", ""))
    if path.startswith(CHATS):
        source = chats().attend(path.removeprefix(CHATS), source)
    return respond(source, DurableSSE(state.config.content_type))


def _mode() -> str:
    modes = request.args.getlist("live") or [""]
    if modes not in ([""], ["long-poll"], ["sse"]) or request.args.get("live") == "":
        raise BadRequest("live must be long-poll or sse, once.", parameter="live")
    return modes[0]


def _offset(mode: str) -> str | None:
    """The parameter; or what an EventSource that comes back says instead: its URL is the one it began with."""
    offsets = request.args.getlist("offset")
    if len(offsets) > 1:
        raise BadRequest("offset was given more than once.", parameter="offset")
    if mode and not offsets:
        raise BadRequest(f"live={mode} needs an offset.", parameter="offset")
    if mode == "sse" and (cursor := request.headers.get("Last-Event-ID")):
        return cursor
    return offsets[0] if offsets else None


@contextmanager
def _forking() -> Iterator[None]:
    """A source that has been deleted is a conflict for its fork, and not gone (4.2)."""
    try:
        yield
    except StreamGone as error:
        raise Conflict(str(error)) from error


def _whole(batch: Batch, state: State, headers: dict[str, str]) -> Response:
    data = body(batch.events, state.config.content_type)
    headers = headers | {"Content-Length": str(len(data))}
    return respond(iter([Event(data)]), Body(state.config.content_type), headers=headers)


def _empty(status: int, headers: dict[str, str]) -> Response:
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response


def _path() -> str:
    """The stream's path, from the bytes of the URL: Flask replaces those that are not UTF-8."""
    return durable.stream_path(request.environ["PATH_INFO"].encode("latin-1").removeprefix(durable.PREFIX.encode()))


def _body() -> bytes:
    settings = _settings()
    return bodies.taken(settings.MAX_APPEND_BYTES)


def _log() -> Log:
    log: Log = current_app.extensions["log"]
    return log


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _kept() -> Kept:
    kept: Kept = current_app.extensions["kept"]
    return kept


def _quota() -> Quota:
    extensions = current_app.extensions
    quota: Quota = extensions.get("quota") or extensions.setdefault(
        "quota", Quota(_log(), _settings().MAX_STREAM_PATHS)
    )
    return quota


@blueprint.errorhandler(StoreError)
def refused(error: StoreError) -> Response:
    return current_app.make_response(current_app.handle_user_exception(durable_errors.problem(error)))


@blueprint.after_request
def secured(response: Response) -> Response:
    response.headers.update(SECURITY)
    if request.method == "OPTIONS":
        # What a preflight asks; which origins may come is said elsewhere, and without that a browser goes no further.
        response.headers["Access-Control-Allow-Headers"] = _ASKED
        response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, PUT, POST, DELETE"
    return response

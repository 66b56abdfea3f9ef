"""Plain text: chunks in time, and the request's own body transformed."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request

from streaming import bodies, transforming
from streaming.body_limits import limited
from streaming.cursors import Parameters
from streaming.errors import BadRequest, UnsupportedType
from streaming.events import Event, Source, pause
from streaming.framings import Text
from streaming.pipeline import TRANSFORMS
from streaming.response import respond

blueprint = Blueprint("text", __name__)

CODINGS = {"gzip": "gunzip", "x-gzip": "gunzip", "zstd": "unzstd"}


@blueprint.get("/api/stream")
def stream() -> Response:
    query = Parameters("chunks", "interval", "after", "durable")
    count = query.integer("chunks", 10, 1, 100_000)
    interval_s = query.number("interval", 0.5, 0, 60)
    after = query.optional_integer("after", 0, count - 1)
    return respond(chunks(count, interval_s, -1 if after is None else after), Text(), durable=query.flag("durable"))


def chunks(count: int, interval_s: float, after: int) -> Source:
    """Yield ``Chunk n`` for every n from ``after + 1`` to ``count - 1``, ``interval_s`` seconds apart."""
    for n in range(after + 1, count):
        yield Event(b"Chunk %d\n" % n, id=str(n))
        if interval_s and n < count - 1:
            yield from pause(interval_s)


@blueprint.post("/api/transform")
@limited("transforms")
def transform() -> Response:
    query = Parameters("to", "durable")
    names = _decoders() + query.sequence("to", "upper", TRANSFORMS, transforming.MOST)
    if not bodies.has_body(request.environ):
        raise BadRequest("There is no body to transform.")
    settings = current_app.extensions["settings"]
    pieces = bodies.arriving(settings.MAX_UPLOAD_BYTES)
    answer, framing = transforming.transformed(names, pieces)
    return respond(answer, framing, cut_after_error=True, durable=query.flag("durable"))


def _decoders() -> list[str]:
    """What undoes the request's Content-Encoding (RFC 9110, 8.4): the last coding first."""
    codings = [each.strip().lower() for each in request.headers.get("Content-Encoding", "").split(",")]
    applied = [each for each in codings if each not in ("", "identity")]
    if len(applied) > transforming.MOST or not set(applied) <= set(CODINGS):
        known = {"Accept-Encoding": "gzip, zstd"}  # RFC 9110, 15.5.16
        raise UnsupportedType("The Content-Encoding of a body to transform must be gzip or zstd.", headers=known)
    return [CODINGS[each] for each in reversed(applied)]

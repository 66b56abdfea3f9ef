"""Plain text: chunks in time, and the request's own body transformed."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request

from streaming import bodies
from streaming.cursors import Parameters
from streaming.duplex import duplex
from streaming.errors import BadRequest
from streaming.events import Event, Source, pause
from streaming.framings import Text
from streaming.response import Begun, respond
from streaming.transforms import TRANSFORMS

blueprint = Blueprint("text", __name__)


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
def transform() -> Response:
    query = Parameters("to", "durable")
    codec = TRANSFORMS[query.choice("to", "upper", *TRANSFORMS)]()
    if not bodies.has_body(request.environ):
        raise BadRequest("There is no body to transform.")
    settings = current_app.extensions["settings"]
    pieces = bodies.pieces(request.environ, settings.MAX_UPLOAD_BYTES, settings.BODY_TIMEOUT_S)
    answer = duplex(pieces, codec, request.environ, settings.TRANSFORM_SPOOL_BYTES)
    return respond(Begun(answer, within_s=settings.BODY_TIMEOUT_S), Text(), durable=query.flag("durable"))

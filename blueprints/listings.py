"""Which durable streams there are; what each holds is at /v1/stream/<path>."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, current_app, jsonify

from streaming import durable
from streaming.cursors import Parameters
from streaming.listing import Listed, list_streams

blueprint = Blueprint("listings", __name__)

_PATH = ("(?s).{1,512}", "1 to 512 characters")


@blueprint.get("/api/streams")
def streams() -> Response:
    query = Parameters("prefix", "after", "limit")
    prefix, after = query.text("prefix", "", *_PATH), query.text("after", "", *_PATH)
    limit = query.integer("limit", 100, 1, 1000)
    found = list(list_streams(current_app.extensions["log"], prefix, after, limit + 1))
    more = found[limit - 1].path if len(found) > limit else None
    response = jsonify({"streams": [_told(each) for each in found[:limit]], "after": more})
    response.headers["Cache-Control"] = "no-store"
    return response


def _told(stream: Listed) -> dict[str, Any]:
    state = stream.state
    return {
        "path": stream.path,
        "url": durable.PREFIX + quote(stream.path),
        "content_type": state.config.content_type,
        "events": state.total,
        "tail": state.tail or durable.ZERO,
        "closed": state.closed,
        "own": stream.path.startswith(durable.INTERNAL),
        "forked_from": durable.PREFIX + quote(state.config.forked_from) if state.config.forked_from else None,
    }

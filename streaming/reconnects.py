"""What an EventSource gets that comes back and cannot be served now.

Any answer but a 200 ends an EventSource for good, and Retry-After is nothing to it (HTML Living Standard, 9.2.3): what
passes by itself is told to it in its own language, and it comes again with the same cursor. Everybody else, also an
EventSource that comes for the first time, gets the honest status.
"""

from __future__ import annotations

import random

from flask import Response, request

from streaming.errors import Problem, TooManyRequests, Unauthorized, Unavailable
from streaming.events import json_event
from streaming.framings import NDJSON, SSE
from streaming.response import STREAM_HEADERS

_PASSING = (TooManyRequests.status, Unavailable.status)
# Its page needs a moment for a new token, and may never get one: that is asked for seldom.
_EXPIRED_S = 5.0
_EVENTS = SSE.content_type.partition(";")[0]


def from_event_source() -> bool:
    """Whether the request can be an EventSource's: it alone asks for this type by its name, or has a Last-Event-ID."""
    named = any(value == _EVENTS for value, _ in request.accept_mimetypes)
    return named or bool(request.headers.get("Last-Event-ID"))


def returning() -> bool:
    """Whether an EventSource comes back with its request: for an event stream, and with a cursor."""
    has_cursor = request.headers.get("Last-Event-ID") or request.args.get("after")
    accepted = request.accept_mimetypes.best_match([_EVENTS, NDJSON.content_type], _EVENTS)
    takes_events = accepted == _EVENTS and not request.args.get("poll")
    return request.method in ("GET", "HEAD") and bool(has_cursor) and from_event_source() and takes_events


def answer(problem: Problem) -> Response | None:
    """Return the stream that says why and when to come again; None where the problem's own status is the answer."""
    expired = isinstance(problem, Unauthorized) and problem.expired
    if not (expired or problem.status in _PASSING) or not returning():
        return None
    # All of them were refused in the same moment: they come back spread over as long again.
    retry_s = _EXPIRED_S if expired else problem.retry_after_s or 1
    retry_ms = int(1000 * retry_s * random.uniform(1, 2))
    told = json_event({"error": problem.detail, "status": problem.status}, "stream-error")
    body = b"retry: %d\n" % retry_ms + SSE().encode(told)
    return Response(body, content_type=SSE.content_type, headers=STREAM_HEADERS)

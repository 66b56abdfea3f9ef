"""What is refused before the first byte, as a response: problem+json, or events for an EventSource that comes back."""

from __future__ import annotations

import math

from flask import Response, jsonify
from werkzeug.exceptions import HTTPException

from stores.errors import StoreError, StoreFull
from streaming import reconnects
from streaming.accounts import tally
from streaming.errors import DiskFull, Problem, Unavailable


def problem_response(problem: Problem) -> Response:
    """An error before the first byte, as application/problem+json (RFC 9457); to a returning EventSource as events."""
    tally.refused[str(problem.status)] += 1
    if told := reconnects.answer(problem):
        return told
    body = {"type": problem.type, "title": problem.title, "status": problem.status, "detail": problem.detail}
    if problem.parameter:
        body["parameter"] = problem.parameter
    response = jsonify(body | dict(problem.members))
    response.status = f"{problem.status} {problem.title}".rstrip()
    response.content_type = "application/problem+json"
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(problem.headers)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(problem.retry_after_s))
    return response


def http_error(error: HTTPException) -> Response:
    """What Flask itself refuses (404, 405, …), in the same form."""
    problem = Problem(error.description or error.name)
    problem.status = error.code or 500
    response = problem_response(problem)
    # Allow, Content-Range and their like: all but those of the HTML page that this one replaces.
    response.headers.extend(
        (name, value) for name, value in error.get_headers() if name not in ("Content-Type", "Content-Length")
    )
    # The request has it, and its frames have the request: only the collector would free them.
    error.__traceback__ = error.__context__ = None
    return response


def store_error(error: StoreError) -> Response:
    """What a store raises before the first byte."""
    full = isinstance(error, StoreFull)
    return problem_response(DiskFull(str(error)) if full else Unavailable(str(error), retry_after_s=1))

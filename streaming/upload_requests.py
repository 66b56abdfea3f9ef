"""What both protocols of resumable uploads take from a request, and put into an answer."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, current_app, request

from streaming import bodies, digests, tus
from streaming.digests import CHECKSUMS, Digests
from streaming.errors import BadRequest, Problem
from streaming.intake import Intake

PREFIX = "/api/uploads/"


def intake() -> Intake:
    intake: Intake = current_app.extensions["intake"]
    return intake


def headers() -> dict[str, str]:
    """Return the request's headers, names in lower case."""
    return {name.lower(): value for name, value in request.headers}


def content_length() -> int | None:
    """Return the length of the request's body: None for a chunked one, 0 without any."""
    chunked = request.environ.get("HTTP_TRANSFER_ENCODING", "") != ""
    return None if chunked else bodies.length(request.environ) or 0


def empty(status: int, headers: dict[str, str]) -> Response:
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response


def checks(headers: dict[str, str]) -> tuple[Digests, Callable[[str], Problem]]:
    """What the request's content is compared with, and what is said when it is something else."""
    if announced := tus.checksum(headers):
        return Digests(announced, known=CHECKSUMS), lambda _: tus.refusal("checksum")
    return Digests(digests.parse(headers.get("content-digest", ""), "Content-Digest")), _other_digest


def _other_digest(algorithm: str) -> Problem:
    sentence = f"The content has another {algorithm} digest than Content-Digest says; it was not kept."
    return BadRequest(sentence, parameter="Content-Digest")

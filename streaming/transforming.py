"""A request's body on its way through transforms and back: what the API and the form of /transform have in common.

Rules:
- What a transform refuses of the first of a body is a status, however slowly that comes.
- A failure after that is told where the answer has a word for it (NDJSON), and the connection is cut in any case: what
  is saved is never passed off as whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flask import current_app, request

from settings import Settings
from streaming.begun import Begun
from streaming.duplex import duplex
from streaming.framings import NDJSON, Text
from streaming.pipeline import Limits, Pipeline

MOST = 8


def transformed(names: Sequence[str], pieces: Iterator[bytes]) -> tuple[Begun, Text]:
    """Return what the transforms ``names`` make of the pieces, begun, and how it is written.

    Raises BadRequest for a body that they do not take, TooLarge, and what reading the body raises.
    """
    settings: Settings = current_app.extensions["settings"]
    pipeline = Pipeline(names, Limits(settings.TRANSFORM_BYTES, settings.TRANSFORM_RATIO))
    answer = duplex(pieces, pipeline, request.environ, settings.TRANSFORM_SPOOL_BYTES)
    # Longer than a body may stall: what comes too slowly to begin an answer is still a status.
    begun = Begun(answer, within_s=2 * settings.BODY_TIMEOUT_S)
    return begun, Text(pipeline.content_type, NDJSON().error if pipeline.content_type == NDJSON.content_type else None)

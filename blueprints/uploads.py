"""Uploads with progress: the body goes to disk as it arrives, and a log tells how far it is."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Blueprint, Response, current_app, jsonify, request

from stores.base import START, Log
from stores.bodies import Part, Uploads
from stores.errors import KeyReused, NameTaken, StoreError, StreamClosed, UnknownOffset
from streaming import bodies, callers, digests, file_names, readers, stored
from streaming.arrivals import Arrivals
from streaming.body_limits import limited
from streaming.cursors import Parameters, last_event_id
from streaming.digests import Digests
from streaming.errors import BadRequest, Conflict, Problem
from streaming.framings import SSE
from streaming.leases import Lease
from streaming.multipart import FormFile
from streaming.progress import Progress
from streaming.response import respond

log = logging.getLogger("perennial.uploads")

blueprint = Blueprint("uploads", __name__)

_ID = ("[A-Za-z0-9_-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 _ -")


@dataclass(frozen=True, slots=True)
class Asked:
    """What an upload is to become: ``only`` that name; ``content`` and ``file`` are what their digests are made of."""

    name: str
    only: bool
    content: Digests
    file: Digests
    wanted: str


@blueprint.post("/api/upload-progress")
@limited("uploads")
def upload_progress() -> tuple[Response, int, dict[str, str]]:
    query = Parameters("filename", "id", "exists")
    id = query.text("id", "", *_ID) or secrets.token_urlsafe(12)
    asked = _asked(query)
    body = _body(asked)
    store: Log = current_app.extensions["log"]
    path = stored.progress_path(callers.scoped(id))
    total = None if isinstance(body, FormFile) else bodies.length(request.environ)
    lease: Lease = current_app.extensions["lease"]
    progress = Progress(store, path, total, lease=lease)
    with lease.holding(path):  # first: without it the progress could be open for ever
        try:
            progress.begin()
        except (KeyReused, StreamClosed) as error:
            raise Conflict("This id has been used for another upload.", parameter="id") from error
        filename, received = _store(body, asked, progress)
        digest = digests.write({asked.wanted: asked.file.digest(asked.wanted)}) if asked.wanted else ""
        told = {"id": id, **stored.told(filename, received, digest)}
        try:
            progress.complete(told)
            stored.publish(store, current_app.extensions["settings"].NOTIFICATIONS_KEEP, told)
        except StoreError:
            log.exception("%s was stored, and could not be announced", filename)
    return jsonify(told), 201, {"Location": str(told["url"])}


def _asked(query: Parameters) -> Asked:
    name = query.text("filename", "", "(?s).+", "a file name")
    if name != file_names.plain(name):
        sentence = f"filename must be a plain file name of at most {file_names.NAME_BYTES} bytes."
        raise BadRequest(sentence, parameter="filename")
    only = query.choice("exists", "rename", "rename", "refuse") == "refuse"
    if only and name and _uploads().has(name):
        raise _taken()
    headers = request.headers
    announced = [digests.parse(headers.get(field, ""), field) for field in ("Content-Digest", "Repr-Digest")]
    wanted = digests.wanted(headers.get("Want-Repr-Digest", ""), "Want-Repr-Digest")
    if request.mimetype != "multipart/form-data":  # the body is the file, and need be read once for both
        both = Digests(*announced, wanted=[wanted])
        return Asked(name, only, both, both, wanted)
    return Asked(name, only, Digests(*announced), Digests(wanted=[wanted]), wanted)


def _body(asked: Asked) -> FormFile | Arrivals:
    """Return the file's pieces: the body itself, or the file in the form that it is."""
    if not bodies.has_body(request.environ):
        raise BadRequest("There is no body: send the file itself, or a form with one file.")
    settings = current_app.extensions["settings"]
    arrivals = Arrivals(request.environ, settings.MAX_UPLOAD_BYTES, bodies.slowest())
    if request.mimetype != "multipart/form-data":
        return arrivals
    if not (boundary := request.mimetype_params.get("boundary", "")):
        raise BadRequest("The form has no boundary in its Content-Type.")
    return FormFile(_fed(arrivals, asked.content), boundary.encode("latin-1", "replace"))


def _fed(arrivals: Arrivals, content: Digests) -> Iterator[bytes | memoryview]:
    try:
        for piece in arrivals:
            content.update(piece)
            yield piece
    finally:
        arrivals.close()


def _store(body: FormFile | Arrivals, asked: Asked, progress: Progress) -> tuple[str, int]:
    """Write the pieces to disk; return the name that the file got and its size. Nothing is left of a failure."""
    with _failures_told(progress):
        part = _uploads().begin()
        try:
            feeds = [asked.file] if asked.file else []
            for _ in body.into(part, *feeds) if isinstance(body, Arrivals) else _write(body, part, *feeds):
                progress.moved(part.size)
            if not (part.size or isinstance(body, FormFile)):
                raise BadRequest("There is no body: it is empty.")
            if wrong := asked.content.mismatch():
                raise BadRequest(f"The body has another {wrong} digest than was announced; it was not kept.")
            own_name = file_names.plain(body.filename) if isinstance(body, FormFile) else ""
            return part.finish(asked.name or own_name or file_names.UNNAMED, only=asked.only), part.size
        except NameTaken as error:
            raise _taken() from error
        finally:
            part.discard()


def _write(form: FormFile, part: Part, *feeds: Digests) -> Iterator[None]:
    for piece in form:
        part.write(piece, *feeds)
        yield


@contextlib.contextmanager
def _failures_told(progress: Progress) -> Iterator[None]:
    """Tell a failure also to those who watch the progress."""
    try:
        yield
    except (Problem, StoreError) as error:
        progress.failed(str(error))
        raise
    except BaseException:
        progress.failed("The upload was interrupted.")
        raise


def _taken() -> Conflict:
    return Conflict("There is a file of this name, and exists=refuse was asked for.", parameter="filename")


def _uploads() -> Uploads:
    uploads: Uploads = current_app.extensions["uploads"]
    return uploads


@blueprint.get("/api/upload-progress/<id>")
def upload_progress_events(id: str) -> Response:
    query = Parameters("after")
    if not re.fullmatch(_ID[0], id):
        raise BadRequest(f"id must be {_ID[1]}.", parameter="id")  # or it would wait for what cannot come
    cursor = last_event_id() or query.text("after", START, "(?s).{0,128}", "an id of this stream")
    store: Log = current_app.extensions["log"]
    path = stored.progress_path(callers.scoped(id))
    try:
        state = store.read(path, cursor, limit=0)
    except UnknownOffset:
        # Short, and soon forgotten: whoever comes with a cursor from before is told all there is.
        cursor = START
        state = store.read(path, cursor, limit=0)
    if state.closed and cursor == state.tail:
        return Response(status=204)
    return respond(readers.Follow(store, path, cursor), SSE(cursor))

"""Uploads with progress: the body goes to disk as it arrives, and a log tells how far it is."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Iterator
from urllib.parse import quote

from flask import Blueprint, Response, current_app, jsonify, request

from stores.base import START, Config, KeyReused, Log, StoreError, StoreFull, StreamClosed, UnknownOffset, Uploads
from streaming import bodies, readers
from streaming.cursors import Parameters, last_event_id
from streaming.errors import BadRequest, Conflict, DiskFull, Problem, Unavailable
from streaming.events import json_event
from streaming.framings import SSE
from streaming.multipart import FormFile
from streaming.progress import Progress
from streaming.response import respond

log = logging.getLogger("perennial.uploads")

blueprint = Blueprint("uploads", __name__)

_ID = ("[A-Za-z0-9_-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 _ -")
_NAME_BYTES = 200


@blueprint.post("/api/upload-progress")
def upload_progress() -> tuple[Response, int, dict[str, str]]:
    query = Parameters("filename", "id")
    id = query.text("id", "", *_ID) or secrets.token_urlsafe(12)
    name = query.text("filename", "", "(?s).+", "a file name")
    if name != _plain(name):
        raise BadRequest(f"filename must be a plain file name of at most {_NAME_BYTES} bytes.", parameter="filename")
    body = _body()
    total = None if isinstance(body, FormFile) else bodies.length(request.environ)
    progress = Progress(current_app.extensions["log"], _path(id), total)
    with current_app.extensions["lease"].holding(_path(id)):
        try:
            progress.begin()
        except (KeyReused, StreamClosed) as error:
            raise Conflict("This id has been used for another upload.", parameter="id") from error
        filename, received = _store(body, name, progress)
    told = {"received": received, "id": id, "filename": filename, "url": f"/api/download/uploads/{quote(filename)}"}
    try:
        progress.complete(told)
        _publish({"message": f"{filename} was uploaded.", **told})
    except StoreError:
        log.exception("%s was stored, and could not be announced", filename)
    return jsonify(told), 201, {"Location": str(told["url"])}


def _body() -> FormFile | Iterator[bytes]:
    """Return the file's pieces: the body itself, or the file in the form that it is."""
    if not bodies.has_body(request.environ):
        raise BadRequest("There is no body: send the file itself, or a form with one file.")
    settings = current_app.extensions["settings"]
    pieces = bodies.pieces(request.environ, settings.MAX_UPLOAD_BYTES, settings.BODY_TIMEOUT_S)
    if request.mimetype != "multipart/form-data":
        return pieces
    if not (boundary := request.mimetype_params.get("boundary", "")):
        raise BadRequest("The form has no boundary in its Content-Type.")
    return FormFile(pieces, boundary.encode("latin-1", "replace"))


def _store(body: FormFile | Iterator[bytes], name: str, progress: Progress) -> tuple[str, int]:
    """Write the pieces to disk; return the name that the file got and its size. Nothing is left of a failure."""
    uploads: Uploads = current_app.extensions["uploads"]
    with _failures_told(progress):
        part = uploads.begin()
        try:
            for piece in body:
                part.write(piece)
                progress.moved(part.size)
            if not (part.size or isinstance(body, FormFile)):
                raise BadRequest("There is no body: it is empty.")
            own_name = _plain(body.filename) if isinstance(body, FormFile) else ""
            return part.finish(name or own_name or "upload.bin"), part.size
        finally:
            part.discard()


@contextlib.contextmanager
def _failures_told(progress: Progress) -> Iterator[None]:
    """Tell a failure to those who watch the progress, and as a status to the one who uploads."""
    try:
        yield
    except StoreFull as error:
        progress.failed(str(error))
        raise DiskFull(str(error)) from error
    except StoreError as error:
        progress.failed(str(error))
        raise Unavailable(str(error), retry_after_s=5) from error
    except Problem as problem:
        progress.failed(problem.detail)
        raise
    except BaseException:
        progress.failed("The upload was interrupted.")
        raise


def _plain(name: str) -> str:
    """Return ``name`` without what makes it more than a name: a path, a leading dot, controls, too many bytes."""
    last = name.replace("\\", "/").rpartition("/")[2].lstrip(".")
    printable = "".join(c for c in last if c.isprintable())
    return printable.encode("utf-8", "ignore")[:_NAME_BYTES].decode("utf-8", "ignore")


def _publish(told: dict[str, object]) -> None:
    settings = current_app.extensions["settings"]
    store: Log = current_app.extensions["log"]
    kept = Config("application/json", keep_events=settings.NOTIFICATIONS_KEEP)
    store.append("notifications/default", [json_event(told, "notification")], create=kept)


@blueprint.get("/api/upload-progress/<id>")
def upload_progress_events(id: str) -> Response:
    query = Parameters("after")
    if not re.fullmatch(_ID[0], id):
        raise BadRequest(f"id must be {_ID[1]}.", parameter="id")  # or it would wait for what cannot come
    cursor = last_event_id() or query.text("after", START, "(?s).{0,128}", "an id of this stream")
    store: Log = current_app.extensions["log"]
    try:
        state = store.read(_path(id), cursor, limit=0)
    except UnknownOffset:
        # Short, and soon forgotten: whoever comes with a cursor from before is told all there is.
        cursor = START
        state = store.read(_path(id), cursor, limit=0)
    if state.closed and cursor == state.tail:
        return Response(status=204)
    return respond(readers.Follow(store, _path(id), cursor), SSE(cursor))


def _path(id: str) -> str:
    return f"uploads/{id}"

"""Files and videos, with ranges and conditions; a list of what there is."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Blueprint, Response, current_app, jsonify, request

from settings import Settings
from stores.bodies import Uploads
from stores.errors import NameTaken
from streaming import bodies, media_types
from streaming.body_limits import limited
from streaming.cursors import Parameters
from streaming.errors import BadRequest, Conflict, NotFound, UnsupportedType
from streaming.files import respond_file
from streaming.folders import Entry, list_below

blueprint = Blueprint("downloads", __name__)

_VIDEO_ID = "[A-Za-z0-9_-]{1,64}"


@blueprint.get("/api/download/<path:filename>")
def download(filename: str) -> Response:
    Parameters()
    return respond_file(filename, attachment=True)


@blueprint.get("/api/video/<id>")
def video(id: str) -> Response:
    query = Parameters("download")
    if not re.fullmatch(_VIDEO_ID, id):
        raise NotFound("There is no such video.")
    return respond_file(f"videos/{id}.mp4", attachment=query.flag("download"))


def place(path: str) -> tuple[str, bool] | None:
    """Return which file the two routes above have for a URL's path without a query, and whether as an attachment."""
    if path.startswith("/api/download/"):
        return path[len("/api/download/") :], True
    if found := re.fullmatch(f"/api/video/({_VIDEO_ID})", path):
        return f"videos/{found[1]}.mp4", False
    return None


@blueprint.post("/api/video")
@limited("uploads")
def post_video() -> tuple[Response, int, dict[str, str]]:
    query = Parameters("id")
    id = query.text("id", "", _VIDEO_ID, "1 to 64 of the characters A-Z a-z 0-9 _ -") or secrets.token_urlsafe(12)
    received = _store(f"{id}.mp4")
    url = f"/api/video/{id}"
    return jsonify({"id": id, "received": received, "url": url}), 201, {"Location": url}


def _store(name: str) -> int:
    """Write the body to ``videos/`` under ``name``; return its size. Nothing is left of a failure."""
    if not bodies.has_body(request.environ):
        raise BadRequest("There is no body: send the MP4 file itself.")
    settings: Settings = current_app.extensions["settings"]
    videos: Uploads = current_app.extensions["videos"]
    if videos.has(name):
        raise _taken()
    part = videos.begin()
    try:
        for piece in _film(bodies.arriving(settings.MAX_UPLOAD_BYTES)):
            part.write(piece)
        part.finish(name, only=True)
        return part.size
    except NameTaken as error:  # by one that came at the same time
        raise _taken() from error
    finally:
        part.discard()


def _taken() -> Conflict:
    return Conflict("There is a video of this id.", parameter="id")


def _film(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an MP4 file, which begins with a box of the type "ftyp" (ISO/IEC 14496-12, 4.3)."""
    head = b""
    while len(head) < 8 and (piece := next(pieces, b"")):
        head += piece
    if head[4:8] != b"ftyp":
        raise UnsupportedType("The body is no MP4 file: send the file itself.")
    yield head
    yield from pieces


@blueprint.get("/api/files")
def files() -> Response:
    query = Parameters("after", "limit")
    after = query.text("after", "", "(?s).{0,4096}", "a path of at most 4096 characters")
    limit = query.integer("limit", 100, 1, 1000)
    # One more than is asked for tells whether there is more.
    found = list_below(current_app.extensions["settings"].FILES_DIR, after, limit + 1)
    more = found[limit - 1].path if len(found) > limit else None
    response = jsonify({"files": [_told(entry) for entry in found[:limit]], "after": more})
    response.headers["Cache-Control"] = "no-store"
    return response


def _told(entry: Entry) -> dict[str, object]:
    modified = datetime.fromtimestamp(entry.modified_ns // 10**9, UTC)
    told: dict[str, object] = {
        "name": entry.path,
        "size": entry.size,
        "modified": modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "type": media_types.content_type(entry.path),
        "url": f"/api/download/{quote(entry.path)}",
    }
    if playable := re.fullmatch(rf"videos/({_VIDEO_ID})\.mp4", entry.path):
        told["video"] = f"/api/video/{playable[1]}"
    return told

"""Files and videos, with ranges and conditions; a list of what there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Blueprint, Response, current_app, jsonify

from streaming import media_types
from streaming.cursors import Parameters
from streaming.errors import NotFound
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

"""Files and videos, with ranges and conditions."""

from __future__ import annotations

import mimetypes
import re

from flask import Blueprint, Response, current_app

from streaming.errors import NotFound
from streaming.files import open_below, respond_file

blueprint = Blueprint("downloads", __name__)


@blueprint.get("/api/download/<path:filename>")
def download(filename: str) -> Response:
    file = open_below(current_app.extensions["settings"].FILES_DIR, filename)
    name = filename.rpartition("/")[2]
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return respond_file(file, name, content_type, attachment=True)


@blueprint.get("/api/video/<id>")
def video(id: str) -> Response:
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", id):
        raise NotFound("There is no such video.")
    file = open_below(current_app.extensions["settings"].FILES_DIR, f"videos/{id}.mp4")
    return respond_file(file, f"{id}.mp4", "video/mp4", attachment=False)

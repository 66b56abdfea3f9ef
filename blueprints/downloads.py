"""Files and videos, with ranges and conditions."""

from __future__ import annotations

import mimetypes
import re

from flask import Blueprint, Response, current_app

from streaming.cursors import Parameters
from streaming.errors import NotFound
from streaming.files import open_below, respond_file

blueprint = Blueprint("downloads", __name__)


@blueprint.get("/api/download/<path:filename>")
def download(filename: str) -> Response:
    Parameters()
    file = open_below(current_app.extensions["settings"].FILES_DIR, filename)
    name = filename.rpartition("/")[2]
    guessed, compression = mimetypes.guess_type(name)
    # A .csv.gz is sent as it is: under text/csv it would be no CSV.
    content_type = guessed if guessed and not compression else "application/octet-stream"
    return respond_file(file, name, content_type, attachment=True)


@blueprint.get("/api/video/<id>")
def video(id: str) -> Response:
    Parameters()
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", id):
        raise NotFound("There is no such video.")
    file = open_below(current_app.extensions["settings"].FILES_DIR, f"videos/{id}.mp4")
    return respond_file(file, f"{id}.mp4", "video/mp4", attachment=False)

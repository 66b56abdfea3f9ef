"""What the server does now, as an event stream."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

from streaming.activity_reports import Reports
from streaming.cursors import Parameters
from streaming.framings import SSE
from streaming.response import respond

blueprint = Blueprint("activity", __name__)


@blueprint.get("/api/activity")
def activity() -> Response:
    Parameters()
    reports: Reports = current_app.extensions["reports"]
    return respond(reports.watch(), SSE(""))

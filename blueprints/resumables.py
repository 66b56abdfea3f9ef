"""Resumable uploads at /api/uploads: tus 1.0, and the IETF's draft (docs/protocols.md), on the same uploads.

A request that names tus's version is tus's; every other one is read as the draft's.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import MethodNotAllowed

from stores.errors import NoUpload, PartMissing, StoreError
from streaming import draft_uploads, tus, tus_uploads, upload_draft
from streaming.body_limits import limited
from streaming.cursors import Parameters
from streaming.errors import NotFound
from streaming.upload_requests import PREFIX, empty, headers, intake

blueprint = Blueprint("resumables", __name__)

URL = PREFIX + "<id>"


@blueprint.post("/api/uploads", provide_automatic_options=False)
@limited("uploads")
def create() -> Response:
    Parameters()
    asked = headers()
    return draft_uploads.create(asked) if upload_draft.creates(asked) else tus_uploads.create(asked)


@blueprint.route(URL, methods=["PATCH"], provide_automatic_options=False)
@limited("uploads")
def append(id: str) -> Response:
    Parameters()
    asked = headers()
    return draft_uploads.append(id, asked) if upload_draft.appends(asked) else tus_uploads.append(id, asked)


@blueprint.get(URL, provide_automatic_options=False)
def offset(id: str) -> Response:
    Parameters()
    asked = headers()
    return draft_uploads.offset(id, asked) if "tus-resumable" not in asked else tus_uploads.offset(id, asked)


@blueprint.delete(URL, provide_automatic_options=False)
def terminate(id: str) -> Response:
    Parameters()
    if "tus-resumable" in (asked := headers()):
        tus.check_version(asked)
    with intake().taking(id) as taken:
        taken.delete("The upload was ended by its client.")
    return empty(204, {})


@blueprint.post(URL, provide_automatic_options=False)
def overridden(id: str) -> Response:
    """For clients whose environment knows no PATCH and no DELETE (tus, X-HTTP-Method-Override)."""
    views: dict[str, Callable[[str], Response]] = {"PATCH": append, "DELETE": terminate, "HEAD": offset}
    view = views.get(request.headers.get("X-HTTP-Method-Override", ""))
    if view is None:
        raise MethodNotAllowed(["GET", "HEAD", "PATCH", "DELETE", "OPTIONS"])
    return view(id)


@blueprint.route("/api/uploads", methods=["OPTIONS"], provide_automatic_options=False)
@blueprint.route(URL, methods=["OPTIONS"], provide_automatic_options=False)
def options(id: str = "") -> Response:
    most = intake().most
    allow = "POST, OPTIONS" if not id else "GET, HEAD, PATCH, DELETE, POST, OPTIONS"
    return empty(204, {"Allow": allow, **tus.options(most), **upload_draft.limit(upload_draft.NEWEST, most)})


@blueprint.errorhandler(NoUpload)
@blueprint.errorhandler(PartMissing)
def missing(error: StoreError) -> Response:
    problem = NotFound(str(error)) if isinstance(error, NoUpload) else tus.refusal("no-part")
    return current_app.make_response(current_app.handle_user_exception(problem))


@blueprint.after_request
def marked(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.method == "OPTIONS" or "tus-resumable" in headers() or "Tus-Version" in response.headers:
        response.headers["Tus-Resumable"] = tus.VERSION
    return response

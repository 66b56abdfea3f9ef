"""Resumable uploads at /api/uploads: tus 1.0, and the IETF's draft (docs/protocols.md), on the same uploads.

A request that names tus's version is tus's; every other one is read as the draft's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.http import parse_options_header

from settings import Settings
from stores.base import Upload
from stores.errors import NoUpload, PartMissing, StoreError
from streaming import bodies, digests, file_names, tus, upload_draft, wire
from streaming.cursors import Parameters
from streaming.digests import CHECKSUMS, Digests
from streaming.errors import BadRequest, NotFound, Problem, TooLarge
from streaming.intake import Intake, Taken

blueprint = Blueprint("resumables", __name__)

PREFIX = "/api/uploads/"
URL = PREFIX + "<id>"


@blueprint.post("/api/uploads", provide_automatic_options=False)
def create() -> Response:
    Parameters()
    headers = _headers()
    return _create_draft(headers) if upload_draft.creates(headers) else _create_tus(headers)


@blueprint.route(URL, methods=["PATCH"], provide_automatic_options=False)
def append(id: str) -> Response:
    Parameters()
    headers = _headers()
    return _append_draft(id, headers) if upload_draft.appends(headers) else _append_tus(id, headers)


@blueprint.get(URL, provide_automatic_options=False)
def offset(id: str) -> Response:
    Parameters()
    headers = _headers()
    return _offset_draft(id, headers) if "tus-resumable" not in headers else _offset_tus(id, headers)


@blueprint.delete(URL, provide_automatic_options=False)
def terminate(id: str) -> Response:
    Parameters()
    if "tus-resumable" in (headers := _headers()):
        tus.check_version(headers)
    with _intake().taking(id) as taken:
        taken.delete("The upload was ended by its client.")
    return _empty(204, {})


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
    most = _settings().MAX_UPLOAD_BYTES
    allow = "POST, OPTIONS" if not id else "GET, HEAD, PATCH, DELETE, POST, OPTIONS"
    return _empty(204, {"Allow": allow, **tus.options(most), **upload_draft.limit(upload_draft.NEWEST, most)})


# tus 1.0


def _create_tus(headers: dict[str, str]) -> Response:
    tus.check_version(headers)
    has_body = bodies.has_body(request.environ)
    asked = tus.creation(headers, _settings().MAX_UPLOAD_BYTES, PREFIX, has_body)
    checks, wrong = _checks(headers)
    upload = Upload(
        secrets.token_urlsafe(24),
        asked.name,
        asked.length,
        metadata=asked.metadata,
        concat=asked.concat,
        partial=asked.partial,
        parts=asked.parts,
    )
    _check_room(upload, 0)
    with _intake().making(upload, known=False) as taken:
        if has_body:
            taken.receive(request.environ, checks, wrong)
        taken.settle()
        answer = _standing(taken) if has_body or taken.upload.over else {}
    return _empty(201, {"Location": PREFIX + upload.id, **answer, **_expires(upload.id)})


def _append_tus(id: str, headers: dict[str, str]) -> Response:
    tus.check_version(headers)
    asked = tus.append(headers)
    checks, wrong = _checks(headers)
    with _intake().taking(id) as taken:
        if taken.upload.parts:
            raise tus.refusal("final")
        if asked.offset != taken.offset:
            raise tus.refusal("mismatch", {"Upload-Offset": str(taken.sync())})
        if asked.length is not None:
            _declare(taken, asked.length)
        _check_room(taken.upload, taken.offset)
        if not taken.upload.over:
            taken.receive(request.environ, checks, wrong)
            taken.settle()
        answer = _standing(taken)
    return _empty(204, {**answer, **_expires(id)})


def _offset_tus(id: str, headers: dict[str, str]) -> Response:
    tus.check_version(headers)
    with _intake().taking(id) as taken:
        upload, answer = taken.upload, _standing(taken)
    if upload.parts and not upload.over:
        del answer["Upload-Offset"]
    if (length := _length(upload)) is not None:
        answer["Upload-Length"] = str(length)
    elif not upload.parts:
        answer["Upload-Defer-Length"] = "1"
    if upload.metadata:
        answer["Upload-Metadata"] = upload.metadata
    if upload.concat:
        answer["Upload-Concat"] = upload.concat
    return _empty(200, {**answer, **_expires(id)})


def _declare(taken: Taken, length: int) -> None:
    """A deferred length is said once."""
    known = taken.upload.length
    if known is not None and known != length:
        raise tus.refusal("length-set")
    if length > _settings().MAX_UPLOAD_BYTES:
        raise tus.refusal("too-long")
    if length < taken.offset:
        raise tus.refusal("length-below")
    if not taken.upload.over:
        taken.change(length=length)


def _length(upload: Upload) -> int | None:
    """The upload's length, if it can be known; that of a final one is the sum of its parts'."""
    if not upload.parts or upload.over:
        return upload.length
    total = 0
    for part in upload.parts:
        try:
            length = _intake().resumables.look(part).length
        except NoUpload:
            return None
        if length is None:
            return None
        total += length
    return total


def _standing(taken: Taken) -> dict[str, str]:
    """The offset, once it is durable; of what is over, also where its file is."""
    answer = {"Upload-Offset": str(taken.sync())}
    return answer | ({"Content-Location": taken.told["url"]} if taken.told else {})


def _expires(id: str) -> dict[str, str]:
    return tus.expires(_intake().resumables.expires_at(id))


def _checks(headers: dict[str, str]) -> tuple[Digests, Callable[[str], Problem]]:
    """What the request's content is compared with, and what is said when it is something else."""
    if announced := tus.checksum(headers):
        return Digests(announced, known=CHECKSUMS), lambda _: tus.refusal("checksum")
    return Digests(digests.parse(headers.get("content-digest", ""), "Content-Digest")), _other_digest


def _other_digest(algorithm: str) -> Problem:
    sentence = f"The content has another {algorithm} digest than Content-Digest says; it was not kept."
    return BadRequest(sentence, parameter="Content-Digest")


def _check_room(upload: Upload, offset: int) -> None:
    """Refuse a body that is known to go beyond the upload's length, before any of it is read."""
    announced = bodies.length(request.environ) or 0
    if upload.length is not None and offset + announced > upload.length:
        raise tus.refusal("beyond")
    if max(offset + announced, _length(upload) or 0) > _settings().MAX_UPLOAD_BYTES:
        raise tus.refusal("too-long")


# The IETF's draft


def _create_draft(headers: dict[str, str]) -> Response:
    asked = upload_draft.asked(headers)
    complete = upload_draft.creating(asked)
    most, content_length = _settings().MAX_UPLOAD_BYTES, _content_length()
    length = upload_draft.length(asked, 0, content_length, complete, None)
    limit = upload_draft.limit(asked.version, most)
    if max(length or 0, content_length or 0) > most:
        raise TooLarge(f"An upload may have {most} bytes.", headers=limit)
    checks, wrong = _checks(headers)
    digests.parse(headers.get("repr-digest", ""), "Repr-Digest")
    upload = Upload(
        secrets.token_urlsafe(24),
        _disposed_name(headers),
        length,
        ends=complete and length is not None,
        digest=headers.get("repr-digest", ""),
        wanted=digests.wanted(headers.get("want-repr-digest", ""), "Want-Repr-Digest"),
    )
    location = {"Location": PREFIX + upload.id}
    with _intake().making(upload, known=asked.named) as taken:
        wire.interim(request.environ, upload_draft.interim(asked, {**location, **limit}))
        _receive_draft(taken, asked, complete, checks, wrong)
        return _draft_answer(taken, asked, 201, location)


def _append_draft(id: str, headers: dict[str, str]) -> Response:
    asked = upload_draft.asked(headers)
    offset, complete = upload_draft.appending(asked, headers.get("content-type", ""))
    checks, wrong = _checks(headers)
    with _intake().taking(id) as taken:
        upload = taken.upload
        if offset != taken.offset:
            raise upload_draft.mismatch(asked, taken.sync(), offset)
        if upload.over and complete and not _content_length():
            return _draft_answer(taken, asked, 201, {})  # its answer was lost on the way
        if upload.over or upload.parts:
            raise upload_draft.completed(asked)
        length = upload_draft.length(asked, offset, _content_length(), complete, upload.length)
        if max(length or 0, offset + (_content_length() or 0)) > _settings().MAX_UPLOAD_BYTES:
            raise TooLarge("The upload is larger than what is taken.", headers=_limits(asked, id))
        taken.change(length=length, ends=complete and length is not None)
        _receive_draft(taken, asked, complete, checks, wrong)
        return _draft_answer(taken, asked, 204, {})


def _receive_draft(
    taken: Taken, asked: upload_draft.Asked, complete: bool, checks: Digests, wrong: Callable[[str], Problem]
) -> None:
    def tell(offset: int) -> None:
        wire.interim(request.environ, upload_draft.interim(asked, {"Upload-Offset": str(offset)}))

    if bodies.has_body(request.environ):
        try:
            taken.receive(request.environ, checks, wrong, tell if asked.version >= 4 else None)
        except TooLarge:
            if taken.upload.length is None:
                raise
            taken.delete("More was sent than the length that had been said.")
            raise upload_draft.inconsistent() from None
    if complete and taken.offset != (taken.upload.length if taken.upload.length is not None else taken.offset):
        raise upload_draft.inconsistent()
    if complete:
        taken.change(length=taken.offset, ends=True)
        taken.settle()


def _draft_answer(taken: Taken, asked: upload_draft.Asked, status: int, headers: dict[str, str]) -> Response:
    over = taken.upload.over
    headers = {
        **headers,
        "Upload-Offset": str(taken.sync()),
        **upload_draft.completeness(asked.version, over),
        **_limits(asked, taken.upload.id),
    }
    if not over:
        return _empty(status, headers)
    response = jsonify(taken.told)
    response.status_code = 201
    response.headers.update({**headers, "Content-Location": taken.told["url"]})
    if digest := taken.told.get("digest"):
        response.headers["Repr-Digest"] = digest
    return response


def _offset_draft(id: str, headers: dict[str, str]) -> Response:
    asked = upload_draft.asked(headers)
    upload_draft.check_bare(asked)
    with _intake().taking(id) as taken:
        upload = taken.upload
        answer = {"Upload-Offset": str(taken.sync()), **upload_draft.completeness(asked.version, upload.over)}
    if upload.length is not None:
        answer["Upload-Length"] = str(upload.length)
    return _empty(204, {**answer, **_limits(asked, id)})


def _limits(asked: upload_draft.Asked, id: str) -> dict[str, str]:
    left_s = _intake().resumables.expires_at(id) - time.time()
    return upload_draft.limit(asked.version, _settings().MAX_UPLOAD_BYTES, left_s)


def _disposed_name(headers: dict[str, str]) -> str:
    _, options = parse_options_header(headers.get("content-disposition"))
    return file_names.plain(options.get("filename", ""))


# Both


@blueprint.errorhandler(NoUpload)
@blueprint.errorhandler(PartMissing)
def missing(error: StoreError) -> Response:
    problem = NotFound(str(error)) if isinstance(error, NoUpload) else tus.refusal("no-part")
    return current_app.make_response(current_app.handle_user_exception(problem))


@blueprint.after_request
def marked(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.method == "OPTIONS" or "tus-resumable" in _headers() or "Tus-Version" in response.headers:
        response.headers["Tus-Resumable"] = tus.VERSION
    return response


def _empty(status: int, headers: dict[str, str]) -> Response:
    response = Response(status=status, headers=headers)
    del response.headers["Content-Type"]
    return response


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers}


def _content_length() -> int | None:
    """None for a chunked body; without any body 0."""
    chunked = request.environ.get("HTTP_TRANSFER_ENCODING", "") != ""
    return None if chunked else bodies.length(request.environ) or 0


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _intake() -> Intake:
    intake: Intake = current_app.extensions["intake"]
    return intake

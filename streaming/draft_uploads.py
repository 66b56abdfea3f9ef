"""The IETF's resumable uploads over the intake: what each of their requests does (streaming/upload_draft.py)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from flask import Response, jsonify, request
from werkzeug.http import parse_options_header

from stores.bodies import Upload
from streaming import bodies, callers, connections, digests, file_names, upload_draft
from streaming.digests import Digests
from streaming.errors import Problem, TooLarge
from streaming.intake import Taken
from streaming.upload_requests import PREFIX, checks, content_length, empty, intake


def create(headers: dict[str, str]) -> Response:
    asked = upload_draft.asked(headers)
    complete = upload_draft.creating(asked)
    most = intake().most
    length = upload_draft.length(asked, 0, content_length(), complete, None)
    limit = upload_draft.limit(asked.version, most)
    if max(length or 0, content_length() or 0) > most:
        raise TooLarge(f"An upload may have {most} bytes.", headers=limit)
    expected, wrong = checks(headers)
    digests.parse(headers.get("repr-digest", ""), "Repr-Digest")
    upload = Upload(
        callers.made(secrets.token_urlsafe(24)),
        _disposed_name(headers),
        length,
        ends=complete and length is not None,
        digest=headers.get("repr-digest", ""),
        wanted=digests.wanted(headers.get("want-repr-digest", ""), "Want-Repr-Digest"),
    )
    location = {"Location": PREFIX + upload.id}
    with intake().making(upload, known=asked.named) as taken:
        connections.interim(request.environ, upload_draft.interim(asked, {**location, **limit}))
        _receive(taken, asked, complete, expected, wrong)
        return _answer(taken, asked, 201, location)


def append(id: str, headers: dict[str, str]) -> Response:
    asked = upload_draft.asked(headers)
    offset, complete = upload_draft.appending(asked, headers.get("content-type", ""))
    expected, wrong = checks(headers)
    with intake().taking(id) as taken:
        upload = taken.upload
        if offset != taken.offset:
            raise upload_draft.mismatch(asked, taken.sync(), offset)
        if upload.over and complete and not content_length():
            return _answer(taken, asked, 201, {})  # its answer was lost on the way
        if upload.over or upload.parts:
            raise upload_draft.completed(asked)
        length = upload_draft.length(asked, offset, content_length(), complete, upload.length)
        if max(length or 0, offset + (content_length() or 0)) > intake().most:
            raise TooLarge("The upload is larger than what is taken.", headers=_limits(asked, id))
        taken.change(length=length, ends=complete and length is not None)
        _receive(taken, asked, complete, expected, wrong)
        return _answer(taken, asked, 204, {})


def _receive(
    taken: Taken, asked: upload_draft.Asked, complete: bool, expected: Digests, wrong: Callable[[str], Problem]
) -> None:
    def tell(offset: int) -> None:
        connections.interim(request.environ, upload_draft.interim(asked, {"Upload-Offset": str(offset)}))

    if bodies.has_body(request.environ):
        try:
            taken.receive(request.environ, expected, wrong, tell if asked.version >= 4 else None)
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


def _answer(taken: Taken, asked: upload_draft.Asked, status: int, headers: dict[str, str]) -> Response:
    over = taken.upload.over
    headers = {
        **headers,
        "Upload-Offset": str(taken.sync()),
        **upload_draft.completeness(asked.version, over),
        **_limits(asked, taken.upload.id),
    }
    if not over:
        return empty(status, headers)
    response = jsonify(taken.told)
    response.status_code = 201
    response.headers.update({**headers, "Content-Location": taken.told["url"]})
    if digest := taken.told.get("digest"):
        response.headers["Repr-Digest"] = digest
    return response


def offset(id: str, headers: dict[str, str]) -> Response:
    asked = upload_draft.asked(headers)
    upload_draft.check_bare(asked)
    with intake().taking(id) as taken:
        upload = taken.upload
        answer = {"Upload-Offset": str(taken.sync()), **upload_draft.completeness(asked.version, upload.over)}
    if upload.length is not None:
        answer["Upload-Length"] = str(upload.length)
    return empty(204, {**answer, **_limits(asked, id)})


def _limits(asked: upload_draft.Asked, id: str) -> dict[str, str]:
    left_s = intake().resumables.expires_at(id) - time.time()
    return upload_draft.limit(asked.version, intake().most, left_s)


def _disposed_name(headers: dict[str, str]) -> str:
    _, options = parse_options_header(headers.get("content-disposition"))
    return file_names.plain(options.get("filename", ""))

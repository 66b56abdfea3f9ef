"""tus 1.0 over the intake: what each of its requests does (https://tus.io/protocols/resumable-upload)."""

from __future__ import annotations

import secrets

from flask import Response, request

from stores.bodies import Upload
from stores.errors import NoUpload
from streaming import bodies, callers, tus
from streaming.grants import Need
from streaming.intake import Taken
from streaming.upload_requests import PREFIX, checks, empty, intake


def create(headers: dict[str, str]) -> Response:
    tus.check_version(headers)
    has_body = bodies.has_body(request.environ)
    asked = tus.creation(headers, intake().most, PREFIX, has_body)
    expected, wrong = checks(headers)
    upload = Upload(
        callers.made(secrets.token_urlsafe(24)),
        asked.name,
        asked.length,
        metadata=asked.metadata,
        concat=asked.concat,
        partial=asked.partial,
        parts=asked.parts,
    )
    for part in upload.parts:
        callers.check(Need("read", f"/uploads/{part}", part))
    _check_room(upload, 0)
    with intake().making(upload, known=False) as taken:
        if has_body:
            taken.receive(request.environ, expected, wrong)
        taken.settle()
        answer = _standing(taken) if has_body or taken.upload.over else {}
    return empty(201, {"Location": PREFIX + upload.id, **answer, **_expires(upload.id)})


def append(id: str, headers: dict[str, str]) -> Response:
    tus.check_version(headers)
    asked = tus.append(headers)
    expected, wrong = checks(headers)
    with intake().taking(id) as taken:
        if taken.upload.parts:
            raise tus.refusal("final")
        if asked.offset != taken.offset:
            raise tus.refusal("mismatch", {"Upload-Offset": str(taken.sync())})
        if asked.length is not None:
            _declare(taken, asked.length)
        _check_room(taken.upload, taken.offset)
        if not taken.upload.over:
            taken.receive(request.environ, expected, wrong)
            taken.settle()
        answer = _standing(taken)
    return empty(204, {**answer, **_expires(id)})


def offset(id: str, headers: dict[str, str]) -> Response:
    tus.check_version(headers)
    with intake().taking(id) as taken:
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
    return empty(200, {**answer, **_expires(id)})


def _declare(taken: Taken, length: int) -> None:
    """A deferred length is said once."""
    known = taken.upload.length
    if known is not None and known != length:
        raise tus.refusal("length-set")
    if length > intake().most:
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
            length = intake().resumables.look(part).length
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
    return tus.expires(intake().resumables.expires_at(id))


def _check_room(upload: Upload, offset: int) -> None:
    """Refuse a body that is known to go beyond the upload's length, before any of it is read."""
    announced = bodies.length(request.environ) or 0
    if upload.length is not None and offset + announced > upload.length:
        raise tus.refusal("beyond")
    if max(offset + announced, _length(upload) or 0) > intake().most:
        raise tus.refusal("too-long")

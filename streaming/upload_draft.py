"""The IETF's resumable uploads (draft-ietf-httpbis-resumable-upload), interop versions 3 to 8, as values.

Rules:
- Pure: headers (names in lower case) in, values and bytes out.
- A structured field that cannot be read counts as absent, as the draft says (RFC 9651).
- A request without ``Upload-Draft-Interop-Version`` is one of the newest version, and gets no 104: only a client that
  named the version understands one (Python's http.client and nginx 1.22 take it for the final answer).

What the versions differ in:

    3       Upload-Incomplete, with the opposite value; absent from an append it means that the upload is complete
    4, 5    Upload-Complete; no content type of its own for an append
    6       application/partial-upload, Upload-Length, Upload-Limit (``expires``), problem types
    7, 8    ``max-age`` in place of ``expires``
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from streaming import tus
from streaming.errors import BadRequest, Conflict, Problem, UnsupportedType

OLDEST, NEWEST = 3, 8
CONTENT_TYPE = "application/partial-upload"
_TYPES = "https://iana.org/assignments/http-problem-types#"
MISMATCH = _TYPES + "mismatching-upload-offset"
LENGTHS = _TYPES + "inconsistent-upload-length"
COMPLETED = _TYPES + "completed-upload"

_PARAMETERS = r"(?:;[ ]*[a-z*][a-z0-9_.*-]*(?:=[^;,]*)?)*"
_BOOLEAN = re.compile(rf"[ ]*\?([01]){_PARAMETERS}[ ]*")
_INTEGER = re.compile(rf"[ ]*([0-9]{{1,15}}){_PARAMETERS}[ ]*")


@dataclass(frozen=True, slots=True)
class Asked:
    """``complete``: whether the upload ends with this request, None: not said. ``named``: the client's own version."""

    version: int
    named: bool
    complete: bool | None
    offset: int | None
    length: int | None


def creates(headers: Mapping[str, str]) -> bool:
    """Whether a POST is one of this protocol, and not of tus, whose requests name their version."""
    named = {"upload-complete", "upload-incomplete", "upload-draft-interop-version"} & headers.keys()
    return bool(named) and "tus-resumable" not in headers


def appends(headers: Mapping[str, str]) -> bool:
    """Whether a PATCH is one of this protocol."""
    return "tus-resumable" not in headers and headers.get("content-type") != tus.CONTENT_TYPE


def asked(headers: Mapping[str, str]) -> Asked:
    """Return what the fields of the draft say."""
    version = integer(headers.get("upload-draft-interop-version", ""))
    named = version is not None and OLDEST <= version <= NEWEST
    if not named or version is None:
        version = NEWEST
    if version == 3:
        incomplete = boolean(headers.get("upload-incomplete", ""))
        complete = None if incomplete is None else not incomplete
    else:
        complete = boolean(headers.get("upload-complete", ""))
    offset, length = (integer(headers.get(name, "")) for name in ("upload-offset", "upload-length"))
    return Asked(version, named, complete, offset, length)


def creating(asked: Asked) -> bool:
    """Return whether the upload ends with the request that makes it. Raises BadRequest."""
    if asked.complete is None:
        raise BadRequest("Upload-Complete must say whether all of the upload is here.", parameter="Upload-Complete")
    return asked.complete


def check_bare(asked: Asked) -> None:
    """Refuse what HEAD may not say in the older versions."""
    if asked.version <= 5 and (asked.offset is not None or asked.complete is not None):
        raise BadRequest("Upload-Offset and Upload-Complete are told, not asked for.", parameter="Upload-Offset")


def appending(asked: Asked, content_type: str) -> tuple[int, bool]:
    """Return the offset of an append and whether the upload ends with it. Raises UnsupportedType, BadRequest."""
    if asked.version >= 6 and content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise UnsupportedType(f"A part of an upload must be sent as {CONTENT_TYPE}.")
    if asked.offset is None:
        raise BadRequest("Upload-Offset must say where the part belongs.", parameter="Upload-Offset")
    complete = True if asked.complete is None and asked.version == 3 else asked.complete
    if complete is None:
        raise BadRequest("Upload-Complete must say whether the part is the last.", parameter="Upload-Complete")
    return asked.offset, complete


def length(asked: Asked, offset: int, content_length: int | None, complete: bool, known: int | None) -> int | None:
    """Return the length that the upload has by this request and what was ``known``; None while nobody has said it.

    Raises BadRequest (inconsistent-upload-length) when they do not agree, or the content goes beyond it.
    """
    here = offset + content_length if complete and content_length is not None else None
    said = {value for value in (asked.length, here, known) if value is not None}
    if len(said) > 1 or any(offset + (content_length or 0) > value for value in said):
        raise inconsistent()
    return said.pop() if said else None


def inconsistent() -> Problem:
    return BadRequest(
        "The request's Upload-Length, its content and what was said before do not agree.",
        type=LENGTHS,
        headers={"Upload-Complete": "?0"},
    )


def mismatch(asked: Asked, offset: int, provided: int) -> Problem:
    headers = {"Upload-Offset": str(offset), **completeness(asked.version, False)}
    members = {"expected-offset": offset, "provided-offset": provided}
    sentence = f"The upload has {offset} bytes, and the part begins at {provided}."
    return Conflict(sentence, type=MISMATCH, headers=headers, members=members)


def completed(asked: Asked) -> Problem:
    """What an append to an upload gets that has ended."""
    sentence = "This upload is complete: nothing can be added."
    return BadRequest(sentence, type=COMPLETED, headers=completeness(asked.version, False))


def completeness(version: int, complete: bool) -> dict[str, str]:
    if version == 3:
        return {"Upload-Incomplete": f"?{int(not complete)}"}
    return {"Upload-Complete": f"?{int(complete)}"}


def limit(version: int, most: int, age_s: float | None = None) -> dict[str, str]:
    """``most``: bytes of an upload; ``age_s``: seconds that are left to it."""
    members = [f"max-size={most}"]
    if age_s is not None:
        members.append(f"{'max-age' if version >= 7 else 'expires'}={max(int(age_s), 0)}")
    return {"Upload-Limit": ", ".join(members)}


def interim(asked: Asked, headers: Mapping[str, str]) -> bytes:
    """Return a 104 as it goes over the wire, or b"" where the client has not named a version."""
    if not asked.named:
        return b""
    fields = {"Upload-Draft-Interop-Version": str(asked.version), **headers}
    lines = ["HTTP/1.1 104 Upload Resumption Supported", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def boolean(text: str) -> bool | None:
    """RFC 9651, 3.3.6; None for what is none."""
    match = _BOOLEAN.fullmatch(text)
    return match[1] == "1" if match else None


def integer(text: str) -> int | None:
    """RFC 9651, 3.3.1, not below 0; None for what is none."""
    match = _INTEGER.fullmatch(text)
    return int(match[1]) if match else None

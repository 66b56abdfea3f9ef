"""tus 1.0: what a request asks for and what an answer says, as values (https://tus.io/protocols/resumable-upload).

Rules:
- Pure: headers (names in lower case) in, values out; no request, no clock, no store.
- Every refusal is a row of ``REFUSALS``, and every number is written plainly: "+1", "1_0" and " 1" are none.
- Metadata is what a stranger says: it is kept as it came, sent back as it came, and a file's name is only what
  ``file_names.plain`` leaves of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from streaming import file_names
from streaming.digests import CHECKSUMS, from_base64
from streaming.errors import (
    BadRequest,
    ChecksumMismatch,
    Conflict,
    Forbidden,
    Locked,
    PreconditionFailed,
    Problem,
    TooLarge,
    UnsupportedType,
)

VERSION = "1.0.0"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "termination",
    "checksum",
    "expiration",
    "concatenation",
    "concatenation-unfinished",
)
CONTENT_TYPE = "application/offset+octet-stream"
METADATA_BYTES = 8192
PARTS = 1000

REFUSALS: Mapping[str, tuple[type[Problem], str]] = {
    "version": (PreconditionFailed, f"Tus-Resumable must be {VERSION}."),
    "type": (UnsupportedType, f"A piece of an upload must be sent as {CONTENT_TYPE}."),
    "offset": (BadRequest, "Upload-Offset must be a whole number, 0 or greater."),
    "length": (BadRequest, "Upload-Length must be a whole number, 0 or greater."),
    "no-length": (BadRequest, "Either Upload-Length or Upload-Defer-Length: 1 must say how long the upload is."),
    "defer": (BadRequest, "Upload-Defer-Length must be 1, and comes without Upload-Length."),
    "length-set": (BadRequest, "The length of this upload has been said, and cannot be changed."),
    "length-below": (BadRequest, "Upload-Length is less than what has been received."),
    "too-long": (TooLarge, "The upload is larger than what is taken."),
    "beyond": (TooLarge, "The piece goes beyond the upload's length."),
    "metadata": (BadRequest, "Upload-Metadata must be pairs of a key and a base64 value, with a comma between them."),
    "concat": (BadRequest, "Upload-Concat must be partial, or final; and the URLs of partial uploads."),
    "no-part": (BadRequest, "Upload-Concat names an upload that is no partial upload of this server."),
    "final-length": (BadRequest, "The length of a final upload is that of its parts: Upload-Length cannot be given."),
    "final-body": (BadRequest, "A final upload is made of its parts, and takes no body."),
    "final": (Forbidden, "A final upload is made of its parts, and nothing can be added."),
    "mismatch": (Conflict, "Upload-Offset is not the upload's offset."),
    "locked": (Locked, "Another request is working on this upload."),
    "algorithm": (BadRequest, f"Upload-Checksum must be one of {', '.join(CHECKSUMS)}, and a base64 checksum."),
    "checksum": (ChecksumMismatch, "The piece has another checksum than Upload-Checksum says; it was not kept."),
}

_WHOLE = re.compile("[0-9]{1,18}")
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,256}")  # visible ASCII but the comma


def refusal(name: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the refusal of that name, to be raised."""
    kind, sentence = REFUSALS[name]
    own = {"Tus-Version": VERSION} if name == "version" else {}
    return kind(sentence, headers={**own, **(headers or {})})


@dataclass(frozen=True, slots=True)
class Creation:
    """``length``: None where it is deferred or that of the parts. ``concat``: the header as it came.

    ``parts``: the ids of a final upload's parts, in order, one perhaps often; () for every other upload.
    """

    length: int | None
    metadata: str
    name: str
    concat: str = ""
    parts: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        return self.concat == "partial"


@dataclass(frozen=True, slots=True)
class Append:
    """``length``: what a deferred length turns out to be. ``checksum``: algorithm and digest, of this piece alone."""

    offset: int
    length: int | None = None
    checksum: Mapping[str, bytes] | None = None


def check_version(headers: Mapping[str, str]) -> None:
    if headers.get("tus-resumable") != VERSION:
        raise refusal("version")


def creation(headers: Mapping[str, str], most: int, prefix: str, has_body: bool) -> Creation:
    """Return what a POST asks for; ``prefix`` is the path below which the URLs of uploads lie.

    Raises Problem; with TooLarge for a length above ``most``.
    """
    metadata = headers.get("upload-metadata", "")
    name = file_name(parse_metadata(metadata))
    if has_body and headers.get("content-type") != CONTENT_TYPE:
        raise refusal("type")
    concat = headers.get("upload-concat", "")
    if concat and concat != "partial":
        if "upload-length" in headers or "upload-defer-length" in headers:
            raise refusal("final-length")
        if has_body:
            raise refusal("final-body")
        return Creation(None, metadata, name, concat, part_ids(concat, prefix))
    length = _number(headers, "upload-length", "length")
    deferred = headers.get("upload-defer-length")
    if deferred is not None and (deferred != "1" or length is not None):
        raise refusal("defer")
    if deferred is None and length is None:
        raise refusal("no-length")
    if length is not None and length > most:
        raise refusal("too-long")
    return Creation(length, metadata, name, concat)


def append(headers: Mapping[str, str]) -> Append:
    """Return what a PATCH asks for. Raises Problem."""
    if headers.get("content-type") != CONTENT_TYPE:
        raise refusal("type")
    offset = _number(headers, "upload-offset", "offset")
    if offset is None:
        raise refusal("offset")
    return Append(offset, _number(headers, "upload-length", "length"), checksum(headers))


def checksum(headers: Mapping[str, str]) -> dict[str, bytes] | None:
    """Return what ``Upload-Checksum`` announces, None without it. Raises BadRequest."""
    text = headers.get("upload-checksum")
    if text is None:
        return None
    name, _, value = text.partition(" ")
    if name not in CHECKSUMS or not value:
        raise refusal("algorithm")
    return {name: from_base64(value, "Upload-Checksum")}


def parse_metadata(text: str) -> dict[str, bytes]:
    """Return the pairs of ``Upload-Metadata``. Raises BadRequest: keys are unique ASCII, values base64 or nothing."""
    pairs: dict[str, bytes] = {}
    if len(text) > METADATA_BYTES:
        raise refusal("metadata")
    for pair in text.split(",") if text else ():
        key, _, value = pair.strip(" ").partition(" ")
        if not _KEY.fullmatch(key) or key in pairs:
            raise refusal("metadata")
        pairs[key] = from_base64(value, "Upload-Metadata")
    return pairs


def file_name(metadata: Mapping[str, bytes]) -> str:
    """Return the plain name that the metadata has (``filename``; ``name`` of older clients), or ""."""
    value = metadata.get("filename") or metadata.get("name") or b""
    return file_names.plain(value.decode("utf-8", "replace"))


def part_ids(concat: str, prefix: str) -> tuple[str, ...]:
    """Return the ids in ``final;<URL> <URL>``, absolute or not. Raises BadRequest."""
    kind, _, urls = concat.partition(";")
    parts = urls.split()
    if kind.strip() != "final" or not 0 < len(parts) <= PARTS:
        raise refusal("concat")
    ids = []
    for url in parts:
        path = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*", "", url).partition("?")[0]
        before, _, id = path.rpartition("/")
        # A proxy may serve us below a path of its own; so the end of what stands before is looked at.
        if before and not f"/{before}/".endswith(prefix):
            raise refusal("no-part")
        ids.append(id)
    return tuple(ids)


def options(most: int) -> dict[str, str]:
    """Return the headers of an answer to OPTIONS."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": ",".join(EXTENSIONS),
        "Tus-Max-Size": str(most),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
    }


def expires(at: float) -> dict[str, str]:
    """``at``: seconds since 1970 (RFC 9110, 5.6.7)."""
    return {"Upload-Expires": format_datetime(datetime.fromtimestamp(int(at), UTC), usegmt=True)}


def _number(headers: Mapping[str, str], name: str, wrong: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text):
        raise refusal(wrong)
    return int(text)

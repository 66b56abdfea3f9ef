"""What a request of the Durable Streams protocol asks for: path, headers, offset and body (docs/protocols.md).

Rules:
- Text in, values out: no request, no clock, no log. Section numbers are those of the protocol's text.
- An offset is the log's own; only the beginning, which the log writes as "", needs a name here (``ZERO``).
- What cannot be is a 400 that names the header or the parameter; a ``Stream-Closed`` that is not "true" says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import unquote_to_bytes

import msgspec
from werkzeug.datastructures import Headers

from stores.base import BEGINNING, START, Config, Producer
from streaming.errors import BadRequest, Forbidden, NotFound, TooLarge
from streaming.events import Event

PREFIX = "/v1/stream/"
PATH_BYTES = 512
# Kept and read here as any other stream; what happens in them is the server's own doing.
INTERNAL = ("notifications/", "uploads/", "runs/", "chats/", "exports/")
# A fork would hold on to what is to be dropped here.
UNFORKED = ("notifications/", "uploads/")
# What is no stream for anybody outside: who works on what (streaming/leases.py, streaming/claims.py), what of chats is
# not theirs, and what workers report.
HIDDEN = ("leases/", "held/", "claims/", "slots/", "chat-index/", "chat-control/", "activity/", "kept/")
RESERVED = "__ds"

JSON = "application/json"
OCTETS = "application/octet-stream"
MESSAGES = 100_000

# The tail of an empty stream. It sorts before every offset, and is what clients know from the reference server.
ZERO = "0000000000000000_0000000000000000"
NOW = "now"

_JSON_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_JSON_VALUE = msgspec.json.Decoder(msgspec.Raw)
_MOST = 2**53 - 1
_WHOLE = re.compile("0|[1-9][0-9]{0,15}")
_OFFSET = re.compile("[A-Za-z0-9_-]{1,128}")
_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\t\x20-\x7e]*)?")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def stream_path(raw: bytes) -> str:
    """Return the stream's path from the decoded bytes of the URL after ``PREFIX``. Raises BadRequest, NotFound."""
    try:
        path = raw.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("A stream's path must be UTF-8.") from error
    segments = path.split("/")
    if segments[0] == RESERVED:
        raise NotFound(f"Paths that begin with {RESERVED}/ are reserved, and nothing is served there.")
    if path.startswith(HIDDEN):
        raise NotFound("There is no stream at this path.")
    if len(raw) > PATH_BYTES or not {"", ".", ".."}.isdisjoint(segments) or _CONTROL.search(path):
        raise BadRequest(
            f"A stream's path has 1 to {PATH_BYTES} bytes, no control characters, and no segment that is empty, "
            "'.' or '..'."
        )
    return path


def of_clients(path: str) -> str:
    """Return ``path``, which clients may write to. Raises Forbidden."""
    if path.startswith(INTERNAL):
        raise Forbidden("This stream is the server's own: it can be read, and nothing else.")
    return path


def media_type(content_type: str) -> str:
    """Return the type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def content_type(headers: Headers) -> str:
    """Return the Content-Type as it came, "" without one. Raises BadRequest."""
    text = headers.get("Content-Type", "").strip()
    if text and (len(text) > 255 or not _TYPE.fullmatch(text)):
        raise BadRequest("Content-Type is not a media type.", parameter="Content-Type")
    return text


def closing(headers: Headers) -> bool:
    """Whether ``Stream-Closed`` is "true", in any case; any other value is as if there were none (4.1)."""
    return headers.get("Stream-Closed", "").strip().lower() == "true"


def creation(headers: Headers) -> Config:
    """Return what a PUT asks for (5.1); of a fork (4.2) the content type may be "". Raises BadRequest, NotFound."""
    kept = Config(content_type(headers), _ttl_s(headers), _expires_at(headers))
    if kept.ttl_s is not None and kept.expires_at is not None:
        raise BadRequest("Stream-TTL and Stream-Expires-At cannot both be given.", parameter="Stream-TTL")
    source = headers.get("Stream-Forked-From")
    if source is None:
        if given := [name for name in ("Stream-Fork-Offset", "Stream-Fork-Sub-Offset") if name in headers]:
            raise BadRequest(f"{given[0]} needs Stream-Forked-From.", parameter=given[0])
        return replace(kept, content_type=kept.content_type or OCTETS)
    offset = headers.get("Stream-Fork-Offset", NOW)
    return replace(
        kept,
        forked_from=_source(source),
        fork_offset={NOW: START, BEGINNING: BEGINNING, ZERO: BEGINNING}.get(offset, offset),
        fork_sub_offset=_whole(headers, "Stream-Fork-Sub-Offset") or 0,
    )


def _source(header: str) -> str:
    """The header is the path of a URL (4.2), percent-encoded or not."""
    if not header.startswith(PREFIX):
        raise NotFound(f"Stream-Forked-From must be the path of a stream of this server, below {PREFIX}.")
    path = stream_path(unquote_to_bytes(header.removeprefix(PREFIX).encode("latin-1")))
    if path.startswith(UNFORKED):
        raise Forbidden("This stream is the server's own, and cannot be forked.")
    return path


def _ttl_s(headers: Headers) -> int | None:
    return _whole(headers, "Stream-TTL")


def _expires_at(headers: Headers) -> float | None:
    text = headers.get("Stream-Expires-At")
    if text is None:
        return None
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest("Stream-Expires-At must be a time of RFC 3339.", parameter="Stream-Expires-At") from None


def _whole(headers: Headers, name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or int(text) > _MOST:
        raise BadRequest(f"{name} must be a whole number from 0 to {_MOST}, written plainly.", parameter=name)
    return int(text)


def producer(headers: Headers) -> Producer | None:
    """Return the idempotent producer of an append, None without one (5.2.1). Raises BadRequest."""
    names = ("Producer-Id", "Producer-Epoch", "Producer-Seq")
    if not any(name in headers for name in names):
        return None
    for name in names:
        if not headers.get(name, ""):
            raise BadRequest(f"{name} is missing: the three Producer headers come together.", parameter=name)
    epoch, seq = _whole(headers, "Producer-Epoch"), _whole(headers, "Producer-Seq")
    return Producer(headers["Producer-Id"], epoch or 0, seq or 0)


def events(body: bytes, content_type: str) -> list[Event]:
    """Return what a body adds to a stream: itself, or the messages of a JSON body, byte for byte as sent (9.1).

    Raises BadRequest for what is no JSON, TooLarge for more than ``MESSAGES`` messages.
    """
    if not body:
        return []
    if media_type(content_type) != JSON:
        return [Event(body)]
    try:
        body.decode()  # msgspec does not look at the encoding of what it leaves raw
        is_array = body.lstrip(b" \t\r\n")[:1] == b"["
        messages = _JSON_ARRAY.decode(body) if is_array else [_JSON_VALUE.decode(body)]
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if len(messages) > MESSAGES:
        raise TooLarge(f"The body has {len(messages)} messages, and at most {MESSAGES} are taken.")
    return [Event(bytes(message)) for message in messages]


def appending(body: bytes, content_type: str, close: bool) -> list[Event]:
    """Return what an append adds; nothing only where it closes (5.2, 9.1.3). Raises as ``events``."""
    if not body and not close:
        raise BadRequest("There is nothing to append: only Stream-Closed: true may come without a body.")
    if body and not content_type:
        raise BadRequest("An append needs the stream's Content-Type.", parameter="Content-Type")
    added = events(body, content_type)
    if body and not added:
        raise BadRequest("An empty array appends nothing.")
    return added


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader wants to begin: after ``offset``; ``now``: at the tail; ``whole``: with whatever is kept."""

    offset: str = START
    now: bool = False
    whole: bool = False


def place(offset: str | None) -> Place:
    """Return what the parameter ``offset`` says (8): None and "-1" are the beginning. Raises BadRequest."""
    if offset in (None, BEGINNING):
        return Place(whole=True)
    if offset == NOW:
        return Place(now=True)
    if offset is None or not _OFFSET.fullmatch(offset):
        raise BadRequest("offset must be one that this server gave out, -1 or now.", parameter="offset")
    return Place(START if offset == ZERO else offset)

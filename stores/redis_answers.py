"""What the scripts of the Redis log are asked, and what they answer, in the terms of ``stores.base``.

Rules:
- A script answers a list whose first item is a word: ``ok``, or what is refused.
- With ``ok`` follow the earlier lives of the stream (``upto=life,`` each), the one it has now, and the tail's number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from stores import offsets
from stores.base import BEGINNING, START, Appended, Config, State
from stores.errors import (
    BadFork,
    KeyReused,
    NewEpoch,
    NoStream,
    SequenceGap,
    SequenceRegression,
    StaleEpoch,
    StoreError,
    StreamClosed,
    StreamExists,
    StreamGone,
    UnknownOffset,
    WrongType,
)
from streaming.events import Event


def asked(config: Config) -> dict[str, Any]:
    """What the scripts are told of a configuration; a field that is not there is None. Raises BadFork."""
    names = ("content_type", "forked_from", "fork_sub_offset", "keep_events", "keep_bytes", "keep_s")
    told: dict[str, Any] = {name: getattr(config, name) for name in names}
    if config.ttl_s is not None:
        told["ttl_s"] = config.ttl_s
    if config.expires_at is not None:
        told["expires_at"] = config.expires_at
    try:
        if config.fork_offset:
            told["fork"] = place(config.fork_offset) if config.fork_offset != BEGINNING else {"number": 0, "life": ""}
    except UnknownOffset as error:
        raise BadFork(str(error)) from error
    return told


def place(offset: str) -> dict[str, Any]:
    """Return an offset's number and life, whatever stream it is of. Raises UnknownOffset when it is none at all."""
    life = offset[-6:]
    return {"number": offsets.to_number(offset, (offsets.Segment(0, life, 0, 10**12),)), "life": life}


def digest(events: Sequence[Event]) -> str:
    """What of ``events`` counts when a retry is compared; the ids are replaced anyway."""
    content = hashlib.sha256()
    for event in events:
        content.update(f"{len(event.type.encode())},{len(event.data)},{event.type},".encode())
        content.update(event.data)
    return content.hexdigest()


def chain(answer: Sequence[Any]) -> list[offsets.Segment]:
    """Return whose offsets the numbers up to the tail are, from an answer's second to fourth item."""
    segments, after = [], 0
    for pair in filter(None, answer[1].decode().split(",")):
        upto, _, life = pair.partition("=")
        segments.append(offsets.Segment(0, life, after, int(upto)))
        after = int(upto)
    return [*segments, offsets.Segment(0, answer[2].decode(), after, answer[3])]


def state(answer: Sequence[Any]) -> State:
    closed, total, created = answer[4:7]
    segments = chain(answer)
    content_type, ttl_s, expires_at, forked_from, number, sub_offset, keep_events, keep_bytes, keep_s = answer[7:]
    config = Config(
        content_type.decode(),
        int(ttl_s) if ttl_s != b"" else None,
        float(expires_at) if expires_at else None,
        forked_from.decode(),
        (offsets.of_number(number, segments) or BEGINNING) if forked_from else START,
        sub_offset,
        keep_events,
        keep_bytes,
        float(keep_s),
    )
    return State(config, offsets.of_number(answer[3], segments), bool(closed), total, bool(created))


def appended(answer: Sequence[Any]) -> Appended:
    closed, number, duplicate, seq = answer[4:8]
    segments = chain(answer)
    offset, tail = offsets.of_number(number, segments), offsets.of_number(answer[3], segments)
    return Appended(offset, tail, bool(duplicate), bool(closed), int(seq) if seq else None)


def checked(answer: list[Any], asked: Mapping[str, Any] | None = None) -> list[Any]:
    """Return an answer that is none of the refusals that the scripts know; raise what it is."""
    kind = answer[0].decode()
    if kind == "ok":
        return answer
    if kind == "closed":
        raise StreamClosed(offsets.of_number(answer[3], chain(answer)))
    if kind == "stale":
        raise StaleEpoch(int(answer[1]))
    if kind == "gap":
        raise SequenceGap(int(answer[1]), asked["producer"]["seq"] if asked else 0)
    if kind == "type":
        raise WrongType(f"The stream's content type is {answer[1].decode()}.")
    error, sentence = _REFUSALS[kind]
    raise error(sentence)


_REFUSALS: Mapping[str, tuple[type[StoreError], str]] = {
    "none": (NoStream, "There is no stream at this path."),
    "nosource": (NoStream, "There is no stream to fork at this path."),
    "gone": (StreamGone, "This stream was deleted."),
    "deleted": (StreamExists, "The stream was deleted, and forks still read from it."),
    "lost": (StoreError, "The log's Redis has lost events of this stream."),
    "exists": (StreamExists, "The stream exists with another configuration."),
    "fork": (BadFork, "The fork's place is none of its source's."),
    "epoch": (NewEpoch, "A producer's new epoch begins with sequence number 0."),
    "regression": (SequenceRegression, "The sequence is not greater than the last one."),
    "key": (KeyReused, "This idempotency key came before with another body."),
}

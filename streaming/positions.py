"""Where a reader of topics stands, as a text: its cursor; and the times from which a reader may ask.

Rules:
- The cursor of one topic is an offset of its log. That of several is ``topic:offset,topic:offset``, sorted by topic;
  an offset may be empty there: before the first event. In an event's id its own topic has ``=`` for the colon, since
  an EventSource could not tell otherwise where it is from.
- A cursor comes from anywhere: reading one never fails, and says which part of it could not be one.
- A cursor whose end is ``COMPLETE`` says that all there was has been read, and the stream was ended for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

COMPLETE = ".complete"
# A browser takes an empty id for none at all, so the beginning has a name where a stream completes there.
_BEGINNING = "start"
# Some digits, and what makes them unique: so much all stores have in common, and no word of a mistaken client has it.
_OFFSET = re.compile("[0-9]{1,40}-[A-Za-z0-9_-]{1,80}")
_PART = re.compile("([A-Za-z0-9._-]{1,64})[:=]((?:[0-9]{1,40}-[A-Za-z0-9_-]{1,80})?)")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd])")
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ].*)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(slots=True)
class Cursor:
    """A cursor that was read: ``offsets`` of the topics it speaks of, and its ``unknown`` parts as they came."""

    offsets: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    complete: bool = False


def write(offsets: Mapping[str, str], topic: str = "") -> str:
    """Return the cursor from which every topic continues after its offset; ``topic`` is the event's own."""
    if len(offsets) == 1:
        return next(iter(offsets.values()))
    return ",".join(f"{name}{'=' if name == topic else ':'}{offset}" for name, offset in sorted(offsets.items()))


def write_complete(offsets: Mapping[str, str]) -> str:
    return (write(offsets) or _BEGINNING) + COMPLETE


def read(text: str, topics: Sequence[str]) -> Cursor:
    """Return what ``text`` says of ``topics`` (and of others); a topic that it does not speak of has no offset."""
    cursor = Cursor(complete=text.endswith(COMPLETE))
    text = text.removesuffix(COMPLETE) if cursor.complete else text
    if not text or (cursor.complete and text == _BEGINNING):
        cursor.offsets = dict.fromkeys(topics, "")
    elif len(topics) == 1 and ":" not in text:
        _take(cursor, text, topics[0] if _OFFSET.fullmatch(text) else "", text)
    else:
        for part in text.split(","):
            match = _PART.fullmatch(part)
            _take(cursor, part, match[1] if match else "", match[2] if match else "")
    return cursor


def _take(cursor: Cursor, part: str, topic: str, offset: str) -> None:
    if not topic or topic in cursor.offsets:
        cursor.unknown.append(part)
    else:
        cursor.offsets[topic] = offset


def moment(text: str, now_s: float) -> float | None:
    """Return the time (seconds since 1970) that ``text`` names: a duration before ``now_s``, or a date (ISO 8601).

    A date without an offset is UTC. None: it is neither, and may be an id. Raises ValueError: a date that is none.
    """
    if match := _DURATION.fullmatch(text):
        return now_s - float(match[1]) * _SECONDS[match[2]]
    if not _DATE.fullmatch(text):
        return None
    date = datetime.fromisoformat(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()

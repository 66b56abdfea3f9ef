"""How long a stream and its events live, and what a fork begins with: decisions that every store takes alike.

Rules:
- Pure: a store hands in its clock's time and how to look up one event; nothing here reads more than a few of them.
- An event's time never goes back within a stream, whatever the clock does, so times can be searched like numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from stores.base import Config
from stores.errors import BadFork, WrongType
from stores.producers import media_type
from streaming.events import Event

JSON = "application/json"


class Place(NamedTuple):
    """Where an event lies: when it was appended (seconds since 1970), and how many bytes the events before it have."""

    time_s: float
    start: int


def expires(config: Config, touched: float) -> float | None:
    """Return when a stream that was last read or written at ``touched`` expires; None: never."""
    times = [touched + config.ttl_s] if config.ttl_s is not None else []
    times += [config.expires_at] if config.expires_at is not None else []
    return min(times, default=None)


def same(asked: Config, made: Config) -> bool:
    """Whether two configurations are the same but for the retention, and the writing of the type."""
    return _identity(asked) == _identity(made)


def _identity(config: Config) -> Config:
    return replace(config, content_type=media_type(config.content_type), keep_events=0, keep_bytes=0, keep_s=0)


def retaining(made: Config, asked: Config) -> Config:
    """Return ``made`` with the retention of ``asked``."""
    return replace(made, keep_events=asked.keep_events, keep_bytes=asked.keep_bytes, keep_s=asked.keep_s)


def forked(asked: Config, source: Config, offset: str) -> Config:
    """Return what a fork at ``offset`` of ``source`` is made with (the protocol's table, 4.2). Raises WrongType."""
    if asked.content_type and media_type(asked.content_type) != media_type(source.content_type):
        raise WrongType(f"The source's content type is {source.content_type}.")
    own = asked.ttl_s is not None or asked.expires_at is not None
    return replace(
        asked,
        content_type=asked.content_type or source.content_type,
        ttl_s=asked.ttl_s if own else source.ttl_s,
        expires_at=asked.expires_at if own else source.expires_at,
        fork_offset=offset,
    )


def inherited(config: Config, number: int, tail: int, event: Callable[[int], Event | None]) -> tuple[int, Event | None]:
    """Return the number of the last event that a fork shares with its source, and the part it takes of the next one.

    ``number``: that of the fork offset; ``tail``: the source's. Raises BadFork.
    """
    more = config.fork_sub_offset
    if media_type(config.content_type) == JSON and number + more <= tail:
        return number + more, None
    if not more:
        return number, None
    following = event(number + 1) if number < tail and media_type(config.content_type) != JSON else None
    if following is None or more > len(following.data):
        raise BadFork("The sub-offset is past the end of what follows the fork offset.")
    if more == len(following.data):
        return number + 1, None
    return number, Event(following.data[:more], following.type)


def first_kept(config: Config, now: float, first: int, tail: int, end: int, place: Callable[[int], Place]) -> int:
    """Return the number of the first event that retention keeps of those from ``first`` to ``tail``.

    ``end``: how many bytes there are up to the tail. Beyond the tail: none is kept.
    """
    if config.keep_events:
        first = max(first, tail - config.keep_events + 1)
    if config.keep_bytes and first < tail:
        first = search(first, tail - 1, lambda number: end - place(number).start <= config.keep_bytes)
    if config.keep_s and first <= tail:
        first = search(first, tail, lambda number: place(number).time_s >= now - config.keep_s)
    return first


def search(first: int, last: int, holds: Callable[[int], bool]) -> int:
    """Return the first number for which ``holds``, which does so from there on; ``last`` + 1 when for none.

    Quick when it is near ``first``, where retention looks; otherwise some twice log2 of the distance.
    """
    low, step = first, 1
    while low <= last and not holds(min(low + step - 1, last)):
        low, step = low + step, step * 2
    high = min(low + step - 1, last + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return min(low, last + 1)

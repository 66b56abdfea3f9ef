"""What an answer of the Durable Streams protocol says of its stream: offsets, ends, entity tags, caching, cursors.

Rules:
- Values in, headers out: no response, no log; the time is handed in. Section numbers are those of the protocol's text.
- An answer that is empty ends at the tail: there was nothing before it to read.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime

from stores.base import Appended, Batch, Config, Producer, State
from streaming.durable import ZERO, Place

# 10.1: cursors count intervals since then; one that a client has already is passed by up to an hour.
INTERVAL_S = 20
_EPOCH_S = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
_JITTER_S = 3600

FRESH_S = 60


def named(offset: str) -> str:
    """Return the log's offset as clients know it."""
    return offset or ZERO


def cursor(now_s: float, asked: str = "") -> str:
    """Return the cursor of a live answer at ``now_s`` (since 1970), always past the one ``asked`` with (10.1)."""
    interval = int((now_s - _EPOCH_S) // INTERVAL_S)
    if re.fullmatch("[0-9]{1,15}", asked) and int(asked) >= interval:
        return str(int(asked) + max(1, random.randint(1, _JITTER_S) // INTERVAL_S))
    return str(interval)


def etag(first: str, last: str, closed: bool) -> str:
    """Return the entity tag of what was read from ``first`` to ``last``; it changes when the end is known (10.1)."""
    return f'"{named(first)}:{named(last)}{":c" if closed else ""}"'


def caching(config: Config, settled: bool, now_s: float) -> str:
    """Return the Cache-Control of what was read (10.1): ``settled`` is what will be read there again, byte for byte.

    Private, since nobody has said that a stream is for everybody. A shared end that is kept for a minute would hide
    from a writer what it has just written: it is asked for again, and costs a 304.
    """
    if not settled:
        return "private, no-cache"
    left_s = FRESH_S if config.ttl_s is None else config.ttl_s
    left_s = left_s if config.expires_at is None else int(config.expires_at - now_s)
    stale = ", stale-while-revalidate=300" if left_s >= FRESH_S else ""
    return f"private, max-age={max(0, min(FRESH_S, left_s))}{stale}"


def lifetime(config: Config) -> dict[str, str]:
    """Return the headers that say when a stream expires (5.5)."""
    headers = {} if config.ttl_s is None else {"Stream-TTL": str(config.ttl_s)}
    if config.expires_at is not None:
        time = datetime.fromtimestamp(config.expires_at, UTC)
        headers["Stream-Expires-At"] = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return headers


def standing(state: State) -> dict[str, str]:
    """Return the headers that say how a stream stands (5.1, 5.5)."""
    return marks(state.tail, closed=state.closed) | lifetime(state.config)


def appended(result: Appended, producer: Producer | None) -> dict[str, str]:
    """Return the headers that say what an append did (5.2)."""
    headers = marks(result.tail, closed=result.closed)
    if producer is not None:
        headers |= {"Producer-Epoch": str(producer.epoch), "Producer-Seq": str(result.seq)}
    return headers


def caught_up(batch: Batch, place: Place, config: Config, now_s: float) -> dict[str, str]:
    """Return the headers of what was read at once (5.6); with ``offset=now`` it is nobody else's (8)."""
    headers, tag = _of_batch(batch)
    if place.now:
        return headers | {"Cache-Control": "no-store"}
    settled = bool(batch.events) and (batch.closed or "Stream-Up-To-Date" not in headers)
    return headers | {"Cache-Control": caching(config, settled, now_s), "ETag": tag}


def polled(batch: Batch, place: Place, config: Config, now_s: float, asked: str) -> dict[str, str]:
    """Return the headers of what was waited for (5.7); ``asked``: the cursor that the client came with."""
    headers, tag = _of_batch(batch)
    headers["Stream-Cursor"] = cursor(now_s, asked)
    if not batch.events or place.now:
        return headers | {"Cache-Control": "no-store"}
    # Its end is no lie when it is read again: the client goes on from there, with another cursor.
    return headers | {"Cache-Control": caching(config, True, now_s), "ETag": tag}


def _of_batch(batch: Batch) -> tuple[dict[str, str], str]:
    first = batch.events[0].id if batch.events else batch.tail
    last = batch.events[-1].id if batch.events else batch.tail
    at_tail = last == batch.tail
    headers = marks(last, up_to_date=at_tail, closed=at_tail and batch.closed)
    if batch.missed:  # asked for from the beginning, which is not kept (docs/protocols.md)
        headers["Stream-Missed"] = str(batch.missed)
    return headers, etag(first, last, at_tail and batch.closed)


def marks(tail: str, *, up_to_date: bool = False, closed: bool = False) -> dict[str, str]:
    """Return the headers that say where an answer ends, and whether that is all there is, or will ever be (5.6)."""
    headers = {"Stream-Next-Offset": named(tail)}
    if up_to_date:
        headers["Stream-Up-To-Date"] = "true"
    if closed:
        headers["Stream-Closed"] = "true"
    return headers

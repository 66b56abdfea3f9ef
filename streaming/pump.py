"""The pump: the events of a source become what a client reads, and an end that says what became of them.

Rules:
- It is the only place that writes to a client, and ``fanout`` on its behalf to those that have caught up.
- Headers leave at once, and so does the first item; what is ready together is written together, in blocks of about
  64 KiB; ``None`` from the source means that what there is must leave now.
- The end of a response is clean only when its source has come to its end, or the client continues by itself.

Who wins the race (tests/test_races.py has a test for each row):

    source ends       the source returned                 clean end
    source raises     -                                   in-band error where the format has one, or a cut
    client goes       close(), within a second            -
    worker drains     close(), where the framing drains   clean end with a jittered retry; the rest ends by itself
    token expires     close()                             EventSource: the same; in-band error or a cut of the rest
    client too slow   blocked at the socket               cut after SEND_TIMEOUT_S without progress
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from stores.errors import StoreError
from streaming import wire
from streaming.accounts import Account
from streaming.begun import Begun
from streaming.errors import EXPIRED, Problem, StreamFailed, public
from streaming.events import Event, Source
from streaming.fanout import park
from streaming.framings import Framing
from streaming.pace import Pace
from streaming.parked import Parked
from streaming.readers import Follow
from streaming.sources import close, is_parkable

log = logging.getLogger("perennial.stream")

BLOCK_BYTES = 64 * 1024


def pump(
    source: Source,
    framing: Framing,
    environ: Mapping[str, Any],
    heartbeat_s: float,
    cut_after_error: bool = False,
    account: Account | None = None,
) -> Iterator[bytes | Parked]:
    """Yield what is written to the client; see the rules above. In between, whom ``Body`` is to wait for."""
    out = bytearray()
    account = account or Account("", environ, source)
    # A heartbeat's cursor is after the last event that was encoded: not before that has been written.
    link = wire.Link(environ, lambda: None if out else framing.idle(), drainable=framing.drain is not None)
    try:
        yield from _frames(source, framing, link, heartbeat_s, out, account)
        account.how = "complete"
    except wire.Interrupted:
        yield from _interrupted(framing, link, cut_after_error, account, _name(environ))
    except GeneratorExit:
        account.how = "slow" if link.slow else "left"
        log.info("%s: the client left", _name(environ))
        raise
    except Exception as error:
        told = isinstance(error, StreamFailed | Problem | StoreError)
        account.how = "failed" if framing.error is None or cut_after_error else "told"
        level = logging.WARNING if told else logging.ERROR
        log.log(level, "%s: failed: %s", _name(environ), error, exc_info=not told)
        yield from _failed(framing, link, error, cut_after_error)
    finally:
        # Not in an outer ``closing``: the source must be closed before the connection is no longer watched.
        close(source)
        link.close()
        account.bytes += link.beside
        account.events += link.events + link.beside_events


def _interrupted(
    framing: Framing, link: wire.Link, cut_after_error: bool, account: Account, name: str
) -> Iterator[bytes]:
    """End what nobody reads any more, what is handed over, or whose token has expired."""
    account.how = "left"
    if link.gone or (framing.drain is None and not link.expired):
        log.info("%s: the client left", name)
        raise BrokenPipeError(32, "the client left") from None
    log.info("%s: %s", name, EXPIRED if link.expired else "handed over, the worker drains")
    account.how = "expired" if link.expired else "drained"
    # An EventSource comes back whatever it is told, and hears only then that its token has expired.
    returns = framing.error is None or framing.content_type.startswith("text/event-stream")
    if framing.drain is not None and (returns or not link.expired):
        yield framing.drain()
    else:
        yield from _failed(framing, link, StreamFailed(EXPIRED), cut_after_error)


def _failed(framing: Framing, link: wire.Link, error: Exception, cut_after_error: bool) -> Iterator[bytes]:
    """End as what it is: told in-band where the format has a word for it, cut where it has none."""
    if framing.error is not None:
        yield framing.error(public(error))
    if framing.error is None or cut_after_error:
        link.cut()
        raise BrokenPipeError(32, "the stream was cut") from error


def _name(environ: Mapping[str, Any]) -> str:
    """The stream's, for the log. Quoted: a line end in a path would write lines of its own into it (CWE-117)."""
    return f"{environ.get('REQUEST_METHOD', '')} {quote(environ.get('PATH_INFO', ''), encoding='latin-1')}"


def _ready(source: Source) -> int:
    """Return how many of the source's events are there before it is asked: the headers leave with them."""
    if isinstance(source, Begun):
        return source.together
    return int(isinstance(source, Follow) and source.greets)


def _frames(
    source: Source, framing: Framing, link: wire.Link, heartbeat_s: float, out: bytearray, account: Account
) -> Iterator[bytes | Parked]:
    out += framing.open()
    ready = _ready(source)
    if not ready:
        yield bytes(out)
        out.clear()
    limit = BLOCK_BYTES if ready > 1 else 0  # the first item leaves at once
    wrote_at = time.monotonic()
    pace = Pace()
    try:
        while (item := link.pull(source)) is not wire.END:
            block = b""
            if isinstance(item, Event):
                frame = framing.encode(item)
                link.events += 1
                if out or len(frame) <= limit:
                    out += frame
                    if len(out) <= limit:
                        continue
                else:
                    block = frame  # as it is: to collect it would copy it twice
            now = time.monotonic()
            if out or block or ready:
                yield block or bytes(out)
                out.clear()
                ready = 0
                limit, wrote_at = BLOCK_BYTES, now
            elif now - wrote_at >= heartbeat_s:
                yield framing.idle()
                wrote_at = now
            if item is None and is_parkable(source):
                wrote_at = source.park(link, framing, heartbeat_s) or wrote_at
            if isinstance(source, Follow) and source.caught_up:
                parked = park(link, source, framing, heartbeat_s)
                if parked is not None:
                    yield parked
                    wrote_at = time.monotonic()
            pace.rest()
    except (wire.Interrupted, Exception):
        # What came before belongs to the client; and the cursor that SSE says at a drain has moved past it.
        if out and not link.gone:
            yield bytes(out)
        raise
    yield bytes(out) + framing.close()

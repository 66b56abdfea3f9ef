"""How a source becomes a response: ``respond(source, framing)``, and the pump behind it.

Rules:
- The pump is the only place that writes to a client, and ``fanout`` on its behalf to those that have caught up.
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

from flask import Response, current_app, request, stream_with_context

from stores.base import START
from streaming import callers, wire
from streaming.accounts import Account
from streaming.errors import EXPIRED, Problem, StreamFailed, Unavailable, public
from streaming.events import Event, Source
from streaming.fanout import park
from streaming.framings import Framing
from streaming.links import links
from streaming.pace import Pace
from streaming.parked import Parked
from streaming.readers import Follow
from streaming.runs import Raw, Run, RunLimits
from streaming.shares import Leave, Shares, nothing
from streaming.sources import close, is_parkable

log = logging.getLogger("perennial.stream")

BLOCK_BYTES = 64 * 1024

STREAM_HEADERS = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


def respond(
    source: Source,
    framing: Framing,
    *,
    headers: Mapping[str, str] | None = None,
    cut_after_error: bool = False,
    durable: bool = False,
) -> Response:
    """Return the response that streams ``source`` in ``framing``; the source is closed when the response is.

    ``cut_after_error``: after an in-band error, cut the connection too: for downloads, whose readers look at the end.
    ``durable``: run it into a log instead, under the URL in Location, and let the response be a reader of that.
    Raises Unavailable when the worker has MAX_STREAMS open, or drains and the stream would be ended at once;
    TooManyRequests when its caller has CALLER_STREAMS.
    """
    settings = current_app.extensions["settings"]
    if len(links) >= settings.MAX_STREAMS:
        close(source)
        raise Unavailable("The server has as many open streams as it takes; try again later.", retry_after_s=5)
    shares: Shares = current_app.extensions["streams"]
    if shares.bounded and request.method != "HEAD":
        try:
            leave = shares.enter(callers.key())
        except Problem:
            close(source)
            raise
        try:
            return _respond(source, framing, headers, cut_after_error, durable, leave)
        except BaseException:
            leave()
            raise
    return _respond(source, framing, headers, cut_after_error, durable, nothing)


def _respond(
    source: Source,
    framing: Framing,
    headers: Mapping[str, str] | None,
    cut_after_error: bool,
    durable: bool,
    leave: Leave,
) -> Response:
    settings = current_app.extensions["settings"]
    if links.draining and framing.drain is not None:
        close(source)
        raise Unavailable("The server is being restarted; try again.", retry_after_s=1)
    if durable and request.method != "HEAD":
        run = _run(source, framing, cut_after_error)
        source, framing = Follow(current_app.extensions["log"], run.path, START), Raw(framing)
        headers = {**(headers or {}), "Location": f"/v1/stream/{run.path}"}
    if request.method == "HEAD":
        close(source)
        response = Response(iter(()), content_type=framing.content_type)  # an iterator has no Content-Length
    else:
        account = Account(_kind(), request.environ, source)
        frames: Any = pump(source, framing, request.environ, settings.HEARTBEAT_S, cut_after_error, account)
        body = Body(stream_with_context(frames), source, leave, account)
        # Passed through: Werkzeug's own iterators around it would cost each open stream 3 KiB.
        response = Response(body, content_type=framing.content_type, direct_passthrough=True)
    response.headers.update({**STREAM_HEADERS, **framing.headers, **(headers or {})})
    _forget_what_was_parsed()
    return response


def _run(source: Source, framing: Framing, cut_after_error: bool) -> Run:
    extensions = current_app.extensions
    run = Run(extensions["log"], extensions["lease"], _run_limits(extensions["settings"]), callers.made)
    with extensions["kept"].making(callers.key(), run.path):
        run.start(source, framing, cut_after_error, extensions["runs"].enter(callers.key()))
    return run


def _kind() -> str:
    """The stream's, for what is counted: its route's name."""
    return (request.endpoint or "").rpartition(".")[2].replace("_", "-")


def _forget_what_was_parsed() -> None:
    """The request is kept for as long as its stream; what was made of its text is not, and is made again when asked."""
    cached = request._get_current_object().__dict__  # type: ignore[attr-defined]  # behind a LocalProxy
    for name in ("accept_mimetypes", "args"):
        cached.pop(name, None)


class Body:
    """What a WSGI server iterates over and closes: the writes of a pump.

    A parked connection waits here and not in the generators: 3 KiB less of the stack, for each of thousands.
    """

    __slots__ = ("_account", "_frames", "_leave", "_source")

    def __init__(
        self,
        frames: Iterator[bytes | Parked],
        source: Source,
        leave: Leave = nothing,
        account: Account | None = None,
    ) -> None:
        self._frames: Any = frames
        self._source = source
        self._leave = leave
        self._account = account or Account("", {}, source)

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        item: bytes | Parked = next(self._frames)
        while not isinstance(item, bytes):
            try:
                item.wait()
            except BaseException as error:
                item = self._frames.throw(error)
            else:
                item = next(self._frames)
        account = self._account
        account.bytes += len(item)
        if account.first_s is None and item:
            account.first_byte()
        return item

    def close(self) -> None:
        self._leave()
        self._frames.close()
        # A generator that was never started does not run its ``finally``: the client had gone before the first byte.
        close(self._source)
        self._account.end()


def _run_limits(settings: Any) -> RunLimits:
    return RunLimits(settings.MAX_RUNS, settings.RUN_BYTES, settings.RUN_KEEP_S)


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
        told = isinstance(error, StreamFailed | Problem)
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


def _frames(
    source: Source, framing: Framing, link: wire.Link, heartbeat_s: float, out: bytearray, account: Account
) -> Iterator[bytes | Parked]:
    out += framing.open()
    if not (isinstance(source, Follow) and source.greets):
        yield bytes(out)
        out.clear()
    limit = 0  # the first item leaves at once
    wrote_at = time.monotonic()
    pace = Pace()
    try:
        while (item := link.pull(source)) is not wire.END:
            if isinstance(item, Event):
                out += framing.encode(item)
                link.events += 1
                if len(out) <= limit:
                    continue
            now = time.monotonic()
            if out:
                yield bytes(out)
                out.clear()
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

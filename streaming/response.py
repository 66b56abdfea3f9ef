"""How a source becomes a response: ``respond(source, framing)``.

Rules:
- What is written comes of the pump (``pump``), and of ``fanout`` on its behalf for those that have caught up.
- A place is taken before anything is begun, and given back when the response is closed, whoever closes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Response, current_app, request, stream_with_context

from stores.base import START
from streaming import callers
from streaming.accounts import Account
from streaming.errors import Problem, Unavailable
from streaming.events import Source
from streaming.framings import Framing
from streaming.links import links
from streaming.parked import Parked
from streaming.pump import pump
from streaming.readers import Follow
from streaming.runs import Raw, Run, RunLimits
from streaming.shares import Leave, Shares, nothing
from streaming.sources import close

log = logging.getLogger("perennial.stream")

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

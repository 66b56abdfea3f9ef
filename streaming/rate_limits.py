"""How often a caller may ask, and how many bytes it may send: counted by Flask-Limiter, in memory or in Redis.

Rules:
- In memory each worker counts for itself; in Redis all of them count together.
- Redis that is away lets everybody in: a limit is there for the good of the others, and must not be their harm.
- It comes after the guard: callers are told apart by their tokens. Whoever has none has been refused by then.
- A body of known length is paid for before it is read, another one when it has come.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItemPerHour
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from settings import Settings
from streaming import bodies, callers
from streaming.errors import Problem, TooManyRequests, Unavailable
from streaming.needs import OPEN
from streaming.shares import Shares, fields

log = logging.getLogger("perennial.limits")

P = ParamSpec("P")
T = TypeVar("T")
_STRATEGY = "sliding-window-counter"
_HOUR_S = 3600


def limit(app: Flask, settings: Settings, refuse: Callable[[Problem], Response]) -> None:
    """Hang the limits into the application; nothing where there are none."""
    app.extensions["uploading"] = Uploading(settings)
    if not settings.RATE_LIMIT:
        return

    def too_often(error: RateLimitExceeded) -> Response:
        item = error.limit.limit
        left_s = max(
            1, math.ceil(limiter.limiter.get_window_stats(item, *_identifiers(error)).reset_time - time.time())
        )
        sentence = f"You may ask {item.amount} times in {item.get_expiry()} seconds; try again in {left_s}."
        headers = fields("requests-per-caller", item.amount, left_s, item.get_expiry())
        return refuse(TooManyRequests(sentence, retry_after_s=left_s, headers=headers))

    limiter = Limiter(
        callers.key,
        app=app,
        application_limits=[settings.RATE_LIMIT],
        application_limits_exempt_when=lambda: request.endpoint in OPEN or request.method == "OPTIONS",
        storage_uri=_storage(settings),
        strategy=_STRATEGY,
        swallow_errors=True,
        headers_enabled=False,
        key_prefix="perennial",
    )
    app.register_error_handler(RateLimitExceeded, too_often)


def _identifiers(error: RateLimitExceeded) -> tuple[str, ...]:
    scope = error.limit.scope
    return (error.limit.key_func(), scope if isinstance(scope, str) else "global")


def _storage(settings: Settings) -> str:
    """Return where is counted: where it is said, in the log's Redis, or in memory."""
    if settings.RATE_LIMIT_URL:
        return settings.RATE_LIMIT_URL
    url = settings.streams_url
    return url.partition("?")[0] if url.startswith(("redis:", "rediss:")) else "memory://"


class Uploading:
    """How many uploads there may be at once, and how many bytes in an hour: for each caller, and in all."""

    def __init__(self, settings: Settings) -> None:
        self._shares = Shares("uploads", settings.MAX_UPLOADS, settings.CALLER_UPLOADS)
        self._bounds = [
            (RateLimitItemPerHour(most), each)
            for most, each in ((settings.CALLER_UPLOAD_BYTES, True), (settings.UPLOAD_BYTES, False))
            if most
        ]
        if self._bounds:
            self._window = FixedWindowRateLimiter(storage_from_string(_storage(settings)))

    @contextmanager
    def holding(self, caller: str, length: int | None) -> Iterator[None]:
        """Be an upload of ``length`` bytes in this block. Raises TooManyRequests, Unavailable."""
        leave = self._shares.enter(caller)
        try:
            for item, each in self._bounds:
                self._pay(item, caller if each else "all", length)
            yield
        finally:
            leave()

    def came(self, caller: str, count: int) -> None:
        """A body of unknown length had so many bytes."""
        for item, each in self._bounds:
            try:
                self._window.hit(item, "upload-bytes", caller if each else "all", cost=count)
            except StorageError:
                log.exception("bytes were not counted")

    def _pay(self, item: RateLimitItemPerHour, who: str, length: int | None) -> None:
        try:
            if length is None:
                paid = self._window.test(item, "upload-bytes", who)
            else:
                paid = self._window.test(item, "upload-bytes", who, cost=length) and self._window.hit(
                    item, "upload-bytes", who, cost=length
                )
            left_s = 0.0 if paid else self._window.get_window_stats(item, "upload-bytes", who).reset_time - time.time()
        except StorageError:
            log.exception("bytes were not counted")
            return
        if not paid:
            raise _too_much(item.amount, who == "all", max(1, math.ceil(left_s)))


def _too_much(most: int, all: bool, left_s: int) -> Problem:
    name = "upload-bytes" if all else "upload-bytes-per-caller"
    sentence = f"{'The server takes' if all else 'You may send'} {most} bytes an hour; try again in {left_s} seconds."
    kind = Unavailable if all else TooManyRequests
    return kind(sentence, retry_after_s=left_s, headers=fields(name, most, left_s, _HOUR_S))


def uploading(view: Callable[P, T]) -> Callable[P, T]:
    """Let the view be counted as an upload, where its request has a body."""

    @wraps(view)
    def counted(*args: P.args, **kwargs: P.kwargs) -> T:
        if not bodies.has_body(request.environ):
            return view(*args, **kwargs)
        limits: Uploading = current_app.extensions["uploading"]
        caller, length = callers.key(), bodies.length(request.environ)
        with limits.holding(caller, length):
            try:
                return view(*args, **kwargs)
            finally:
                if length is None:
                    limits.came(caller, _received(request.environ))

    return counted


def _received(environ: dict[str, Any]) -> int:
    return int(environ.get(bodies.RECEIVED, 0))

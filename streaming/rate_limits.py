"""How often a caller may ask: counted by Flask-Limiter, in memory or in Redis.

Rules:
- In memory each worker counts for itself; in Redis all of them count together.
- Redis that is away lets everybody in, and so does one that hangs, after ``ASK_S`` seconds: a limit is there for the
  good of the others, and must not be their harm.
- It comes after the guard: callers are told apart by their tokens. Whoever has none has been refused by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from flask_limiter import Limiter, RateLimitExceeded

from settings import Settings
from streaming import callers
from streaming.errors import Problem, TooManyRequests
from streaming.needs import OPEN
from streaming.shares import fields

ASK_S = 0.5
_STRATEGY = "sliding-window-counter"


def limit(app: Flask, settings: Settings, refuse: Callable[[Problem], Response]) -> None:
    """Hang the limits into the application; nothing where there are none."""
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
        storage_uri=storage(settings),
        storage_options=options(storage(settings)),
        strategy=_STRATEGY,
        swallow_errors=True,
        headers_enabled=False,
        key_prefix="perennial",
    )
    app.register_error_handler(RateLimitExceeded, too_often)


def _identifiers(error: RateLimitExceeded) -> tuple[str, ...]:
    scope = error.limit.scope
    return (error.limit.key_func(), scope if isinstance(scope, str) else "global")


def storage(settings: Settings) -> str:
    """Return where is counted: where it is said, in the log's Redis, or in memory."""
    if settings.RATE_LIMIT_URL:
        return settings.RATE_LIMIT_URL
    url = settings.streams_url
    return url.partition("?")[0] if url.startswith(("redis:", "rediss:")) else "memory://"


def options(url: str) -> dict[str, Any]:
    """Return how a storage there is opened: Redis's own client would wait for each answer for 5 s."""
    waits = {"socket_timeout": ASK_S, "socket_connect_timeout": ASK_S}
    return waits if url.startswith(("redis", "valkey")) else {}

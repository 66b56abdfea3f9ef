"""How many bytes may be sent in an hour in streams, exports and files: to each caller, and in all.

Rules:
- What is sent is paid for at its end, by whoever counts it (streaming/accounts.py); then the next GET is refused.
- Without a bound nothing stands before a request, and files go around Flask (streaming/direct.py).
"""

from __future__ import annotations

from functools import partial

from flask import Flask, request

from settings import Settings
from streaming import callers
from streaming.accounts import PAYS
from streaming.body_limits import BodyLimits
from streaming.needs import OPEN
from streaming.rate_limits import storage


def limit(app: Flask, settings: Settings) -> None:
    """Hang the bounds into the application; nothing where there are none."""
    limits = BodyLimits("streams", settings.SENT_BYTES, settings.CALLER_SENT_BYTES, storage(settings))
    if limits.bounded:
        app.before_request(partial(_look, limits))


def _look(limits: BodyLimits) -> None:
    """Raises TooManyRequests, Unavailable."""
    if request.endpoint in OPEN or request.method == "OPTIONS":
        return
    caller = callers.key()
    if request.method == "GET":
        limits.look(caller, None)
    request.environ[PAYS] = partial(limits.came, caller)

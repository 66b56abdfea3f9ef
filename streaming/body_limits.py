"""What request bodies may take: places for those that are being read at once, and bytes in an hour.

Rules:
- Bodies are of a kind: ``uploads``, ``transforms``, ``appends`` (to streams, and what is published). Each kind has
  bounds of its own, for each caller and in all.
- A body whose length is announced is let in when so many bytes are left, another one when there are any. Both are paid
  for by what has come, at the end of their reading: an announcement that nothing follows costs nobody his hour.
- In memory each worker counts for itself; in Redis all of them count together. Redis that is away, or
  hangs, lets everybody in.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from flask import Flask, current_app, request
from limits import RateLimitItemPerHour
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from settings import Settings
from streaming import bodies, callers
from streaming.errors import Problem, TooManyRequests, Unavailable
from streaming.rate_limits import options, storage
from streaming.shares import Shares, fields

log = logging.getLogger("perennial.limits")

P = ParamSpec("P")
T = TypeVar("T")
_HOUR_S = 3600


def open_limits(app: Flask, settings: Settings) -> None:
    """Hang the limits of every kind into the application."""
    limits = (
        BodyLimits(
            "uploads", settings.UPLOAD_BYTES, settings.CALLER_UPLOAD_BYTES, storage(settings), _places(settings)
        ),
        BodyLimits(
            "transforms", settings.TRANSFORM_BODY_BYTES, settings.CALLER_TRANSFORM_BODY_BYTES, storage(settings)
        ),
        BodyLimits("appends", settings.APPEND_BYTES, settings.CALLER_APPEND_BYTES, storage(settings)),
    )
    app.extensions["bodies"] = {each.kind: each for each in limits}


def _places(settings: Settings) -> Shares:
    return Shares("uploads", settings.MAX_UPLOADS, settings.CALLER_UPLOADS)


class BodyLimits:
    """Of one ``kind``: ``most`` bytes an hour in all and ``most_each`` of each caller (0: no bound), and ``places``."""

    def __init__(self, kind: str, most: int, most_each: int, storage_url: str, places: Shares | None = None) -> None:
        self.kind = kind
        self._name = f"{kind.removesuffix('s')}-bytes"
        self._places = places or Shares(kind, 0, 0)
        self._bounds = [
            (RateLimitItemPerHour(bound), each) for bound, each in ((most_each, True), (most, False)) if bound
        ]
        if self._bounds:
            # Not wrapped, what Redis raises would be no StorageError, and a 500.
            opened = storage_from_string(storage_url, wrap_exceptions=True, **options(storage_url))
            self._window = FixedWindowRateLimiter(opened)

    @property
    def bounded(self) -> bool:
        """Whether bytes are counted."""
        return bool(self._bounds)

    @contextmanager
    def holding(self, caller: str, length: int | None) -> Iterator[None]:
        """Be a body of ``length`` bytes, None for not known, in this block. Raises TooManyRequests, Unavailable."""
        leave = self._places.enter(caller)
        try:
            self.look(caller, length)
            yield
        finally:
            leave()

    def came(self, caller: str, count: int) -> None:
        """So many bytes have come, or were sent: they are paid for."""
        for item, each in self._bounds:
            try:
                self._window.hit(item, self._name, caller if each else "all", cost=count)
            except StorageError:
                log.exception("bytes were not counted")

    def look(self, caller: str, length: int | None) -> None:
        """Look whether so many bytes are left, None: any. Nothing is paid. Raises TooManyRequests, Unavailable."""
        try:
            for item, each in self._bounds:
                if not self._window.test(item, self._name, caller if each else "all", cost=length or 1):
                    raise self._too_much(item, caller if each else "all")
        except StorageError:
            log.exception("bytes were not counted")

    def _too_much(self, item: RateLimitItemPerHour, who: str) -> Problem:
        most, everybody = item.amount, who == "all"
        left_s = max(1, math.ceil(self._window.get_window_stats(item, self._name, who).reset_time - time.time()))
        name = self._name if everybody else f"{self._name}-per-caller"
        whose = "for all together" if everybody else "for each caller"
        sentence = f"There are {most} bytes of {self.kind} an hour {whose}; try again in {left_s} seconds."
        kind = Unavailable if everybody else TooManyRequests
        return kind(sentence, retry_after_s=left_s, headers=fields(name, most, left_s, _HOUR_S))


def limited(kind: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let the view's request be counted as a body of this kind, where it has one."""

    def decorate(view: Callable[P, T]) -> Callable[P, T]:
        @wraps(view)
        def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            environ = request.environ
            if not bodies.has_body(environ):
                return view(*args, **kwargs)
            limits: BodyLimits = current_app.extensions["bodies"][kind]
            caller, length = callers.key(), bodies.length(environ)
            # By whoever reads it, whenever that is: a transform's is read when the view has returned.
            environ[bodies.CAME] = partial(limits.came, caller)
            with limits.holding(caller, length):
                return view(*args, **kwargs)

        return counted

    return decorate

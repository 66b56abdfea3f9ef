"""Until when something must have happened, for calls that block in somebody else's code.

Rules:
- It runs only inside ``call``: the time that our own reader takes does not count.
- Under gevent a call that is still blocked at the deadline is broken off. Without it (tests, scripts) the deadline
  is looked at before each call, and the library's own time-out must end the call.
- One timer for all calls, moved only when it fires: a timer for each of a model's tokens cost 8 µs of 100.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gevent

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Late(BaseException):
    """Thrown into the call. No Exception: no library on the way takes it for a fault that it can handle."""


class Deadline:
    """``seconds`` from now, and from each ``renew``; never later than ``total_s`` from now. ``close`` it at the end."""

    def __init__(self, seconds: float, total_s: float = float("inf")) -> None:
        self._last = time.monotonic() + total_s
        self._timer: Any = None
        self._blocked: Any = None
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        self._at = min(time.monotonic() + seconds, self._last)
        if self._timer is not None and self._at < self._fires_at:
            self._start()

    @property
    def passed_total(self) -> bool:
        return time.monotonic() >= self._last

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what ``function`` returns. Raises TimeoutError when the deadline has passed, or passes meanwhile."""
        if self._at <= time.monotonic():
            raise TimeoutError
        if self._timer is None:
            self._start()
        self._blocked = gevent.getcurrent()
        try:
            return function(*args, **kwargs)
        except _Late as late:
            if late.args != (self,):
                raise
            raise TimeoutError from None
        finally:
            self._blocked = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _start(self) -> None:
        self.close()
        self._fires_at = self._at
        self._timer = gevent.get_hub().loop.timer(max(self._at - time.monotonic(), 0.0))
        self._timer.start(self._fired)

    def _fired(self) -> None:
        """In the hub: whoever is in a call is certainly blocked there."""
        if self._blocked is None:
            self.close()  # the next call begins anew
        elif self._at <= time.monotonic():
            self.close()
            self._blocked.throw(_Late(self))
        else:
            self._start()

"""A moment of the clock on the wall, at which something is to happen.

Rules:
- The clock may be set while one waits: it is looked at again every hour, and at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent

# A timer can wait for years only in theory.
_LOOK_S = 3600.0


class Alarm:
    """Calls ``ring`` once in the hub, when ``at`` (time.time) has come, which is later than now; or ``close``."""

    __slots__ = ("_at", "_ring", "_timer")

    def __init__(self, at: float, ring: Callable[[], None]) -> None:
        self._at = at
        self._ring = ring
        self._set(at - time.time())

    def close(self) -> None:
        self._timer.close()

    def _set(self, left_s: float) -> None:
        self._timer: Any = gevent.get_hub().loop.timer(max(0.0, min(left_s, _LOOK_S)))
        self._timer.start(self._look)

    def _look(self) -> None:
        self._timer.close()
        left_s = self._at - time.time()
        if left_s > 0:
            self._set(left_s)
        else:
            self._ring()

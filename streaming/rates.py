"""How fast something moves, smoothed: what happened a while ago counts ever less."""

from __future__ import annotations

import math
import time

# After so long, what was before counts for a third.
SMOOTH_S = 2.0


class Rate:
    """Units a second, from how many there were at which times. ``per_s`` is 0 until time has passed."""

    def __init__(self, count: int = 0, now: float | None = None) -> None:
        self._count = count
        self._at = time.monotonic() if now is None else now
        self._weight = 0.0
        self._sum = 0.0

    def moved(self, count: int, now: float) -> None:
        """There are ``count`` now (time.monotonic)."""
        passed = now - self._at
        if passed <= 0:
            return
        fade = math.exp(-passed / SMOOTH_S)
        self._sum = self._sum * fade + (1 - fade) * (count - self._count) / passed
        self._weight = self._weight * fade + (1 - fade)
        self._count, self._at = count, now

    @property
    def per_s(self) -> float:
        # Divided by the weight of what has been seen: the first second is not taken for a slow one.
        return self._sum / self._weight if self._weight else 0.0

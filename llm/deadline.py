"""Until when something must have happened, for calls that block in somebody else's code.

Rules:
- It runs only inside ``call``: the time that our own reader takes does not count.
- Under gevent a call that is still blocked at the deadline is broken off. Without it (tests, scripts) the deadline
  is looked at before each call, and the library's own time-out must end the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gevent import Timeout

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Deadline:
    def __init__(self, seconds: float) -> None:
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what ``function`` returns. Raises TimeoutError when the deadline has passed, or passes meanwhile."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        # A Timeout is no Exception: no library on the way takes it for a fault that it can handle.
        timer = Timeout.start_new(left)
        try:
            return function(*args, **kwargs)
        except Timeout as late:
            if late is not timer:
                raise
            raise TimeoutError from None
        finally:
            timer.close()

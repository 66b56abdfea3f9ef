"""What can be done with a source besides asking it for the next item: to close it, and to park it.

Rules:
- A source is any iterator; what it cannot do is not asked of it.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Protocol, TypeGuard

from streaming.events import Source
from streaming.framings import Framing
from streaming.wire import Link

log = logging.getLogger("perennial.stream")


class Parkable(Protocol):
    """A source that can have others write to the connection while it waits.

    ``park`` returns when they last did (time.monotonic), None where they cannot. Raises Interrupted.
    """

    def park(self, link: Link, framing: Framing, heartbeat_s: float) -> float | None: ...


def is_parkable(source: object) -> TypeGuard[Parkable]:
    """Whether it can be parked."""
    return hasattr(source, "park")  # not isinstance, as fanout's is_shareable: it is asked at every rest


def close(source: Source) -> None:
    """Close ``source`` where it can be closed; a failure to do so is logged and hides nothing."""
    with contextlib.suppress(AttributeError):
        closing = source.close  # type: ignore[attr-defined]  # iterators need not have it, generators do
        try:
            closing()
        except Exception:
            log.exception("a source did not close")

"""A source that is run to its first event before its answer begins, so that a refusal is still a status."""

from __future__ import annotations

import time
from collections import deque

from flask import request

from streaming.errors import EXPIRED, ClientLeft, Unauthorized
from streaming.events import Event, Source
from streaming.framings import Framing
from streaming.sources import close, is_parkable
from streaming.wire import END, Interrupted, Link


class Begun:
    """``source`` run to its first event, so that what it refuses until then is still a status.

    Events of the types ``preliminary`` are not yet that. After ``within_s`` seconds without it is left at that.
    ``first``: that event, None without. Raises what the source raises, and ClientLeft.
    """

    def __init__(self, source: Source, within_s: float, preliminary: frozenset[str] = frozenset()) -> None:
        self._source = source
        self._items: deque[object] = deque()
        self.first: Event | None = None
        link = Link(request.environ)
        deadline = time.monotonic() + within_s
        try:
            while self.first is None and not (self._items and self._items[-1] is END):
                item = link.pull(source)
                if item is not None or time.monotonic() >= deadline:
                    self._items.append(item)
                if isinstance(item, Event) and item.type not in preliminary:
                    self.first = item
                elif self._items and self._items[-1] is None:
                    break
        except Interrupted:
            close(source)
            if link.expired and not link.gone:
                raise Unauthorized(EXPIRED) from None
            raise ClientLeft("The client left before the answer began.") from None
        except BaseException:
            close(source)
            raise
        finally:
            link.close()

    @property
    def together(self) -> int:
        """How many events are there already, and can leave with the headers."""
        return len(self._items) if self.first is not None and self._items[0] is not None else 0

    def __iter__(self) -> Begun:
        return self

    def __next__(self) -> Event | None:
        item = self._items.popleft() if self._items else next(self._source, END)
        if isinstance(item, Event) or item is None:
            return item
        raise StopIteration

    def park(self, link: Link, framing: Framing, heartbeat_s: float) -> float | None:
        if self._items or not is_parkable(self._source):
            return None
        return self._source.park(link, framing, heartbeat_s)

    def close(self) -> None:
        close(self._source)

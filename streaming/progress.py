"""How far an upload is, as a log that anybody may follow while it runs and for some time after."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from stores.base import Config, Log
from stores.errors import StoreError, StreamClosed
from streaming.accounts import tally
from streaming.events import Event, json_event
from streaming.leases import Lease
from streaming.rates import Rate

log = logging.getLogger("perennial.progress")

JSON = Config("application/json")
STEP_S = 0.1
_LOG_STEP_S = 1.0


class Progress:
    """The progress of one upload, on ``path``; ``total_bytes`` is None when it was not announced.

    Its events are ``progress`` {received, total, rate, left_s}, and at the end ``complete`` or ``failed``. ``rate`` is
    in bytes a second, ``left_s`` null where nobody can know. ``lease``: tells its end where the store does not take it
    now; without one that raises StoreError.
    """

    def __init__(
        self, store: Log, path: str, total_bytes: int | None, received: int = 0, lease: Lease | None = None
    ) -> None:
        self._store = store
        self._lease = lease
        self._path = path
        self._total_bytes = total_bytes
        self._rate = Rate(received)
        self._told_at = self._logged_at = time.monotonic()

    def begin(self) -> None:
        """Take the path. Raises KeyReused when it has been taken before, by any worker."""
        mark = {"upload": secrets.token_hex(4)}
        self._store.append(self._path, [self._event(0, mark)], create=JSON, key="begin")

    def moved(self, received: int) -> None:
        """Tell how many bytes have come; at most ten times a second."""
        now = time.monotonic()
        self._rate.moved(received, now)
        if now - self._told_at >= STEP_S:
            self._told_at = now
            self._store.append(self._path, [self._event(received)], create=JSON)
        if now - self._logged_at >= _LOG_STEP_S:
            self._logged_at = now
            log.info("%s: %d of %s bytes", self._path, received, self._total_bytes or "an unknown number of")

    def paused(self, received: int) -> None:
        """Tell where it stands, and that nothing is moving now."""
        self._rate = Rate(received)
        tally.uploads["paused"] += 1
        with contextlib.suppress(StoreError):
            self._store.append(self._path, [self._event(received)], create=JSON)

    def complete(self, told: Mapping[str, Any]) -> None:
        tally.uploads["complete"] += 1
        log.info("%s: complete, %d bytes", self._path, told["received"])
        self._end(json_event(told, "complete"))

    def failed(self, sentence: str) -> None:
        tally.uploads["failed"] += 1
        log.warning("%s: failed: %s", self._path, sentence)
        self._end(json_event({"error": sentence}, "failed"))

    def _event(self, received: int, more: Mapping[str, Any] | None = None) -> Event:
        total = self._total_bytes
        rate = round(self._rate.per_s)
        left_s = round((total - received) / rate, 1) if rate and total is not None else None
        told = {"received": received, "total": total, "rate": rate, "left_s": left_s}
        return json_event({**told, **(more or {})}, "progress")

    def _end(self, event: Event) -> None:
        try:
            self._store.append(self._path, [event], create=JSON, close=True)  # in one step: one end, or none yet
        except StreamClosed:
            log.info("%s: its end was told already", self._path)
        except StoreError:
            if self._lease is None:
                raise
            log.exception("%s: its end could not be told, and that is tried again", self._path)
            self._lease.abandon(self._path, event)

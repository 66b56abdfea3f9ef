"""How far an upload is, as a log that anybody may follow while it runs and for some time after."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from stores.base import Config, Log
from streaming.events import Event, json_event

log = logging.getLogger("perennial.progress")

JSON = Config("application/json")
STEP_S = 0.1
_LOG_STEP_S = 1.0


class Progress:
    """The progress of one upload, on ``path``; ``total_bytes`` is None when it was not announced."""

    def __init__(self, store: Log, path: str, total_bytes: int | None) -> None:
        self._store = store
        self._path = path
        self._total_bytes = total_bytes
        self._told_at = self._logged_at = time.monotonic()

    def begin(self) -> None:
        """Take the path. Raises KeyReused when it has been taken before, by any worker."""
        owner = json_event({"received": 0, "total": self._total_bytes, "upload": secrets.token_hex(4)}, "progress")
        self._store.append(self._path, [owner], create=JSON, key="begin")

    def moved(self, received: int) -> None:
        """Tell how many bytes have come; at most ten times a second."""
        now = time.monotonic()
        if now - self._told_at >= STEP_S:
            self._told_at = now
            self._store.append(self._path, [json_event({"received": received, "total": self._total_bytes}, "progress")])
        if now - self._logged_at >= _LOG_STEP_S:
            self._logged_at = now
            log.info("%s: %d of %s bytes", self._path, received, self._total_bytes or "an unknown number of")

    def complete(self, told: Mapping[str, Any]) -> None:
        log.info("%s: complete, %d bytes", self._path, told["received"])
        self._end(json_event(told, "complete"))

    def failed(self, sentence: str) -> None:
        log.warning("%s: failed: %s", self._path, sentence)
        self._end(json_event({"error": sentence}, "failed"))

    def _end(self, event: Event) -> None:
        self._store.append(self._path, [event])
        self._store.close(self._path)

"""A log on a disk that is full for a while: it can be read, and takes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stores.errors import StoreFull
from stores.memory import MemoryLog


class FullLog:
    """``log``, which refuses each of ``changes`` while ``full``, and the next ``refusals`` of them."""

    def __init__(
        self, log: MemoryLog, changes: Sequence[str] = ("append", "create", "delete", "close", "expire")
    ) -> None:
        self._log = log
        self._changes = changes
        self.full = False
        self.refusals = 0

    def __getattr__(self, name: str) -> Any:
        if (self.full or self.refusals) and name in self._changes:
            return self._refuse
        return getattr(self._log, name)

    def _refuse(self, *_: object, **__: object) -> None:
        self.refusals = max(0, self.refusals - 1)
        raise StoreFull("No space is left.")

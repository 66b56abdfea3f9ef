"""Logs that fail: on a disk that is full for a while, which can be read and takes nothing; whose answers are lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stores.errors import StoreBusy, StoreFull
from stores.memory import MemoryLog

CHANGES = ("append", "append_each", "create", "create_each", "delete", "close", "expire")


class FullLog:
    """``log``, which refuses each of ``changes`` while ``full``, and the next ``refusals`` of them."""

    def __init__(self, log: MemoryLog, changes: Sequence[str] = CHANGES) -> None:
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


class LostAnswers:
    """``log``, which does each of ``changes``, and of the next ``lost`` of them does not say so."""

    def __init__(self, log: MemoryLog, changes: Sequence[str] = ("append", "create", "delete")) -> None:
        self._log = log
        self._changes = changes
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._log, name)
        if name not in self._changes:
            return real

        def called(*args: Any, **more: Any) -> Any:
            answer = real(*args, **more)
            if self.lost:
                self.lost -= 1
                raise StoreBusy("The store does not answer.")
            return answer

        return called

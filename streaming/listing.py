"""Which streams there are: those of clients, and the topics of notifications.

Rules:
- What the server keeps for itself is not listed, and neither are runs, chats, uploads and exports: who knows the URL of
  one of those may read it, and nobody is to find it.
- A page of the list is one walk over the paths in their order; what is left out is stepped over by its prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stores.base import Log, State
from stores.errors import NoStream, StreamGone
from streaming.durable import HIDDEN, RESERVED
from streaming.leases import CHATS, RUNS
from streaming.receipts import EXPORTS

_LEFT_OUT = (*HIDDEN, f"{RESERVED}/", RUNS, CHATS, EXPORTS, "uploads/")
_AT_ONCE = 200
_BEHIND_ALL = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Listed:
    """One stream and how it stands."""

    path: str
    state: State


def list_streams(log: Log, prefix: str, after: str, limit: int) -> Iterator[Listed]:
    """Yield the first ``limit`` streams below ``prefix`` whose paths sort after ``after``, in order."""
    found = 0
    for path in _paths(log, prefix, after):
        if found == limit:
            return
        try:
            yield Listed(path, log.state(path))
            found += 1
        except (NoStream, StreamGone):
            continue  # deleted since


def _paths(log: Log, prefix: str, after: str) -> Iterator[str]:
    while page := log.paths(prefix, after, _AT_ONCE):
        for path in page:
            after = path
            if left_out := next((each for each in _LEFT_OUT if path.startswith(each)), ""):
                after = left_out + _BEHIND_ALL
                break
            yield path

"""When a stream with a sliding lifetime was last read, without a write for each read.

Rules:
- A worker knows of its own reads exactly. It writes one down at most once a second, and not before a sixteenth of the
  lifetime has passed since it last did; what it writes is later by that much than the read, so that another worker
  never thinks a stream's time has come before it has.
"""

from __future__ import annotations

from typing import NamedTuple

from stores import lifetimes
from stores.base import Config
from stores.sqlite_rows import Row

MOST_S = 1.0
_SHARE = 16


class _Read(NamedTuple):
    """``written``: the read that this worker last wrote down; ``ends``: when the stream expires after its last read."""

    written: float
    ends: float


class Touches:
    """The reads of one worker."""

    def __init__(self) -> None:
        self._reads: dict[int, _Read] = {}

    def read(self, row: Row, config: Config, now: float) -> float | None:
        """Count a read; return the time to write as ``expires``, or None when there is nothing to write."""
        ends = lifetimes.expires(config, now)
        if config.ttl_s is None or ends is None:
            return None
        step_s = min(MOST_S, config.ttl_s / _SHARE)
        earlier = self._reads.get(row.id)
        written = max(row.touched, earlier.written if earlier else 0)
        due = now - written >= step_s
        self._reads[row.id] = _Read(now if due else written, ends)
        return lifetimes.expires(config, now + step_s) if due else None

    def expired(self, row: Row, now: float) -> bool:
        """Whether the stream's time has come."""
        if row.expires is None:
            return False
        read = self._reads.get(row.id)
        if read is None:
            return now >= row.expires
        return now >= (read.ends if read.written == row.touched else max(row.expires, read.ends))

    def forget(self, now: float) -> None:
        """Forget the streams that have not been read for longer than they live."""
        self._reads = {stream: read for stream, read in self._reads.items() if read.ends > now}

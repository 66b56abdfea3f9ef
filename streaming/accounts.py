"""What each stream has cost and how it ended: an account of it, and a line of JSON at its end.

Rules:
- Nothing here is paid for a delivery: bytes and events are counted by whoever writes, once for all that it writes.
- What is counted are plain numbers of this worker; ``metrics`` takes them once a second.
- A line holds no query and no header but the request's id: what is secret in a request stays there.
- Lines that are made in one turn of the loop are written together, at its end.
"""

from __future__ import annotations

import os
import re
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import gevent
import msgspec

# told: a failure that the format could tell; failed: one that cut it; slow: its client did not read; stopped: the
# grace time of its worker was over. expired: its caller's token.
End = Literal["complete", "told", "failed", "left", "slow", "drained", "expired", "stopped"]

# In the environ: when the request was there (time.monotonic), put there by worker.py.
BEGAN = "perennial.began"
# In the environ: who is told, at the end, how many bytes were sent.
PAYS = "perennial.pays"
# Trace Context (W3C, 2021), 3.2: version, trace-id, parent-id, flags; an id of zeros only is none.
_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:$|-)")
_REQUEST_ID = re.compile("[A-Za-z0-9._:-]{1,128}")
_REST = re.compile("bytes=[1-9][0-9]*-")
_RESUMES = re.compile("(?:^|&)(?:after=[^&]|offset=(?!-1(?:&|$)|now(?:&|$))[^&])")


class Account:
    """Of one stream of a ``kind``: from here until ``end``, which comes once or often."""

    __slots__ = ("_began", "_environ", "_over", "bytes", "events", "first_s", "how", "kind", "source")

    def __init__(self, kind: str, environ: Mapping[str, Any], source: object = None) -> None:
        self.kind = kind
        self.source = source
        self.bytes = self.events = 0
        self.first_s: float | None = None
        self.how: End = "stopped"
        self._environ = environ
        self._began = environ.get(BEGAN) or time.monotonic()
        self._over = False
        tally.open.add(self)
        tally.kinds[kind] += 1
        if _resumes(environ):
            tally.resumed[kind] += 1

    def first_byte(self) -> None:
        self.first_s = time.monotonic() - self._began

    def end(self) -> None:
        if self._over:
            return
        self._over = True
        tally.open.discard(self)
        tally.kinds[self.kind] -= 1
        tally.ended[self.kind, self.how] += 1
        tally.bytes[self.kind] += self.bytes
        tally.events[self.kind] += self.events
        if self.first_s is not None:
            if (times := tally.first.get(self.kind)) is None:
                times = tally.first[self.kind] = Times()
            times.add(self.first_s)
        lines.add(self)
        if self.bytes and (paid := self._environ.get(PAYS)) is not None:
            paid(self.bytes)

    def line(self) -> Line:
        """Return what the log says of it."""
        environ = self._environ
        return Line(
            time.time(),
            self.kind,
            environ.get("REQUEST_METHOD", ""),
            environ.get("PATH_INFO", ""),
            self.bytes,
            self.events,
            time.monotonic() - self._began,
            self.how,
            self.first_s,
            request_id(environ),
        )


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """What is said of a finished stream. ``time``: its end, in seconds since 1970; ``request``: the caller's id."""

    time: float
    stream: str
    method: str
    path: str
    bytes: int
    events: int
    duration_s: float
    end: End
    first_byte_s: float | None = None
    request: str = ""


class Times:
    """How many were as long as that, in buckets up to each of ``BOUNDS`` and beyond.

    A tenth of what a Histogram of prometheus-client takes, which is added to once a second instead.
    """

    BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.sum_s += seconds


class Tally:
    """What this worker has counted since ``metrics`` took it last.

    ``open``: the accounts of all open streams, ``kinds``: how many of each.
    """

    def __init__(self) -> None:
        self.open: set[Account] = set()
        self.kinds: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        # What was answered with a status instead of what was asked for, by that status.
        self.refused: Counter[str] = Counter()
        # From the request to the first byte, by kind.
        self.first: dict[str, Times] = {}
        # Of each broadcast: from the read of its events until the last reader's socket had them; and to how many.
        self.broadcasts = Times()
        self.delivered = self.resets = self.received = 0


class Lines:
    """Where the lines go: ``-`` is standard output, "" nowhere, else a file that is appended to."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._opened = False
        self._waiting: list[bytes] = []

    def configure(self, place: str) -> None:
        """Raises OSError for a file that cannot be opened."""
        self.flush()
        if self._opened:
            os.close(self._descriptor)
        self._opened = place not in ("", "-")
        self._descriptor = -1 if not place else 1
        if self._opened:
            self._descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def add(self, account: Account) -> None:
        if self._descriptor < 0:
            return
        self._waiting.append(msgspec.json.encode(account.line()))
        if len(self._waiting) == 1:
            gevent.get_hub().loop.run_callback(self.flush)

    def flush(self) -> None:
        if waiting := self._waiting:
            self._waiting = []
            try:
                os.write(self._descriptor, b"\n".join([*waiting, b""]))
            except OSError as error:  # a full disk ends no stream
                print(f"The log of streams cannot be written: {error}", file=sys.stderr)  # noqa: T201  # as logging does


tally = Tally()
lines = Lines()


def request_id(environ: Mapping[str, Any]) -> str:
    """Return the trace-id of the request's ``traceparent``, else its X-Request-ID if that is a plain one, else ""."""
    if (trace := environ.get("HTTP_TRACEPARENT")) and (found := _TRACEPARENT.match(trace)):
        return found[1]
    id = environ.get("HTTP_X_REQUEST_ID")
    return id if id and _REQUEST_ID.fullmatch(id) else ""


def _resumes(environ: Mapping[str, Any]) -> bool:
    """Whether the request goes on with what an earlier one began."""
    if environ.get("HTTP_LAST_EVENT_ID"):
        return True
    if range := environ.get("HTTP_RANGE"):
        return bool(_REST.fullmatch(range))
    query = environ.get("QUERY_STRING")
    return bool(query and _RESUMES.search(query))

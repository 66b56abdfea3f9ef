"""What is kept in logs, as Protocols. The stores behind them know no Flask.

Rules:
- The stored thing is the truth: a log's offset is the number of its last event.
- Reading is one path: "what is after N"; waiting is another: "until there may be something after N".
- A wake-up carries no data, may come too often, and must never be needed for correctness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stores.errors import StoreError
from streaming.events import Event


@dataclass(frozen=True, slots=True)
class Config:
    """What a stream is made with; making it again with another one is a conflict (all but the retention).

    ``ttl_s``: it expires that long after its last read or write; ``expires_at``: at that time (seconds since 1970).
    ``forked_from``: the path of the stream whose events up to ``fork_offset`` (START: its tail; BEGINNING: none) it
    begins with, and ``fork_sub_offset`` more: messages where the type is application/json, bytes of the next event
    elsewhere. A fork without a ``content_type`` ("") or a lifetime of its own gets its source's.
    ``keep_events``, ``keep_bytes``, ``keep_s``: what is beyond that is dropped, the oldest first (0: keep all). The
    newest event stays whatever its size, and what forks have inherited stays for them.
    """

    content_type: str = "application/octet-stream"
    ttl_s: int | None = None
    expires_at: float | None = None
    forked_from: str = ""
    fork_offset: str = ""
    fork_sub_offset: int = 0
    keep_events: int = 0
    keep_bytes: int = 0
    keep_s: float = 0


@dataclass(frozen=True, slots=True)
class State:
    """A stream as it stands. ``tail``: the offset of its last event, also when that is no longer kept.

    ``total``: how many events are kept. ``created``: whether this very call made the stream.
    """

    config: Config
    tail: str
    closed: bool
    total: int
    created: bool = False


@dataclass(frozen=True, slots=True)
class Producer:
    """An idempotent producer's mark on an append: it happens once for each (id, epoch, seq)."""

    id: str
    epoch: int
    seq: int


class Create(NamedTuple):
    """One of several streams to be made: what ``Log.create`` is told of it."""

    path: str
    config: Config
    events: Sequence[Event] = ()


class Append(NamedTuple):
    """One of several appends: what ``Log.append`` is told of it."""

    path: str
    events: Sequence[Event]
    producer: Producer | None
    close: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """``offset``: of the last event of this append. ``duplicate``: it had happened before, and nothing was added.

    ``tail``: the stream's now. ``seq``: the producer's highest sequence number, None without a producer.
    """

    offset: str
    tail: str
    duplicate: bool = False
    closed: bool = False
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a stream holds after an offset.

    ``events``: in order, each with its offset as ``id``; empty when there is nothing (yet).
    ``missed``: how many events between the offset asked for and the first one here are gone (retention).
    ``tail``: the offset of the stream's last event. ``closed``: nothing will ever come after ``tail``.
    ``total``: how many events the stream keeps now.
    """

    events: Sequence[Event]
    missed: int
    tail: str
    closed: bool
    total: int


class Log(Protocol):
    """Streams: append-only sequences of events, each named by a path, read from an offset.

    Offsets are opaque texts of ``A-Za-z0-9_-`` that sort in the order of the events; ``START`` is before the first.
    An empty stream's tail is START, or for a fork its fork offset. Every method may raise StoreBusy and StoreError;
    none blocks the worker, and the offsets of a deleted stream are never given out again at its path.
    """

    def create(self, path: str, config: Config, events: Sequence[Event] = (), *, closed: bool = False) -> State:
        """Make the stream, with its first events, in one step; or find the one that is there with this config.

        Raises StreamExists (another config or another ``closed``; soft-deleted), NoStream (the source of a fork),
        StreamGone (that source is soft-deleted), BadFork, WrongType (a fork's type is not its source's).
        """
        ...

    def create_each(self, creates: Sequence[Create]) -> None:
        """``create`` each, in this order: a stream is there only where those before it are.

        They have few events. Raises what one of them is refused with; those before it may be there.
        """
        ...

    def append(
        self,
        path: str,
        events: Sequence[Event],
        *,
        create: Config | None = None,
        content_type: str = "",
        producer: Producer | None = None,
        seq: str = "",
        key: str = "",
        close: bool = False,
    ) -> Appended:
        """Add ``events`` in order, and with ``close`` the end, all or nothing; durable when it returns.

        ``create``: what to make the stream with when it is not there; its retention holds from now on.
        ``content_type``: must be the stream's when given. ``seq``: must be greater than the last one, as bytes.
        ``key``: an idempotency key; again, it adds nothing and returns what the first call did.
        Checked in this order: NoStream, StreamGone; a producer's or key's duplicate returns; StreamClosed, WrongType,
        StaleEpoch, NewEpoch, SequenceGap, SequenceRegression, KeyReused. Closing a closed stream adds nothing.
        """
        ...

    def append_each(self, appends: Sequence[Append]) -> Sequence[StoreError | None]:
        """``append`` each, to as many streams, for less than one by one costs.

        Each happens or not for itself; in the place of one that did not is what it was refused with. What is raised
        concerns all of them, and tells of none whether it happened.
        """
        ...

    def state(self, path: str) -> State:
        """Return the stream's state; no read in the sense of ``ttl_s``. Raises NoStream, StreamGone."""
        ...

    def read(self, path: str, after: str, limit: int = 1000, limit_bytes: int = 2**20) -> Batch:
        """Return the events after ``after``, at most ``limit``, and no more than fit (but one) in ``limit_bytes``.

        Never waits. A path without a stream reads as empty, after START only. Raises UnknownOffset, StreamGone.
        """
        ...

    def since(self, path: str, time_s: float) -> str:
        """Return the offset after which the events come that were appended at ``time_s`` (since 1970) or later."""
        ...

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        """Return True when there may be something after ``after`` or the end; False after ``timeout_s`` seconds."""
        ...

    def close(self, path: str) -> None:
        """Say that nothing comes any more: durable, and once is enough. A path without a stream gets a closed one."""
        ...

    def delete(self, path: str) -> bool:
        """Forget the stream, but for what forks read of it. False: there was none. Raises StreamGone."""
        ...

    def paths(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Return the paths that begin with ``prefix`` and sort after ``after``, in order."""
        ...

    def expire(self, prefix: str = "", untouched_s: float | None = None) -> int:
        """Delete the streams whose time has come, and with ``untouched_s`` those below ``prefix`` idle for so long."""
        ...

    def ping(self) -> None:
        """Return when the store answers; raise StoreError when it does not."""
        ...

    def waiting(self) -> int:
        """Return how many writes of this worker wait for the store, 0 where none does."""
        ...

    def dispose(self) -> None:
        """Give back what the store holds open."""
        ...


START = ""
# Only as a ``fork_offset``, where START stands for the tail.
BEGINNING = "-1"

"""What is kept, as Protocols. The stores behind them know no Flask.

Rules:
- The stored thing is the truth: a log's offset is the number of its last event, a file's size is its offset.
- Reading is one path: "what is after N"; waiting is another: "until there may be something after N".
- A wake-up carries no data, may come too often, and must never be needed for correctness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from streaming.events import Event

Rows = Literal["csv", "ndjson"]


class StoreError(Exception):
    """The root of what a store can say: its text is one sentence that a caller may show."""


class StoreBusy(StoreError):
    """The store did not answer in time; the same call may succeed later."""


class StoreFull(StoreError):
    """No space is left."""


class LogClosed(StoreError):
    """An append to a log that was closed."""


class UnknownOffset(StoreError):
    """An offset that this log never gave out."""


class KeyReused(StoreError):
    """An idempotency key that came before with other events."""


class UnknownTable(StoreError):
    """A table that does not exist or may not be read."""


class UnknownColumn(StoreError):
    """A column that its table does not have."""


class BadKey(StoreError):
    """An ``after`` that cannot be a value of the table's key."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a log holds after an offset.

    ``events``: in order, each with its offset as ``id``; empty when there is nothing (yet).
    ``missed``: how many events between the offset asked for and the first one here are gone (retention).
    ``tail``: the offset of the log's last event. ``closed``: nothing will ever come after ``tail``.
    ``total``: how many events the log keeps now.
    """

    events: Sequence[Event]
    missed: int
    tail: str
    closed: bool
    total: int


class Log(Protocol):
    """Append-only sequences of events, each named by a path, read from an offset.

    Offsets are opaque texts that sort in the order of the events; ``START`` is before the first.
    A log comes into being with its first append, ends with ``close`` and is gone after ``delete``.
    """

    def append(self, path: str, events: Sequence[Event], *, key: str = "", keep: int = 0) -> str:
        """Add ``events`` in order, all or none, and return the offset of the last one.

        ``key``: an idempotency key; the same key again adds nothing and returns the first call's offset,
        and raises KeyReused when the events differ. ``keep``: drop the oldest beyond that many (0: keep all).
        Raises LogClosed, StoreBusy.
        """
        ...

    def read(self, path: str, after: str, limit: int = 1000) -> Batch:
        """Return at most ``limit`` events after ``after``; never waits. A path without a log reads as empty.

        Raises UnknownOffset when ``after`` is no offset of this log, StoreBusy.
        """
        ...

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        """Return True when there may be something after ``after`` or the end; False after ``timeout_s`` seconds."""
        ...

    def close(self, path: str) -> None:
        """Say that nothing comes any more: durable, and once is enough."""
        ...

    def delete(self, path: str) -> None:
        """Forget the log and all its events. Its offsets are never given out again."""
        ...

    def expire(self, prefix: str, age_s: float) -> int:
        """Delete the logs below ``prefix`` untouched for ``age_s`` seconds; return how many."""
        ...

    def ping(self) -> None:
        """Return when the store answers; raise StoreError when it does not."""
        ...

    def dispose(self) -> None:
        """Give back what the store holds open."""
        ...


START = ""


class Part(Protocol):
    """An upload that is not whole yet. Waits cooperatively; raises StoreFull, StoreError."""

    size: int

    def write(self, piece: bytes) -> None:
        """Append ``piece`` whole."""
        ...

    def finish(self, name: str) -> str:
        """Make the bytes durable and give them ``name``, or the next free one like it; return the name they got."""
        ...

    def discard(self) -> None:
        """Forget what was not finished; once or often."""
        ...


class Uploads(Protocol):
    """Files that come in: nobody sees them before they are whole."""

    def begin(self) -> Part: ...

    def sweep(self, age_s: float) -> int:
        """Delete what killed processes left behind and nobody wrote to for ``age_s`` seconds; return how many."""
        ...

    def dispose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table that may be read: its columns in order, and the column of its key."""

    name: str
    columns: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows: those of ``table`` whose key is after ``after`` (None: all), at most ``limit`` (None: no bound)."""

    table: Table
    columns: tuple[str, ...]
    after: str | None = None
    limit: int | None = None


class Tables(Protocol):
    """Cursors over the operator's tables. The database formats the rows."""

    def tables(self) -> Mapping[str, Table]:
        """The tables that may be read, by name."""
        ...

    def select(
        self, table: str, columns: Sequence[str] = (), after: str | None = None, limit: int | None = None
    ) -> Query:
        """Check every name against the schema and return the query; no columns means all of them.

        Raises UnknownTable, UnknownColumn, BadKey.
        """
        ...

    def rows(self, query: Query, form: Rows) -> Iterator[Event | None]:
        """Yield the rows in key order as blocks of about 64 KiB, from one read transaction.

        A block is whole lines joined by the format's line end, without the last one; its id is its last key.
        None is yielded while the database is at work. Closing the iterator interrupts the query.
        """
        ...

    def ping(self) -> None: ...

    def dispose(self) -> None: ...

"""What is kept, as Protocols. The stores behind them know no Flask.

Rules:
- The stored thing is the truth: a log's offset is the number of its last event, a file's size is its offset.
- Reading is one path: "what is after N"; waiting is another: "until there may be something after N".
- A wake-up carries no data, may come too often, and must never be needed for correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from streaming.events import Event

Rows = Literal["csv", "ndjson"]
# What a column holds, in one vocabulary for every database. "any": values of several types, or one not listed here.
ColumnType = Literal[
    "integer", "real", "decimal", "boolean", "text", "blob", "date", "time", "instant", "datetime", "json", "any"
]
Operator = Literal["eq", "ne", "gt", "ge", "lt", "le", "like", "in", "null", "notnull"]


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


class Feed(Protocol):
    """What is fed with what is written, in the thread that writes: a hash."""

    def update(self, data: bytes | memoryview, /) -> None: ...


class Part(Protocol):
    """An upload that is not whole yet. Waits cooperatively; raises StoreFull, StoreError."""

    @property
    def size(self) -> int: ...

    def write(self, piece: bytes | memoryview, *feeds: Feed) -> None:
        """Append ``piece`` whole; ``feeds`` are fed with it. The caller's buffer is free again when it returns."""
        ...

    def fill(self, receive: Callable[[memoryview], int | None], most: int, *feeds: Feed) -> tuple[int, bool]:
        """Append what ``receive`` gets, at most ``most`` bytes; return how many, and whether that was the end.

        ``receive`` is called in a thread with a block to put bytes into, and returns how many came: 0 at the end, None
        where there are none yet, which ends this too.
        """
        ...

    def finish(self, name: str, *, only: bool = False) -> str:
        """Make the bytes durable and give them ``name``, or the next free one like it; return the name they got.

        ``only``: that name or none. Raises NameTaken.
        """
        ...

    def discard(self) -> None:
        """Forget what was not finished; once or often."""
        ...


class Uploads(Protocol):
    """Files that come in: nobody sees them before they are whole."""

    def begin(self) -> Part: ...

    def has(self, name: str) -> bool:
        """Whether a finished file has this name now; another one may get it at any time."""
        ...

    def sweep(self, age_s: float) -> int:
        """Delete what killed processes left behind and nobody wrote to for ``age_s`` seconds; return how many."""
        ...

    def dispose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Upload:
    """A resumable upload: what it was made with, and what was said of it later. Its offset is its file's size.

    ``length``: bytes it will have, None while nobody has said; ``ends``: with that many bytes it is whole, and nobody
    need say so. ``metadata``, ``concat``, ``digest``: headers of its creation as they came. ``wanted``: the algorithm
    of the digest that its end is to tell, or "". ``parts``: ids of what a final upload is made of. ``partial``: a
    part, which becomes no file of its own.
    ``finished``: the name of the file that it became, "" until then; ``size``: that file's, in bytes.
    """

    id: str
    name: str
    length: int | None = None
    ends: bool = True
    metadata: str = ""
    concat: str = ""
    partial: bool = False
    parts: tuple[str, ...] = ()
    digest: str = ""
    wanted: str = ""
    finished: str = ""
    size: int = 0
    inode: int = 0

    @property
    def over(self) -> bool:
        return bool(self.finished)


class HeldUpload(Protocol):
    """An upload that this caller alone works on, until ``release``; nobody's when its process is killed.

    Of one that is over, only ``upload``, ``delete`` and ``release`` may be used. Waits cooperatively; raises StoreFull,
    StoreError. What was appended stays, also after an error, but for what a full disk did not take.
    """

    @property
    def upload(self) -> Upload: ...

    @property
    def offset(self) -> int:
        """How many bytes there are; durable they are only after ``sync``."""
        ...

    def write(self, piece: bytes | memoryview, *feeds: Feed) -> None:
        """As that of a ``Part``."""
        ...

    def fill(self, receive: Callable[[memoryview], int | None], most: int, *feeds: Feed) -> tuple[int, bool]:
        """As that of a ``Part``."""
        ...

    def sync(self) -> int:
        """Make all bytes durable; return how many there are."""
        ...

    def cut(self, offset: int) -> None:
        """Take back what is after ``offset``."""
        ...

    def read(self, feed: Feed) -> None:
        """Feed all bytes, from the first."""
        ...

    def change(self, upload: Upload) -> None:
        """Put ``upload`` in the place of what is kept of it; durable when it returns."""
        ...

    def join(self) -> bool:
        """Make the bytes out of those of the parts. False: not all are whole yet. Raises PartMissing."""
        ...

    def finish(self, name: str) -> Upload:
        """Give the bytes a name, as ``Part.finish``; the upload is over and what is kept of it says which."""
        ...

    def delete(self) -> None:
        """Forget the upload, and the file that it became."""
        ...

    def release(self) -> None:
        """Once or often."""
        ...


class Resumables(Protocol):
    """Uploads that come in several requests, on any worker. Ids are hard to guess: who knows one may go on with it."""

    def create(self, upload: Upload) -> HeldUpload:
        """Make an upload, empty and held; durable when it returns. Raises PartMissing, StoreFull, StoreError."""
        ...

    def look(self, id: str) -> Upload:
        """Return what is kept of it, without holding it. Raises NoUpload."""
        ...

    def hold(self, id: str) -> HeldUpload | None:
        """Return the upload, held; None while another one holds it. Raises NoUpload."""
        ...

    def whole(self, id: str) -> int | None:
        """Return the size of a partial upload that is whole, None of one that is not yet. Raises PartMissing."""
        ...

    def waiting_for(self, id: str) -> Sequence[str]:
        """Return the final uploads that are to be joined and have this part."""
        ...

    def expires_at(self, id: str) -> float:
        """Return when (seconds since 1970) it expires, if nothing happens. Raises NoUpload."""
        ...

    def expire_within(self, id: str, seconds: float) -> None:
        """Let it expire that soon at the latest; one that has gone is passed over."""
        ...

    def sweep(self) -> Sequence[str]:
        """Delete what has expired and nobody holds; return the ids of those that were never finished."""
        ...

    def dispose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table that may be read: its columns in order, and the column of its key.

    ``types``: of each column, one of TYPES. ``estimate``: about how many rows it has, None when nobody knows.
    ``ordered``: no two rows have the same key, so that every read has the same order and can be continued anywhere.
    """

    name: str
    columns: tuple[str, ...]
    key: str
    types: tuple[ColumnType, ...] = ()
    estimate: int | None = field(default=None, compare=False)
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on a column. ``values`` as the export shows them: one, several for ``in``, none for ``null``."""

    column: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows: those of ``table`` that meet all ``filters`` and come after the key ``after`` (None: all).

    At most ``limit`` (None: no bound), in the order of the key, or against it. ``guarded``: a text that a spreadsheet
    would run as a formula gets an apostrophe before it, in CSV.
    """

    table: Table
    columns: tuple[str, ...]
    after: str | None = None
    limit: int | None = None
    filters: tuple[Filter, ...] = ()
    descending: bool = False
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows as whole lines joined by the format's line end, without the last one.

    ``id``: the key of its last row, after which an export continues; "" where none can.
    ``first``: the key of its first row; only the first block of a read has it.
    """

    data: bytes
    id: str
    rows: int
    first: str = ""


class Snapshot(Protocol):
    """One moment of the database: whatever is read through it is of that moment.

    ``name``: two snapshots of the same name show the same data.
    """

    name: str

    def rows(self, query: Query, form: Rows, last: bool = True) -> Iterator[Block | None]:
        """Yield the rows as blocks of about 64 KiB; None first, before each wait and at every tick.

        ``last``: nothing more is read through this snapshot, and what it holds is given back as soon as it can be.
        Closing the iterator ends the query. Raises StoreError, also in mid-stream.
        """
        ...

    def close(self) -> None:
        """Give back what it holds, once or often; a query that still runs is ended."""
        ...


class Tables(Protocol):
    """Cursors over the operator's tables. The database formats the rows."""

    def tables(self) -> Mapping[str, Table]:
        """The tables that may be read, by name."""
        ...

    def select(
        self,
        table: str,
        columns: Sequence[str] = (),
        after: str | None = None,
        limit: int | None = None,
        *,
        filters: Sequence[Filter] = (),
        descending: bool = False,
        guarded: bool = False,
    ) -> Query:
        """Check every name and value against the schema and return the query; no columns means all of them.

        Raises UnknownTable, UnknownColumn, BadKey, BadFilter.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Return the database as it is now. The caller closes it. Raises StoreBusy when as many are open as may."""
        ...

    def rows(self, query: Query, form: Rows) -> Iterator[Block | None]:
        """Yield the rows out of a snapshot of their own, made when the iterator is first asked."""
        ...

    def ping(self) -> None: ...

    def dispose(self) -> None: ...

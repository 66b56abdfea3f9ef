"""What is kept of bodies, as Protocols: files that are uploaded at once, and in several requests.

Rules:
- The stored thing is the truth: a file's size is its offset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


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
        """Return when (seconds since 1970) it expires, if nothing happens. Raises NoUpload, StoreError."""
        ...

    def expire_within(self, id: str, seconds: float) -> None:
        """Let it expire that soon at the latest; one that has gone is passed over."""
        ...

    def sweep(self) -> Sequence[str]:
        """Delete what has expired and nobody holds; return the ids of those that were never finished."""
        ...

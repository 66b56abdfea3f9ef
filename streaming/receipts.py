"""Receipts: what became of an export, in a log of its own that can be read during it and for some time after.

Rules:
- Every event holds the whole receipt as it stands: the last one is the receipt, and ``complete`` or ``failed`` its end.
- The bytes are those of the representation, before any content coding; an export has no heartbeats, so the same rows
  are the same bytes, and the same SHA-256, whenever they are sent.
- It is held under the worker's lease: that of a killed worker is ended by the others.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from stores.base import Config, Log
from stores.errors import StoreError
from stores.tables import Block
from streaming.errors import StreamFailed
from streaming.events import Event, Source, json_event
from streaming.framings import Framing
from streaming.leases import Lease

log = logging.getLogger("perennial.exports")

EXPORTS = "exports/"
_STEP_S = 0.25
_KEPT_EVENTS = 100


@dataclass(slots=True)
class Counts:
    """What has been written so far; ``first`` and ``last`` are keys, "" before the first row."""

    rows: int = 0
    bytes: int = 0
    first: str = ""
    last: str = ""


class Receipt:
    """The receipt ``id`` of one export, which ``about`` describes; ``estimate``: of its rows, None when unknown.

    ``length``: how many bytes were announced, None where none were.
    """

    def __init__(self, store: Log, id: str, about: Mapping[str, Any], estimate: int | None) -> None:
        self.id = id
        self.length: int | None = None
        self._store = store
        self._path = EXPORTS + id
        self._about = {**about, "estimate": estimate}
        self._counts = Counts()
        self._hash = hashlib.sha256()
        self._held = ExitStack()
        self._lease: Lease | None = None
        self._told_at = time.monotonic()
        self._ended = False

    def begin(self, lease: Lease, keep_s: float) -> None:
        """Take the id. Raises KeyReused, StreamClosed when it has been taken before, StoreError."""
        config = Config("application/json", ttl_s=int(keep_s), keep_events=_KEPT_EVENTS)
        owner = {**self._told("progress"), "export": secrets.token_hex(4)}
        with ExitStack() as stack:
            stack.enter_context(lease.holding(self._path))
            self._store.append(self._path, [json_event(owner, "progress")], create=config, key="begin")
            self._held = stack.pop_all()
        self._lease = lease

    def moved(self, block: Block) -> None:
        """Count a block's rows, and tell of it now and then."""
        counts = self._counts
        if not counts.rows:
            counts.first = block.first
        counts.rows += block.rows
        counts.last = block.id or counts.last
        now = time.monotonic()
        if now - self._told_at >= _STEP_S:
            self._told_at = now
            self._tell(self._told("progress"), "progress")

    def wrote(self, data: bytes) -> bytes:
        self._counts.bytes += len(data)
        self._hash.update(data)
        return data

    def complete(self) -> None:
        self._end({**self._told("complete"), "sha256": self._hash.hexdigest()}, "complete")

    def failed(self, sentence: str) -> None:
        self._end({**self._told("failed"), "error": sentence}, "failed")

    def close(self) -> None:
        """Say that it was interrupted, unless it has ended, or all of an announced length was given out."""
        if self._counts.bytes == self.length:  # a client that counts leaves with the last byte
            self.complete()
        self.failed("The client left, or the connection was cut.")

    def _told(self, state: str) -> dict[str, Any]:
        counts = self._counts
        return {
            "id": self.id,
            "state": state,
            "complete": state == "complete",
            **self._about,
            "rows": counts.rows,
            "bytes": counts.bytes,
            "first": counts.first or None,
            "last": counts.last or None,
        }

    def _end(self, told: Mapping[str, Any], type: str) -> None:
        if self._ended:
            return
        self._ended = True
        with self._held:
            self._tell(told, type, close=True)

    def _tell(self, told: Mapping[str, Any], type: str, close: bool = False) -> None:
        event = json_event(told, type)
        try:
            self._store.append(self._path, [event], close=close)
        except StoreError:
            log.exception("%s: its receipt could not be written; the export goes on", self._path)
            if close and self._lease is not None:
                self._lease.abandon(self._path, event)


class Receipted:
    """``framing``, whose bytes are counted for the receipt."""

    drain = None

    def __init__(self, framing: Framing, receipt: Receipt) -> None:
        self.content_type = framing.content_type
        self.headers = framing.headers
        self._framing = framing
        self._receipt = receipt

    @property
    def error(self) -> Callable[[str], bytes] | None:
        return self._framing.error

    def open(self) -> bytes:
        return self._receipt.wrote(self._framing.open())

    def encode(self, event: Event) -> bytes:
        try:
            return self._receipt.wrote(self._framing.encode(event))
        except StreamFailed as error:
            self._receipt.failed(str(error))
            raise

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        end = self._receipt.wrote(self._framing.close())
        self._receipt.complete()
        return end


class Exported:
    """The blocks of an export as a source of events, told to its receipt. ``close`` ends both, started or not."""

    def __init__(self, blocks: Iterator[Block | None], close: Callable[[], None], receipt: Receipt | None) -> None:
        self._blocks = blocks
        self._close = close
        self._receipt = receipt

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> Event | None:
        try:
            block = next(self._blocks)
        except (StoreError, StreamFailed) as error:
            if self._receipt is not None:
                self._receipt.failed(str(error))
            raise
        if block is None:
            return None
        if self._receipt is not None:
            self._receipt.moved(block)
        return Event(block.data, "", block.id)

    def close(self) -> None:
        try:
            self._blocks.close()  # type: ignore[attr-defined]  # every store's is a generator
        finally:
            self._close()
            if self._receipt is not None:
                self._receipt.close()


def events(blocks: Iterator[Block | None]) -> Source:
    """Yield the blocks of a store as events."""
    try:
        for block in blocks:
            yield None if block is None else Event(block.data, "", block.id)
    finally:
        blocks.close()  # type: ignore[attr-defined]  # every store's is a generator

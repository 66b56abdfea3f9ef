"""Blocks of an export in a temporary file, where their reader is slower than a query that must not wait for it."""

from __future__ import annotations

from typing import IO

from stores.channel import Channel
from stores.tables import Block


class Spool:
    """Blocks in a temporary file on their way into a channel, in order."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read_at = 0
        self._write_at = 0

    def write(self, block: Block, channel: Channel[Block]) -> None:
        """Hand ``block`` over if that needs no waiting, else keep it. Raises Cancelled."""
        channel.check()
        self._file.seek(self._write_at)
        keys = (block.id.encode(), block.first.encode())
        for number in (block.rows, len(keys[0]), len(keys[1]), len(block.data)):
            self._file.write(number.to_bytes(4))
        for part in (*keys, block.data):
            self._file.write(part)
        self._write_at = self._file.tell()
        while self._read_at < self._write_at and channel.has_place():
            channel.put(self._next())

    def drain(self, channel: Channel[Block]) -> None:
        """Hand the rest over, as fast as it is taken."""
        while self._read_at < self._write_at:
            channel.put(self._next())

    def _next(self) -> Block:
        self._file.seek(self._read_at)
        rows, *lengths = (int.from_bytes(self._file.read(4)) for _ in range(4))
        id, first, data = (self._file.read(length) for length in lengths)
        self._read_at = self._file.tell()
        return Block(data, id.decode(), rows, first.decode())

"""Whole records out of a body that comes in pieces: lines, where quotes may hold line ends (RFC 4180).

Rules:
- A record has at most 1 MiB: nothing that has no end is held.
- Its bytes are UTF-8, or ValueError says where they are not, after the records before that place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

RECORD_BYTES = 2**20

# A record and its LF. Possessive: a MiB of quotes is passed over at 20 ns each, and not remembered.
_RECORD = re.compile(r'((?:[^"\n]++|"[^"]*+")*+)\n')


class Records:
    """Whole records out of pieces, without the LF that ends each; ``quoted``: an LF within two quotes ends none.

    ``number``: of the record that was yielded last, from 1.
    """

    def __init__(self, *, quoted: bool) -> None:
        self.number = 0
        self._quoted = quoted
        self._held = bytearray()
        self._within = False
        self._at = 0  # where what is held begins in the body

    def take(self, data: bytes) -> bytes:
        """Return the records that ``data`` completes, as they stand, and hold what follows them."""
        end = self._end(data)
        block = bytes(self._held) + data[:end] if end else b""
        if end:
            self._held.clear()
        self._held += data[end:]
        return block

    def passed(self, block: bytes, count: int) -> None:
        """The block was read by somebody else, and had so many records."""
        self._at += len(block)
        self.number += count

    def check(self) -> None:
        """Raise ValueError when what is held is longer than a record may be."""
        if len(self._held) > RECORD_BYTES:
            raise ValueError(f"Record {self.number + 1} has more than {RECORD_BYTES} bytes.")

    def rest(self) -> Iterator[str]:
        """Yield the last record, which need not have an end."""
        if self._within:
            raise ValueError(f"Record {self.number + 1} ends within a quoted field, or has one quote too many.")
        if self._held:
            yield from self.texts(self.take(b"\n"))

    def _end(self, data: bytes) -> int:
        """Return where the last record that ends in ``data`` does, behind its LF; 0 when none does."""
        if not self._quoted or b'"' not in data:
            return 0 if self._within else data.rfind(b"\n") + 1
        parts = data.split(b'"')
        end, inside = len(data), self._within ^ (len(parts) % 2 == 0)
        self._within = inside
        for part in reversed(parts):
            if not inside and (found := part.rfind(b"\n")) >= 0:
                return end - len(part) + found + 1
            end -= len(part) + 1
            inside = not inside
        return 0

    def texts(self, block: bytes) -> Iterator[str]:
        """Yield the records of a block."""
        failure = None
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            text = block[: error.start].decode()
            failure = ValueError(f"Byte {self._at + error.start} of the body is not UTF-8.")
        for record in self._whole(text) if failure is None else self._begun(text):
            self.number += 1
            if len(record) > RECORD_BYTES // 4 and len(record.encode()) > RECORD_BYTES:
                raise ValueError(f"Record {self.number} has more than {RECORD_BYTES} bytes.")
            yield record.removeprefix("\ufeff") if self.number == 1 else record
        self._at += len(block)
        if failure is not None:
            raise failure

    def _whole(self, text: str) -> list[str]:
        """Return the records of a text that ends with the last one's end."""
        if self._quoted and '"' in text:
            return _RECORD.findall(text)
        return text.split("\n")[:-1]

    def _begun(self, text: str) -> Iterator[str]:
        """Yield the records of a text that may end in the middle of one."""
        if not self._quoted:
            yield from text.split("\n")[:-1]
            return
        at = 0
        while (found := _RECORD.match(text, at)) is not None:
            yield found[1]
            at = found.end()

"""The decoder of a chunked body (RFC 9112, 7.1), as model servers send them.

Rules:
- Bytes in, the body's bytes out; whatever the cuts, the same body. No socket, no clock.
- All chunks that came together leave together: under load many of a model's tokens are one piece of work.
- What is no chunk is a ValueError; extensions and trailers are passed over, at most ``LINE_BYTES`` of each line.
"""

from __future__ import annotations

LINE_BYTES = 8192
_SIZE_CHARS = 15
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Chunked:
    """``decode`` the pieces in order until ``ended``; ``rest`` is what came after the end."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._held = b""  # of a line, or of the line end after a chunk's data
        self._left = 0  # of the chunk's data
        self._in_trailer = False

    def decode(self, piece: bytes) -> bytes:
        """Return what the piece holds of the body. Raises ValueError."""
        if (data := self._whole(piece)) is not None:
            return data
        return self._decode(piece)

    def _whole(self, piece: bytes) -> bytes | None:
        """The data of a piece that is one chunk, as nearly each of a model's tokens is; None: it is no such piece."""
        if self._held or self._left or self._in_trailer:
            return None
        end = piece.find(b"\r\n", 0, _SIZE_CHARS + 2)
        size = piece[:end]
        if end <= 0 or not _HEX.issuperset(size) or len(piece) != end + 4 + (count := int(size, 16)) or not count:
            return None
        return piece[end + 2 : -2] if piece.endswith(b"\r\n") else None

    def _decode(self, piece: bytes) -> bytes:
        if self._held:
            piece = self._held + piece
            self._held = b""
        at, size, data = 0, len(piece), []
        while at < size and not self.ended:
            if self._left > 2:  # data, and the CRLF after it
                some = piece[at : at + self._left - 2]
                data.append(some)
                at += len(some)
                self._left -= len(some)
                continue
            end = piece.find(b"\n", at)
            if end < 0:
                break
            self._line(piece[at:end].removesuffix(b"\r"))
            at = end + 1
        if self.ended:
            self.rest = piece[at:]
        else:
            self._held = piece[at:]
            if len(self._held) > LINE_BYTES:
                raise ValueError("a line without end in a chunked body")
        return data[0] if len(data) == 1 else b"".join(data)

    def _line(self, line: bytes) -> None:
        if self._left:
            if line:
                raise ValueError("a chunk is longer than it said")
            self._left = 0
        elif self._in_trailer:
            self.ended = not line
        else:
            number = line.partition(b";")[0].strip(b" \t")
            if not number or len(number) > _SIZE_CHARS or not _HEX.issuperset(number):
                raise ValueError(f"no size of a chunk: {line[:40]!r}")
            if count := int(number, 16):
                self._left = count + 2
            else:
                self._in_trailer = True

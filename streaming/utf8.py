"""UTF-8 as it arrives (RFC 3629): the text so far, or the place of the first byte that cannot be.

Rules:
- A character that is cut by the end of a piece waits for its rest; at most three bytes are held.
- What is no UTF-8 raises ValueError with a sentence that says where, counted from 0 over all pieces.
"""

from __future__ import annotations

import codecs


class Utf8:
    """An incremental decoder that knows its place."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._at = 0

    @property
    def at_boundary(self) -> bool:
        return not self._decoder.getstate()[0]

    def passes(self, data: bytes) -> bool:
        """Whether ``data`` is plain ASCII between whole characters, and so its own text; it counts as decoded then."""
        if data.isascii() and self.at_boundary:
            self._at += len(data)
            return True
        return False

    def decode(self, data: bytes, *, last: bool = False) -> str:
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, last)
        except UnicodeDecodeError as error:
            raise ValueError(f"Byte {self._at - held + error.start} of the body is not UTF-8.") from error
        self._at += len(data)
        return text

    def flush(self) -> None:
        """Raises ValueError when a character was begun and not finished."""
        self.decode(b"", last=True)

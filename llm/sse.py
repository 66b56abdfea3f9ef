"""The decoder of server-sent events, as model servers send them (HTML Living Standard, 9.2.6).

Rules:
- Bytes in, messages out; whatever the cuts, the same messages. No socket, no clock.
- CR, LF and CRLF end lines, and nothing else does; comments are no messages.
- A server that never ends its line or its message costs at most ``LIMIT_BYTES``.
"""

from __future__ import annotations

from typing import NamedTuple

LIMIT_BYTES = 4 * 2**20


class Message(NamedTuple):
    """``data``: the data lines joined by LF. ``event``: the message's type, "" when it has none."""

    data: bytes
    event: str = ""


class Decoder:
    """``decode`` the pieces in order, then ``flush``. Raises ValueError beyond ``LIMIT_BYTES``."""

    def __init__(self) -> None:
        self._line = b""
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._first = True

    def decode(self, piece: bytes) -> list[Message]:
        if (found := self.plain(piece)) is not None:
            return [Message(data) for data in found]
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")  # the second half of a CRLF that was cut in two
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        # bytes.splitlines knows exactly the standard's three line ends (str.splitlines eight more).
        lines = (self._line + piece).splitlines(keepends=True)
        self._line = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if len(self._line) + self._size > LIMIT_BYTES:
            raise ValueError(f"a message of more than {LIMIT_BYTES} bytes")
        return [message for line in lines if (message := self._read(line.rstrip(b"\r\n"))) is not None]

    def plain(self, piece: bytes) -> list[bytes] | None:
        """The data of a piece as nearly all are, of whole messages of one line of data each; None: it is no such piece.

        Such a piece leaves the decoder as it was.
        """
        if self._first or self._line or self._data or self._event or self._after_cr:
            return None
        if not piece.endswith(b"\n\n") or b"\r" in piece:
            return None
        if piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2:
            return [piece[6:-2]]
        blocks = piece[:-2].split(b"\n\n")
        if not all(block.startswith(b"data: ") and b"\n" not in block for block in blocks):
            return None
        return [block[6:] for block in blocks]

    def flush(self) -> list[Message]:
        """Return what the end left unfinished.

        The standard drops it. Some servers forget the last blank line, and the JSON inside says itself whether it is
        whole.
        """
        messages = [message for line in (self._line, b"") if (message := self._read(line)) is not None]
        self._line = b""
        return messages

    def _read(self, line: bytes) -> Message | None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Message | None:
        message = Message(b"\n".join(self._data), self._event) if self._data else None
        self._data.clear()
        self._event = ""
        self._size = 0
        return message

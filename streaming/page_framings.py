"""Streams as pages: HTML in whose middle a stream arrives, for a browser that runs no scripts.

Rules:
- As in ``framings``: bytes in, bytes out, one instance for one response.
- The markup around a stream is given; what comes of the stream is text, escaped byte by byte: ``&``, ``<`` and ``>``
  are none of the bytes of a longer character, so that it may be cut anywhere.
- What is written ends with a whole character and a whole line end, or a heartbeat, which may follow anything, would
  stand in the middle of it: a browser would read two broken characters, or two line ends. What is not whole waits.
- A page says itself how its stream ended: a failure is its last sentence, and the page comes to its end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from streaming.chat_framings import decode_delta, failed
from streaming.chat_parts import STOPPED
from streaming.errors import StreamFailed
from streaming.events import Event

# Where a template leaves the place of the stream: what a person writes is escaped, and cannot be this.
HOLE = "<!-- stream -->"
RESTARTED = "The server is being restarted; this page comes again by itself."
_AGAIN = b'<meta http-equiv="refresh" content="%d">'
# All pages are handed over in the same moment, and the server needs one to come back: a page that finds nobody is an
# error of the browser's, which does not come again.
_AGAIN_S = (2, 6)


class Page:
    """A page around a stream. ``around(sentence)``: all of it, with ``HOLE`` in it, and what is said at its end.

    ``write``: what an event is in it. ``again``: a stream without an end, whose page asks anew after a restart.
    """

    content_type = "text/html; charset=utf-8"
    headers: Mapping[str, str] = {}

    def __init__(self, around: Callable[[str], str], write: Callable[[Event], bytes], again: bool = False) -> None:
        self._around = around
        self._write = write
        self._held = b""
        self.drain: Callable[[], bytes] | None = self._drained if again else None

    def open(self) -> bytes:
        return self._around("").partition(HOLE)[0].encode()

    def encode(self, event: Event) -> bytes:
        data = self._held + self._write(event)
        cut = whole(data)
        self._held = data[cut:]
        return data[:cut]

    def idle(self) -> bytes:
        return b"<!-- -->"

    def error(self, message: str) -> bytes:
        held, self._held = self._held, b""
        return held + self._around(message).partition(HOLE)[2].encode()

    def close(self) -> bytes:
        return self.error("")

    def _drained(self) -> bytes:
        return self.error(RESTARTED) + _AGAIN % random.randint(*_AGAIN_S)


def whole(data: bytes) -> int:
    """Return how much of UTF-8 there is without a last character, or a CR, to which more may belong."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # the first byte of a character: it says how long that is (RFC 3629, 3)
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back else len(data)
        if byte < 0x80:
            break
    return len(data) - data.endswith(b"\r")


def escaped(data: bytes) -> bytes:
    """Return UTF-8 as the text of an element."""
    return data.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")


def text(event: Event) -> bytes:
    """A piece of a text."""
    return escaped(event.data)


def row(event: Event) -> bytes:
    """A row of a list: type, cursor and data."""
    type, id, data = (escaped(each) for each in (event.type.encode(), event.id.encode(), event.data))
    return b"<li><b>%b</b><small>%b</small><code>%b</code></li>\n" % (type, id, data)


class Answer:
    """An answer of a model as it is written; ``text``: what has come of it."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def write(self, event: Event) -> bytes:
        """Raises StreamFailed for an answer that is not whole."""
        if event.type == "text-delta":
            delta = decode_delta(event.data).delta
            self._pieces.append(delta)
            return escaped(delta.encode())
        if event.type == "error":
            raise failed(event)
        if event.type == "abort":
            raise StreamFailed(STOPPED)
        return b""

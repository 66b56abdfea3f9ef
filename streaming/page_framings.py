"""Streams as pages: HTML in whose middle a stream arrives, for a browser that runs no scripts.

Rules:
- As in ``framings``: bytes in, bytes out, one instance for one response.
- The markup around a stream is given; what comes of the stream is text, escaped byte by byte: ``&``, ``<`` and ``>``
  are none of the bytes of a longer character, so that it may be cut anywhere.
- A page says itself how its stream ended: a failure is its last sentence, and the page comes to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streaming.chat_framings import decode_delta, failed
from streaming.chat_parts import STOPPED
from streaming.errors import StreamFailed
from streaming.events import Event

# Where a template leaves the place of the stream: what a person writes is escaped, and cannot be this.
HOLE = "<!-- stream -->"
RESTARTED = "The server is being restarted; this page comes again by itself."
_AGAIN = '<meta http-equiv="refresh" content="1">'


class Page:
    """A page around a stream. ``around(sentence)``: all of it, with ``HOLE`` in it, and what is said at its end.

    ``write``: what an event is in it. ``again``: a stream without an end, whose page asks anew after a restart.
    """

    content_type = "text/html; charset=utf-8"
    headers: Mapping[str, str] = {}

    def __init__(self, around: Callable[[str], str], write: Callable[[Event], bytes], again: bool = False) -> None:
        self._around = around
        self._write = write
        self.drain: Callable[[], bytes] | None = self._drained if again else None

    def open(self) -> bytes:
        return self._around("").partition(HOLE)[0].encode()

    def encode(self, event: Event) -> bytes:
        return self._write(event)

    def idle(self) -> bytes:
        return b"<!-- -->"

    def error(self, message: str) -> bytes:
        return self._around(message).partition(HOLE)[2].encode()

    def close(self) -> bytes:
        return self.error("")

    def _drained(self) -> bytes:
        return self.error(RESTARTED) + _AGAIN.encode()


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

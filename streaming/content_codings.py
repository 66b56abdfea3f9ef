"""Content codings: a framing whose bytes are compressed on their way, where the client asked for it.

Rules:
- Who says nothing gets identity. zstd before gzip where the client likes both the same (RFC 9110, 12.5.3).
- Everything that leaves is complete up to there: the first block, and each that follows, can be read when it arrives.
- A cut stays a cut: the end of the compressed body is written only where the stream came to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streaming.compression import Compressor, Gzip, Zstd
from streaming.events import Event
from streaming.framings import Framing

_CODINGS: dict[str, Callable[[], Compressor]] = {"zstd": Zstd, "gzip": Gzip}


class Compressed:
    """``framing``, compressed with ``coding``."""

    drain = None

    def __init__(self, framing: Framing, coding: str) -> None:
        self.content_type = framing.content_type
        self.headers: Mapping[str, str] = {**framing.headers, "Content-Encoding": coding}
        self._framing = framing
        self._compressor = _CODINGS[coding]()

    @property
    def error(self) -> Callable[[str], bytes] | None:
        return None if self._framing.error is None else self._failed

    def open(self) -> bytes:
        return self._now(self._framing.open())

    def encode(self, event: Event) -> bytes:
        return self._now(self._framing.encode(event))

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return self._compressor.encode(self._framing.close()) + self._compressor.flush()

    def _failed(self, message: str) -> bytes:
        assert self._framing.error is not None
        return self._now(self._framing.error(message))  # without the coding's own end: it did not come to its end

    def _now(self, data: bytes) -> bytes:
        return self._compressor.encode(data) + self._compressor.sync() if data else b""


def coding(accept: str) -> str:
    """Return the coding to use for an Accept-Encoding: "zstd", "gzip", or "" for identity (RFC 9110, 12.5.3)."""
    weights = {}
    for part in accept.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weights["gzip" if name == "x-gzip" else name] = _weight(quality)
    best = max(_CODINGS, key=lambda name: weights.get(name, 0.0))
    # "*" alone is no wish for a coding; and who likes identity better gets that.
    return best if 0 < weights.get(best, 0.0) >= weights.get("identity", 0.0) else ""


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0

"""Transforms by name, and several of them in a row.

Rules:
- Every transform is a pure incremental codec: bytes in, bytes out, cut anywhere.
- A pipeline is driven step by step: each is short, and gives little, so that its driver can rest and write in between.
- What a transform makes is bounded, by itself and by what came: a bomb is refused before it is all there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streaming.compression import Gunzip, Gzip, Unzstd, Zstd
from streaming.delimited import CSVToNDJSON, NDJSONToCSV
from streaming.errors import TooLarge
from streaming.normal_form import NFC
from streaming.transforms import CaseMap, Digest, Identity, Lower, Numbered

# At most so much goes into a codec in one step: a fast one makes it in a millisecond, and so does a slow one. What
# comes of the fast ones is what the pump writes at once.
_SLICE_BYTES = 64 * 1024
_SMALL_SLICE_BYTES = 32 * 1024
# ASCII is mapped at a GB/s: what is between two steps would take longer than the step.
_ASCII_SLICE_BYTES = 256 * 1024
# So much may be made of a few bytes: a short body of spaces compresses well without being a bomb.
FREE_BYTES = 16 * 2**20


class Codec(Protocol):
    """Makes about as much as it gets."""

    def encode(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class Expanding(Protocol):
    """May make much of little: a step of ``decode`` gives some 64 KiB, or nothing for now."""

    def decode(self, data: bytes) -> Iterator[bytes]: ...
    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Transform:
    """``slice_bytes``: what goes into it in one step; ``ascii_slice_bytes``: of what is ASCII as a whole."""

    make: Callable[[], Codec | Expanding]
    content_type: str
    slice_bytes: int = _SLICE_BYTES
    ascii_slice_bytes: int = 0


_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"

TRANSFORMS: Mapping[str, Transform] = {
    "upper": Transform(lambda: CaseMap(str.upper, bytes.upper), _TEXT, ascii_slice_bytes=_ASCII_SLICE_BYTES),
    "lower": Transform(Lower, _TEXT, _SMALL_SLICE_BYTES),
    "casefold": Transform(lambda: CaseMap(str.casefold, bytes.lower), _TEXT, ascii_slice_bytes=_ASCII_SLICE_BYTES),
    "nfc": Transform(NFC, _TEXT, _SMALL_SLICE_BYTES),
    "lines": Transform(Numbered, _TEXT, 8 * 1024),  # of empty lines
    "identity": Transform(Identity, _TEXT),
    "csv-to-ndjson": Transform(CSVToNDJSON, "application/x-ndjson"),
    "ndjson-to-csv": Transform(NDJSONToCSV, "text/csv; charset=utf-8; header=present"),
    "gzip": Transform(Gzip, "application/gzip"),
    "gunzip": Transform(Gunzip, _BYTES),
    "zstd": Transform(Zstd, "application/zstd"),
    "unzstd": Transform(Unzstd, _BYTES),
    "sha256": Transform(Digest, _BYTES),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """``bytes``: that one transform may make; ``ratio``: of each byte of the body, beyond the first 16 MiB."""

    bytes: int
    ratio: int


class Pipeline:
    """The named transforms, each fed with what the one before it makes."""

    def __init__(self, names: Sequence[str], limits: Limits) -> None:
        self.content_type = TRANSFORMS[names[-1]].content_type
        self._limits = limits
        self._received = 0
        self._fresh = False
        self._stages = [_Stage(name, f"{name}: " if len(names) > 1 else "") for name in names]

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` becomes, or b"" to rest. Raises ValueError with one sentence, TooLarge for a bomb."""
        self._received += len(data)
        self._fresh = True
        yield from self._through(0, data)

    def sync(self) -> Iterator[bytes]:
        """Yield what compressors hold back, for a reader who waits while nothing comes."""
        if self._fresh:
            self._fresh = False
            for place, stage in enumerate(self._stages):
                yield from self._through(place + 1, stage.sync())

    def flush(self) -> Iterator[bytes]:
        for place, stage in enumerate(self._stages):
            yield from self._through(place + 1, stage.flush())

    def _through(self, place: int, data: bytes) -> Iterator[bytes]:
        """Yield what the stages from ``place`` on make of ``data``."""
        if place == len(self._stages) or not data:
            yield data
            return
        stage = self._stages[place]
        for made in stage.decode(data):
            self._check(stage)
            yield from self._through(place + 1, made)

    def _check(self, stage: _Stage) -> None:
        if stage.made > self._limits.bytes:
            raise TooLarge(f"{stage.name} makes more than the {self._limits.bytes} bytes that a transform may.")
        if stage.made > FREE_BYTES + self._limits.ratio * self._received:
            raise TooLarge(f"{stage.name} makes more than {self._limits.ratio} bytes out of each that came.")


class _Stage:
    """One transform of a pipeline. ``made``: how many bytes so far. ``prefix`` says whose failure it is."""

    def __init__(self, name: str, prefix: str) -> None:
        self.name = name
        self.made = 0
        self._prefix = prefix
        self._codec = TRANSFORMS[name].make()

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            for made in self._steps(data):
                self.made += len(made)
                yield made
        except ValueError as error:
            raise ValueError(f"{self._prefix}{error}") from error

    def _steps(self, data: bytes) -> Iterator[bytes]:
        if hasattr(self._codec, "decode"):
            return self._codec.decode(data)
        transform = TRANSFORMS[self.name]
        most = transform.slice_bytes
        if transform.ascii_slice_bytes and data.isascii():
            most = transform.ascii_slice_bytes
        if len(data) <= most:
            return iter((self._codec.encode(data),))
        return map(self._codec.encode, (data[at : at + most] for at in range(0, len(data), most)))

    def sync(self) -> bytes:
        return self._codec.sync() if hasattr(self._codec, "sync") else b""

    def flush(self) -> bytes:
        try:
            made = self._codec.flush()
        except ValueError as error:
            raise ValueError(f"{self._prefix}{error}") from error
        self.made += len(made)
        return made

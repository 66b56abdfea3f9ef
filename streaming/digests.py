"""Digests of a body while it passes, and the fields that announce and ask for them (RFC 9530; tus 1.0, checksum).

Rules:
- Pure: what is fed may be fed in another thread, from one at a time.
- An algorithm that we do not know is passed over, as the RFC says; a field that cannot be read is a 400, since whoever
  sends a digest wants it to be compared.
- ``md5``, ``sha1`` and ``crc32`` tell an accident and no attack; they are taken where a protocol has nothing else.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from streaming.errors import BadRequest

_ITEM = re.compile(r'[ \t]*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):((?:;[^,"]*)?)[ \t]*')
_WANT = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=([0-9]{1,2})[ \t]*")


class Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class CRC32:
    """The checksum of ISO 3309, as four bytes, the highest first."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


# By the names of RFC 9530, 5, and by those of tus.
FIELDS: Mapping[str, Callable[[], Hasher]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
CHECKSUMS: Mapping[str, Callable[[], Hasher]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "crc32": CRC32,
}


def parse(field: str, name: str) -> dict[str, bytes]:
    """Return what ``Content-Digest`` or ``Repr-Digest`` (its ``name``) announces, of the algorithms we know."""
    found: dict[str, bytes] = {}
    for item in field.split(",") if field else ():
        match = _ITEM.fullmatch(item)
        if not match:
            raise BadRequest(f"{name} must be a list of digests such as sha-256=:<base64>:.", parameter=name)
        if match[1] in FIELDS:
            found[match[1]] = from_base64(match[2], name)
    return found


def write(digests: Mapping[str, bytes]) -> str:
    """Return the value of a digest field (RFC 9530, 2 and 3)."""
    return ", ".join(
        f"{name}=:{binascii.b2a_base64(value, newline=False).decode()}:" for name, value in digests.items()
    )


def wanted(field: str, name: str) -> str:
    """Return the algorithm that ``Want-Repr-Digest`` (its ``name``) prefers of those we know, or "" (RFC 9530, 4)."""
    weights: dict[str, int] = {}
    for item in field.split(",") if field else ():
        match = _WANT.fullmatch(item)
        if not match or int(match[2]) > 10:
            raise BadRequest(f"{name} must be a list of algorithms such as sha-256=10.", parameter=name)
        weights[match[1]] = int(match[2])
    known = [each for each in weights if each in FIELDS and weights[each]]
    return max(known, key=lambda each: weights[each], default="")


def from_base64(text: str, name: str) -> bytes:
    """Return the bytes. Raises BadRequest that names the field."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{name} is not correct base64.", parameter=name) from error


class Digests:
    """The digests of what is fed: those ``announced``, to be compared at the end, and those ``wanted``."""

    def __init__(
        self,
        *announced: Mapping[str, bytes],
        wanted: Iterable[str] = (),
        known: Mapping[str, Callable[[], Hasher]] = FIELDS,
    ) -> None:
        self._announced = [(name, value) for each in announced for name, value in each.items()]
        names = {*(name for name, _ in self._announced), *wanted}
        self._hashers = {name: known[name]() for name in names if name}

    def __bool__(self) -> bool:
        return bool(self._hashers)

    def update(self, data: bytes | memoryview, /) -> None:
        for hasher in self._hashers.values():
            hasher.update(data)

    def digest(self, name: str) -> bytes:
        return self._hashers[name].digest()

    def mismatch(self) -> str:
        """Return the algorithm of which another digest was announced, or ""."""
        wrong = (
            name for name, value in self._announced if not hmac.compare_digest(self._hashers[name].digest(), value)
        )
        return next(wrong, "")

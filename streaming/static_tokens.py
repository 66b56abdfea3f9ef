"""Static tokens: made once, given to a caller, and kept here as hashes only.

Rules:
- A token is 256 random bits, so that a plain SHA-256 of it can be kept: there is nothing to be guessed.
- A token is found by its hash: no comparison tells by its time how much of it was right (CWE-208).
- ``API_TOKENS`` has an entry a token, separated by ";" or line ends: ``<name> <sha256> <scope> <scope> …``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping

from streaming.grants import Caller, scopes

# Scanners for leaked secrets look for such beginnings.
PREFIX = "pnl_"
# What the names of callers begin with that have one.
CALLER = "token:"
_NAME = re.compile("[A-Za-z0-9._-]{1,64}")
_HASH = re.compile("(?:sha256:)?([0-9a-f]{64})")


def make() -> str:
    """Return a new token."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def entry(name: str, token_hash: str, granted: list[str]) -> str:
    """Return the entry for ``API_TOKENS``. Raises ValueError for what could not be read again."""
    text = " ".join((name, token_hash, *granted))
    read(text)
    return text


def read(text: str) -> Mapping[str, Caller]:
    """Return the callers by the hash of their token. Raises ValueError with a sentence that names what is wrong."""
    callers: dict[str, Caller] = {}
    names = set()
    for each in re.split("[;\n]", text):
        if not (words := each.split()):
            continue
        name, found = words[0], _HASH.fullmatch(words[1]) if len(words) > 1 else None
        if not _NAME.fullmatch(name) or found is None:
            raise ValueError(f"the entry of {name[:64]!r} is not <name> <SHA-256 of the token in hex> <scope> …")
        if name in names:
            raise ValueError(f"there are two entries of {name}")
        if len(words) < 3:
            raise ValueError(f"the entry of {name} grants nothing: * is everything")
        names.add(name)
        callers[found[1]] = Caller(f"{CALLER}{name}", scopes(words[2:]))
    return callers

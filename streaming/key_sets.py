"""The public keys of whoever signs tokens: a JWK Set (RFC 7517, 5) in a file or behind a URL.

Rules:
- A set is fetched once and kept for ``KEEP_S`` seconds; a key that is not in it makes it be fetched anew, at most every
  ``AGAIN_S`` seconds: tokens with made-up key ids must not make a storm of fetches (CWE-400).
- While one request fetches, the others wait for the same answer. A set that cannot be fetched leaves the old one good.
- Symmetric keys of a set are passed over: whoever can read the set could sign with them.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import jwt
from gevent.lock import Semaphore

from streaming.errors import Unavailable

log = logging.getLogger("perennial.access")

KEEP_S = 300.0
AGAIN_S = 10.0
FETCH_S = 5.0
_BYTES = 2**20
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


class KeySet:
    """The keys at ``place``: a URL (https, or http to this machine), or a file's path."""

    def __init__(self, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._keys: list[Any] = []
        self._fetched_at = self._asked_at = -KEEP_S
        self._lock = Semaphore()

    def find(self, id: str | None, algorithm: str | None) -> Any:
        """Return the key of this id and algorithm; without an id the only one of the algorithm.

        Raises jwt.PyJWTError when there is none, Unavailable when no set could ever be fetched.
        """
        if algorithm not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError("no algorithm of ours")
        if self._clock() - self._fetched_at >= KEEP_S:
            self._fetch()
        found = self._named(id, algorithm)
        if not found:
            self._fetch()
            found = self._named(id, algorithm)
        if len(found) != 1:
            raise jwt.InvalidKeyError("no such key")
        return found[0]

    def _named(self, id: str | None, algorithm: str) -> list[Any]:
        return [key for key in self._keys if key.algorithm_name == algorithm and id in (None, key.key_id)]

    def _fetch(self) -> None:
        with self._lock:
            if self._clock() - self._asked_at < AGAIN_S:
                return
            self._asked_at = self._clock()
            try:
                self._keys = _usable(json.loads(self._read()))
                self._fetched_at = self._clock()
            except (OSError, ValueError, gevent.Timeout) as error:
                log.warning("the key set could not be read: %s", error)
                if not self._keys:
                    raise Unavailable("The keys that tokens are signed with cannot be had.", retry_after_s=5) from error

    def _read(self) -> bytes:
        if not self._place.startswith(("https://", "http://")):
            return Path(self._place).read_bytes()
        with (
            gevent.Timeout(FETCH_S, TimeoutError()),
            urllib.request.urlopen(self._place, timeout=FETCH_S) as answer,
        ):
            return bytes(answer.read(_BYTES))


def _usable(document: Any) -> list[Any]:
    """Return the keys of the set that can be used. Raises ValueError when it is no set."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("it is no JWK Set")
    keys = []
    for each in document["keys"]:
        try:
            key = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            continue  # a kind of key that is not known: another one may be
        if key.algorithm_name in ALGORITHMS and each.get("use", "sig") == "sig":
            keys.append(key)
    return keys

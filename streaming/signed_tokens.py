"""Signed tokens (JWT, RFC 7519): who signed them is checked, and what their claims grant.

Rules:
- The algorithm is pinned by the key, never chosen by the token: HS256 for JWT_KEY, and of a key set what its key is for
  (RFC 8725, 3.1). A key set's symmetric keys are not used.
- ``exp`` and ``sub`` are required; ``aud`` and ``iss`` where they are set here, and a token that has an audience is
  refused where none is.
- ``read`` and ``write`` are lists of path patterns, or one; ``scope`` (RFC 8693, 4.2) says the same in words.
- A token for links (``use``: "link") is good in a URL and nowhere else, reads only, and lives ``link_s`` at the most: a
  URL is seen by more people than a header. ``path``: the only one that it is for. ``caller``: whose it is, where
  JWT_KEY says so, which is ours; of a key set nobody may say that it is another one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt

from streaming import callers
from streaming.grants import Caller, Grants, checked, scopes
from streaming.key_sets import KeySet
from streaming.signed_links import USE

log = logging.getLogger("perennial.access")

KEY_BYTES = 32
_SYMMETRIC = ("HS256",)


class SignedTokens:
    """Those signed by ``key`` (HS256) or by a key of ``keys``."""

    def __init__(
        self,
        key: str,
        keys: KeySet | None,
        audience: str,
        issuer: str,
        link_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._link_s = link_s
        self._clock = clock

    def caller(self, token: str, in_link: bool) -> Caller:
        """Return whose token it is. Raises Unauthorized (``expired`` where that is all), Unavailable."""
        claims, ours = self._claims(token)
        try:
            grants = _granted(claims)
            ends_at = float(claims["exp"])
            path, name = _text(claims.get("path")), f"jwt:{_text(claims['sub'])}"
        except (ValueError, TypeError, OverflowError) as error:
            raise callers.invalid(f"The token's claims cannot be read: {error}.") from None
        if (claims.get("use") == USE) != in_link:
            where = "in links only" if not in_link else "in the header Authorization only"
            raise callers.invalid(f"This token is good {where}.")
        if not in_link:
            return Caller(name, grants, ends_at)
        if ends_at > self._clock() + self._link_s:
            raise callers.invalid(f"A link's token may live {self._link_s:g} seconds at the most.")
        if ours:
            name = str(claims.get("caller", name))
        return Caller(name, Grants(grants.read), ends_at, link=path)

    def _claims(self, token: str) -> tuple[Mapping[str, Any], bool]:
        """Return the claims, and whether JWT_KEY signed them."""
        try:
            key, algorithms = self._verifier(token)
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self._audience or None,
                issuer=self._issuer or None,
                # Whoever issues it may be a second ahead: that it was issued later than now says nothing.
                options={"require": ["exp", "sub"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError:
            raise callers.invalid("The token has expired.", expired=True) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # What it was stands in the log without the token; its caller is told as much as helps to mend it.
            log.info("a signed token was refused: %s", type(error).__name__)
            raise callers.invalid(_sentence(error)) from None
        return claims, algorithms is _SYMMETRIC

    def _verifier(self, token: str) -> tuple[Any, Sequence[str]]:
        header = jwt.get_unverified_header(token)
        if self._key and header.get("alg") in _SYMMETRIC:
            return self._key, _SYMMETRIC
        if self._keys is None:
            raise jwt.InvalidAlgorithmError("no key for this algorithm")
        found = self._keys.find(header.get("kid"), header.get("alg"))
        return found.key, (found.algorithm_name,)


def sign(key: str, claims: Mapping[str, Any]) -> str:
    """Return the claims as a token that ``key`` signs."""
    return jwt.encode(dict(claims), key, algorithm=_SYMMETRIC[0])


def _sentence(error: Exception) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"The token has no claim {error.claim}."
    if isinstance(error, jwt.InvalidAudienceError):
        return "The token is for another audience."
    if isinstance(error, jwt.InvalidIssuerError):
        return "The token is of another issuer."
    if isinstance(error, jwt.ImmatureSignatureError):
        return "The token is not yet valid."
    return "The token is not valid here."


def _granted(claims: Mapping[str, Any]) -> Grants:
    said = scopes(_words(claims.get("scope"), of_ours=True))
    read, write = (tuple(checked(each, listed=True) for each in _words(claims.get(name))) for name in ("read", "write"))
    return Grants(said.read + read, said.write + write)


def _words(claim: Any, of_ours: bool = False) -> list[str]:
    """A list of texts, or one text of several words. ``of_ours``: other applications' words may stand among them."""
    words = claim.split() if isinstance(claim, str) else claim or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("read, write and scope must be texts or lists of texts")
    return [word for word in words if not of_ours or word.startswith(("read:", "write:"))]


def _text(claim: Any) -> str:
    if not isinstance(claim or "", str):
        raise ValueError("path must be a text")
    text: str = claim or ""
    text.encode()  # JSON may name half a character: nothing can be called so
    return text

"""Tokens for the tests: static ones, and signed ones as another implementation makes them.

``signed`` is written from RFC 7515 and 7519 with the standard library alone: what it makes comes not from our code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

KEY = "a key of the tests that is long enough: 0123456789"
ADMIN = "an-admin's-token"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def entry(name: str, token: str, *scopes: str) -> str:
    """An entry of API_TOKENS."""
    return " ".join((name, hashlib.sha256(token.encode()).hexdigest(), *scopes))


def static(**scopes: str) -> str:
    """API_TOKENS in which the token of each name is the name itself: ``static(ann="read:/a *")``; and ``ADMIN``."""
    return ";".join([entry("admin", ADMIN, "*"), *(entry(name, name, *text.split()) for name, text in scopes.items())])


def signed(sub: str = "ann", for_s: float = 1800, key: str = KEY, alg: str = "HS256", **claims: Any) -> str:
    """A token that ``key`` signs by HS256, whatever ``alg`` it says."""
    head = {"typ": "JWT", "alg": alg}
    body = {"sub": sub, "exp": time.time() + for_s, **claims}
    text = ".".join(
        encoded(json.dumps(part).encode()) for part in (head, {k: v for k, v in body.items() if v is not None})
    )
    return f"{text}.{encoded(hmac.digest(key.encode(), text.encode(), 'sha256'))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

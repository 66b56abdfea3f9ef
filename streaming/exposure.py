"""Whether the server may listen where it is told to: what can be reached from elsewhere needs access control.

Rules:
- A server that anybody may reach and that nobody has to prove anything to is a mistake more often than a wish: it says
  so and does not start. Who wishes it says ALLOW_ANONYMOUS=1.
- A Unix socket is reached from this machine alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from settings import Settings
from streaming.origins import is_loopback


def is_closed(settings: Settings) -> bool:
    """Whether a token is needed."""
    return bool(settings.API_TOKENS or settings.JWT_KEY or settings.JWT_JWKS)


def refuse(settings: Settings, addresses: Iterable[Any]) -> None:
    """Raise SystemExit with a sentence when one of ``addresses`` (as of ``getsockname``) may not be listened on."""
    if is_closed(settings) or settings.ALLOW_ANONYMOUS == "1":
        return
    for address in addresses:
        if isinstance(address, tuple) and not is_loopback(str(address[0])):
            raise SystemExit(
                f"{address[0] or '*'} can be reached from other machines, and no token is asked for: set API_TOKENS "
                "(`flask --app wsgi token make` makes one), JWT_KEY or JWT_JWKS; or ALLOW_ANONYMOUS=1, for everybody."
            )

"""The caller of the current request, and what is its own.

Rules:
- Without access control there is no caller (None): everything may be done, and names are as clients choose them.
- With it, a name that a client chooses is its own: two callers that choose the same name mean two things. A name that
  the server makes has its caller's mark in it.
- What somebody else made is not there for whoever has no grant: 404, as if it never had been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import g, request

from streaming.errors import Forbidden, NotFound
from streaming.grants import Caller, Need, owns

CALLER: Final = "perennial.caller"


def of(environ: Mapping[str, Any]) -> Caller | None:
    caller: Caller | None = environ.get(CALLER)
    return caller


def current() -> Caller | None:
    return of(request.environ)


def key() -> str:
    """Return what tells this request's caller from others where limits are concerned: its name, or its address."""
    caller = current()
    return caller.name if caller else f"address:{request.remote_addr or ''}"


def mark() -> str:
    """Return the caller's mark, "" without access control."""
    if "mark" not in g:
        caller = current()
        g.mark = caller.mark if caller else ""
    found: str = g.mark
    return found


def made(id: str) -> str:
    """Return an id that the server makes as one of this caller's."""
    return f"{id}-{mark()}" if mark() else id


def scoped(id: str) -> str:
    """Return under which name this caller's ``id`` is kept."""
    return id if owns(mark(), id) else made(id)


def check(need: Need) -> None:
    """Raise Forbidden, or NotFound for what somebody else made, unless the caller may."""
    caller = current()
    if caller is None or caller.may(need):
        return
    if need.id:
        raise NotFound("There is no such thing, or it is somebody else's.")
    raise forbidden(need)


def forbidden(need: Need) -> Forbidden:
    challenge = f'Bearer realm="perennial", error="insufficient_scope", scope="{_quoted(str(need))}"'
    return Forbidden(f"This needs {_quoted(str(need))}.", headers={"WWW-Authenticate": challenge})


def _quoted(scope: str) -> str:
    """A path as it can stand in a header: RFC 6749, 3.3 has no quotes, backslashes, controls and other scripts."""
    return "".join(c if "!" <= c <= "~" and c not in '"\\' else "?" for c in scope)[:256]

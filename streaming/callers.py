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

from streaming import needs
from streaming.errors import Forbidden, NotFound, Unauthorized
from streaming.grants import Caller, Need, owns

CALLER: Final = "perennial.caller"
# RFC 6750, 3.1: who brought nothing is told nothing but how.
CHALLENGE: Final = 'Bearer realm="perennial"'


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


def may_read_stream(path: str) -> bool:
    """Whether the stream is one of those that this caller is shown in a list."""
    caller = current()
    return caller is None or caller.may(needs.stream("read", path))


def check(need: Need) -> None:
    """Raise Forbidden, or NotFound for what somebody else made, unless the caller may."""
    caller = current()
    if caller is None or caller.may(need):
        return
    if need.id:
        raise NotFound("There is no such thing, or it is somebody else's.")
    raise forbidden(need)


def forbidden(need: Need) -> Forbidden:
    scope = _quoted(str(need).replace(" ", "?"))  # where a space parts two of them
    return Forbidden(f"This needs {scope}.", headers=_challenge("insufficient_scope", f'scope="{scope}"'))


def invalid(sentence: str, expired: bool = False) -> Unauthorized:
    """Return what who brings a bad token is told; ``expired``: that is all that is wrong with it."""
    problem = Unauthorized(sentence, headers=_challenge("invalid_token", f'error_description="{_quoted(sentence)}"'))
    problem.expired = expired
    return problem


def _challenge(error: str, more: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'{CHALLENGE}, error="{error}", {more}'}


def _quoted(text: str) -> str:
    """A text as it can stand in a header: RFC 6750, 3 has no quotes, backslashes, controls and other scripts."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)[:256]

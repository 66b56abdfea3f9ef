"""The one door: every request comes by here, whoever answers it, and nothing behind it asks who somebody is.

Rules:
- The order: is this server meant (its name), does a page ask that may (what writes), who asks, may it do that.
- ``admit`` needs a WSGI environ and nothing else, so that a file that is answered around Flask comes by here, too.
- A token comes in ``Authorization``, else in a link, else in a cookie. The first one that is there counts: a bad one is
  refused, also beside a good one.
- Who comes by a link reads, and nothing else, not even what is its own.
- Without access control there is nothing to look up: one name is compared, and that is all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from werkzeug.http import parse_cookie

from streaming import callers, static_tokens
from streaming.errors import Forbidden, Misdirected, Unauthorized
from streaming.grants import Caller, Grants, Need
from streaming.origins import SAFE_METHODS, host_name, is_loopback, is_trusted, may_write
from streaming.url_tokens import TOKEN
from streaming.wire import ENDS_AT

# __Host-: a browser takes it over TLS only, from this host only, and for no other (RFC 6265bis, 4.1.3.2).
SECURE_COOKIE = "__Host-perennial"
PLAIN_COOKIE = "perennial"
_KNOWN = 1000
# A signed token is verified once in so long: keys and key sets can be changed.
_VERIFIED_S = 60.0

Signed = Callable[[str, bool], Caller]


@dataclass(frozen=True, slots=True)
class Rules:
    """``tokens``: callers by hash; ``signed``: who a signed token is of; both empty: no access control.

    ``hosts``: names of this server, empty for any; ``local``: only names of this machine, where there are no others.
    ``origins``: whose pages may ask from elsewhere.
    """

    tokens: Mapping[str, Caller]
    signed: Signed | None
    hosts: frozenset[str]
    local: bool
    origins: frozenset[str]

    @property
    def closed(self) -> bool:
        return bool(self.tokens) or self.signed is not None


class Guard:
    """``rules`` applied to requests."""

    def __init__(self, rules: Rules, clock: Callable[[], float] = time.time) -> None:
        self.rules = rules
        self.closed = rules.closed
        self._clock = clock
        self._verified: dict[tuple[str, bool], tuple[Caller, float]] = {}
        self._knows = lru_cache(_KNOWN)(self._is_ours)
        self._static = {caller.name: caller for caller in rules.tokens.values()}

    def admit(self, environ: dict[str, Any], needs: Callable[[], Sequence[Need]], open: bool = False) -> None:
        """Let the request in, with its caller in ``environ``; ``open``: whoever asks.

        Raises Misdirected, Unauthorized, Forbidden, Unavailable.
        """
        host = environ.get("HTTP_HOST", "")
        if host and not self._knows(host):
            raise Misdirected(f"This server is not called {host_name(host)[:100]!r}: TRUSTED_HOSTS names what it is.")
        method = environ["REQUEST_METHOD"]
        # ?durable=1 makes a stream, whatever the method: no page of another origin is to fill the log by an <img>.
        writes = method not in SAFE_METHODS or "durable" in _decoded(environ.get("QUERY_STRING", ""))
        if writes and not may_write(environ, self._origins(environ)):
            raise Forbidden("A page of another origin may not do this: CORS_ORIGINS names those that may.")
        if self.closed and not open and method != "OPTIONS":
            caller = self._caller(environ)
            if caller.link is not None:
                _check_link(caller.link, environ, writes)
            _check(caller, needs())
            environ[callers.CALLER] = caller
            if caller.ends_at is not None:
                environ[ENDS_AT] = caller.ends_at

    def identify(self, token: str, in_link: bool = False) -> Caller:
        """Return whose token it is. Raises Unauthorized, Unavailable."""
        if found := self.rules.tokens.get(static_tokens.hashed(token)):
            if in_link:
                raise callers.invalid("This token is good in the header Authorization only.")
            return found
        if self.rules.signed is None or token.count(".") != 2:
            raise callers.invalid("The token is not known here.")
        return self._signed(self.rules.signed, token, in_link)

    def _signed(self, verify: Signed, token: str, in_link: bool) -> Caller:
        now, key = self._clock(), (static_tokens.hashed(token), in_link)
        known = self._verified.get(key)
        if known and known[1] > now and (known[0].ends_at or now + 1) > now:
            return known[0]
        self._verified.pop(key, None)
        caller = verify(token, in_link)
        if caller.link is not None and caller.name.startswith(static_tokens.CALLER):
            caller = self._as_now(caller)
        if len(self._verified) >= _KNOWN:
            self._verified.clear()
        self._verified[key] = (caller, now + _VERIFIED_S)
        return caller

    def _as_now(self, caller: Caller) -> Caller:
        """A link that a static token made may read what that token still may."""
        if (static := self._static.get(caller.name)) is None:
            raise callers.invalid("The token that this link was made with is not known any more.")
        still = tuple(path for path in caller.grants.read if static.grants.cover("read", path))
        return replace(caller, grants=Grants(still))

    def _caller(self, environ: Mapping[str, Any]) -> Caller:
        if header := environ.get("HTTP_AUTHORIZATION"):
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer":
                raise callers.invalid("Authorization must be Bearer, and a token.")
            return self.identify(token.strip())
        if link := environ.get(TOKEN):
            return self.identify(link, in_link=True)
        if cookie := cookie_of(environ):
            return self.identify(cookie)
        raise Unauthorized("This needs a token.", headers={"WWW-Authenticate": callers.CHALLENGE})

    def _origins(self, environ: Mapping[str, Any]) -> frozenset[str]:
        """A cookie comes by itself, so "every origin" is none for those who bring nothing else."""
        by_itself = "HTTP_AUTHORIZATION" not in environ and cookie_of(environ)
        return self.rules.origins - {"*"} if by_itself else self.rules.origins

    def _is_ours(self, host: str) -> bool:
        if self.rules.hosts:
            return is_trusted(host, self.rules.hosts)
        return not self.rules.local or is_loopback(host_name(host))


def cookie_of(environ: Mapping[str, Any]) -> str:
    """Return the token in the cookie that this connection can trust, "" without one."""
    if "perennial" not in environ.get("HTTP_COOKIE", ""):
        return ""
    # Over TLS only the one that no other host, and nothing without TLS, can have set.
    name = SECURE_COOKIE if environ["wsgi.url_scheme"] == "https" else PLAIN_COOKIE
    return str(parse_cookie(environ["HTTP_COOKIE"]).get(name, ""))


def _decoded(query: str) -> str:
    """As the views read it: ``%64urable`` is no other name."""
    return unquote(query) if "%" in query else query


def _check(caller: Caller, needs: Sequence[Need]) -> None:
    for need in needs:
        if not caller.may(need):
            raise callers.forbidden(need)


def _check_link(path: str, environ: Mapping[str, Any], writes: bool) -> None:
    if writes:
        raise Forbidden("A link is for reading only.")
    if path and path != environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"):
        raise Forbidden("This link is for another path.")

"""Links: a URL of this server with a signed token in it, for what cannot send a header, for a short time.

Rules:
- A link is for one path, and reads what a GET of its URL reads: never more than the caller may who asks for it.
- It never lives longer than its caller's token, nor than ``LINK_S``.
- It bears its caller's name: what that one made is found by it. Who has a static token is looked up again whenever the
  link is used: a link ends with the token, and becomes narrower with it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from settings import Settings
from streaming import needs
from streaming.errors import BadRequest, NotFound
from streaming.grants import Need, checked

USE = "link"
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def is_local(url: str) -> bool:
    """Whether the URL is a path of this server, with or without a query (CWE-601)."""
    return bool(_LOCAL.fullmatch(url))


def reads(app: Flask, url: str) -> tuple[str, Sequence[Need]]:
    """Return the path of a URL of ``app``, and what a GET of it needs. Raises BadRequest."""
    if not is_local(url) or "#" in url:
        raise BadRequest("url must be a path of this server, with its query.", parameter="url")
    parts = urlsplit(url)
    path = unquote(parts.path)
    try:
        endpoint, values = app.url_map.bind("localhost").match(path, "GET")
    except (HTTPException, RequestRedirect):
        raise BadRequest(f"There is nothing at {path[:200]} to be read.", parameter="url") from None
    query = parse_qs(parts.query, keep_blank_values=True)
    found = needs.needs(str(endpoint), "GET", path, values, lambda name: query.get(name, ()))
    try:
        for need in found:
            checked(need.path, listed=True)
    except ValueError:
        raise BadRequest("What is at url has a name that no link can have.", parameter="url") from None
    return path, found


def sign(settings: Settings, claims: Mapping[str, Any], ends_at: float) -> str:
    """Return a token of these claims until then (time.time). Raises NotFound where there is no key to sign with."""
    if not settings.JWT_KEY:
        raise NotFound("There is no JWT_KEY to sign with.")
    from streaming.signed_tokens import sign as signed  # here, as in streaming/access.py

    bound = {"aud": settings.JWT_AUDIENCE, "iss": settings.JWT_ISSUER}
    times = {"iat": int(time.time()), "exp": math.floor(ends_at)}
    return signed(settings.JWT_KEY, {**claims, **{k: v for k, v in bound.items() if v}, **times})


def link(settings: Settings, url: str, read: tuple[str, Sequence[Need]], who: Mapping[str, str], ends_at: float) -> str:
    """Return ``url`` with a token in it that reads what ``reads`` found; ``who``: the claims that name its caller."""
    path, found = read
    claims = {**who, "use": USE, "path": path, "read": [need.path for need in found]}
    return f"{url}{'&' if '?' in url else '?'}token={sign(settings, claims, ends_at)}"

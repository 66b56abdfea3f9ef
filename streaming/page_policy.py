"""What every page says of itself: that nobody may frame it, sniff it, or put a script or a style into it; and for whom
a refusal is a page.

Rules:
- What has been said of a response before is not said anew: a picture has its own policy, a refusal is not stored.
- A refusal is a page where somebody sees it: a browser asks for a page, or for what is none of ours. What the API
  refuses stays what its programs read, also in the address bar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, current_app, request

from streaming.assets import Assets

_API = ("/api/", "/v1/")


def secure(response: Response) -> Response:
    """Give a page the headers that keep it from being framed, sniffed or scripted by others."""
    assets: Assets = current_app.extensions["assets"]
    response.headers.setdefault("Content-Security-Policy", policy(assets.style_source, assets.begin_source))
    # Not "no-referrer": by plain HTTP, where browsers send no Sec-Fetch-Site, the forms of our own pages would come
    # from the origin "null" (Fetch Standard, 3.1.3), and be refused as somebody else's.
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


def policy(style: str, script: str) -> str:
    """Return the policy of a page whose style sheets are among ``style``, and whose one inline script is ``script``."""
    rules = (
        "default-src 'self'",
        f"style-src {style}",
        f"script-src 'self' {script}",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        # No script can turn a text into markup, not even by mistake (W3C Trusted Types).
        "require-trusted-types-for 'script'",
    )
    return "; ".join(rules)


def of_page() -> bool:
    """Whether the request is for a page, whoever asks."""
    return request.blueprint in ("pages", "forms")


def seen() -> bool:
    """Whether somebody sees what is answered: a browser asks, for a page or for what no route is there for."""
    nowhere = request.blueprint is None and not request.path.startswith(_API)
    return (of_page() or nowhere) and "text/html" in request.headers.get("Accept", "")


def shown(refusal: Response, page: Callable[[Mapping[str, Any]], str]) -> Response:
    """Return the refusal as the page that ``page`` makes of the problem's members, where somebody sees it."""
    # To an EventSource that comes back it is events (streaming/reconnects.py).
    if refusal.mimetype != "application/problem+json" or not seen():
        return refusal
    refusal.set_data(page(refusal.get_json()))
    refusal.content_type = "text/html; charset=utf-8"
    return secure(refusal)

"""What every page says of itself: that nobody may frame it, sniff it, or put a script or a style into it."""

from __future__ import annotations

from flask import Response, current_app

from streaming.assets import Assets


def secure(response: Response) -> Response:
    """Give a page the headers that keep it from being framed, sniffed or scripted by others."""
    assets: Assets = current_app.extensions["assets"]
    response.headers["Content-Security-Policy"] = policy(assets.style_source)
    # Not "no-referrer": by plain HTTP, where browsers send no Sec-Fetch-Site, the forms of our own pages would come
    # from the origin "null" (Fetch Standard, 3.1.3), and be refused as somebody else's.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def policy(style: str) -> str:
    """Return the policy of a page whose one style sheet is ``style``."""
    rules = (
        "default-src 'self'",
        f"style-src {style}",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        # No script can turn a text into markup, not even by mistake (W3C Trusted Types).
        "require-trusted-types-for 'script'",
    )
    return "; ".join(rules)

"""What every page says of itself: that nobody may frame it, sniff it, or put a script into it."""

from __future__ import annotations

from flask import Response

POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        # No script can turn a text into markup, not even by mistake (W3C Trusted Types).
        "require-trusted-types-for 'script'",
    )
)


def secure(response: Response) -> Response:
    """Give a page the headers that keep it from being framed, sniffed or scripted by others."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response

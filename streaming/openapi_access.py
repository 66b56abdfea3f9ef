"""What access control adds to the description of the routes: its own routes, its schemes, and what it may refuse.

Rules:
- Every route may refuse a caller, but for those that are open to everybody.
"""

from __future__ import annotations

from streaming.openapi import HTML, JSON, Described, answer, body, error, header, number, operation, query, record, text

_REFUSALS = (401, 403, 421, 429)
_OPEN = frozenset(("/healthz", "/readyz", "/login", "/assets/{release}/{name}"))

SCHEMES: Described = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-perennial"},
    "link": {"type": "apiKey", "in": "query", "name": "token"},
}


def routes() -> Described:
    """Return the routes that let somebody in."""
    told = record(caller="string", ends_at="number?", read="array", write="array")
    form = body(JSON, "application/x-www-form-urlencoded", required=False)
    answers = {200: answer("Who is let in, to what.", JSON, schema=told), 303: answer("After a form.", HTML)}
    bearer = header("Authorization", text(), "Bearer, and the token.")
    link = record(url="string", ends_at="number")
    asked = body(JSON, schema=_link())
    left = {204: answer("The browser forgets its cookie."), 303: answer("After a form.", HTML)}
    next_page = query("next", text(), "Where to go afterwards.")
    return {
        "/login": {"get": operation("The form.", {200: answer("HTML.", HTML)}, (), [next_page])},
        "/api/login": {"post": operation("A token for a cookie.", answers, (400, 401, 404, 408, 413), [bearer], form)},
        "/api/links": {
            "post": operation(
                "A link to one path, for a while.",
                {200: answer("The path, with a token in its query.", JSON, schema=link)},
                (400, 404, 408, 413),
                [],
                asked,
            )
        },
        "/api/logout": {"post": operation("No more cookie.", left, (400,))},
    }


def _link() -> Described:
    fields = {"url": text(), "seconds": number(1, 3600, 600)}
    return {"type": "object", "required": ["url"], "properties": fields}


def guarded(paths: Described) -> Described:
    """Return the same with what access control may answer instead."""
    for url, methods in paths.items():
        for described in methods.values() if url not in _OPEN else ():
            for status in _REFUSALS:
                described["responses"].setdefault(str(status), error(status))
    return paths

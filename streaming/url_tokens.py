"""The token in a link (``?token=…``), taken out of the request before anybody sees it.

Rules:
- Whatever writes down a URL (the access log, an error page, a metric, a trace) has it from the environ: there it is no
  more. It goes by ``TOKEN`` to the one place that reads it.
- A Referer can hold one, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

TOKEN: Final = "perennial.url_token"
_TOKEN = re.compile(r"(^|[?&;])token=([^&;#]*)", re.IGNORECASE)


class WithoutUrlTokens:
    """A WSGI application around another."""

    def __init__(self, wsgi_app: Any) -> None:
        self._wsgi_app = wsgi_app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        if query and "token=" in query.lower():
            _take(environ)
            if TOKEN in environ:
                start_response = _silently(start_response)
        if "?" in environ.get("HTTP_REFERER", ""):
            environ["HTTP_REFERER"] = without(environ["HTTP_REFERER"])[0]
        return self._wsgi_app(environ, start_response)  # type: ignore[no-any-return]  # whatever it is


def _silently(start_response: Any) -> Any:
    """Whoever is sent on from what the link gave tells nobody where he comes from."""

    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        return start_response(status, [*headers, ("Referrer-Policy", "no-referrer")], *error)

    return start


def _take(environ: dict[str, Any]) -> None:
    environ["QUERY_STRING"], token = without(environ["QUERY_STRING"])
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in environ:
            environ[name] = without(environ[name])[0]
    if token:
        environ[TOKEN] = token


def without(text: str) -> tuple[str, str]:
    """Return a URL or a query without its tokens, and the last one of them, "" if there was none."""
    token = ""

    def drop(found: re.Match[str]) -> str:
        nonlocal token
        token = found[2]
        return found[1] if found[1] == "?" else ""

    text = _TOKEN.sub(drop, text)
    return re.sub(r"\?[&;]", "?", text).removesuffix("?").lstrip("&"), token

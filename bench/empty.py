"""The server with three answers more, which do nothing: what a request and a page cost at the least on this worker.

``/empty`` is a view of Flask, and ``/line`` a page of one line; ``/bare`` a WSGI application that Flask never sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LINE = "<!doctype html><html lang=en><meta charset=utf-8><title>A line</title><p>A stream that never runs dry."

app = create_app()
app.add_url_rule("/empty", "empty", lambda: "")
app.add_url_rule("/line", "line", lambda: LINE)
_ours: WSGIApplication = app.wsgi_app


def _or_bare(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/bare":
        return _ours(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1")])
    return [b"\n"]


app.wsgi_app = _or_bare  # type: ignore[method-assign]  # as Flask's docs have it

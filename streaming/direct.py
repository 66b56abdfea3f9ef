"""A file's answer without Flask in between: a range of 64 KiB costs less than an empty view does.

Rules:
- Only what needs nothing of Flask is answered here: a GET without query and body, of a file that is there. All else,
  and every refusal, is Flask's, where the route of the same name has the same answer.
- Whoever hangs a function into Flask that would have seen the request (a login, a counter) gets every request to see.
  The application's own guard is asked here, by the same function; whom it refuses, Flask answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, signals

from streaming import access, bodies, files, needs
from streaming.errors import Problem
from streaming.url_tokens import TOKEN

Place = tuple[str, bool]
_SIGNALS = (signals.request_started, signals.request_finished, signals.request_tearing_down)
_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Direct:
    """A WSGI application around Flask's own. ``place`` says of a URL's path which file it is, and if an attachment."""

    def __init__(self, app: Flask, blueprint: str, place: Callable[[str], Place | None]) -> None:
        self._app = app
        self._wsgi_app = app.wsgi_app
        self._blueprint = blueprint
        self._place = place

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if told := self._answer(environ):
            start_response(_LINES[told.status], told.headers)
            return told.body
        return self._wsgi_app(environ, start_response)

    def _answer(self, environ: dict[str, Any]) -> files.Answer | None:
        if environ["REQUEST_METHOD"] != "GET" or environ.get("QUERY_STRING") or bodies.has_body(environ):
            return None
        if TOKEN in environ:  # what comes by a link has headers of its own
            return None
        try:
            place = self._place(environ["PATH_INFO"].encode("latin-1").decode())
            settings = self._app.extensions["settings"]
            if place is None or settings.SEND_FILES != "own" or self._is_watched():
                return None
            if self._app.extensions["streams"].bounded:  # a place for each caller: the view takes it
                return None
            access.guard_of(self._app).admit(environ, lambda: [needs.file(place[0])])
            return files.answer(environ, settings, *place)
        except (Problem, OSError, UnicodeError):
            return None

    def _is_watched(self) -> bool:
        """Whether Flask has functions, besides the application's own, that want to see a request."""
        app, own = self._app, (None, self._blueprint)
        hooks = (app.teardown_request_funcs, app.url_value_preprocessors)
        before = [each for name in own for each in app.before_request_funcs.get(name, ())]
        after = [each for name in own for each in app.after_request_funcs.get(name, ())]
        return (
            before != [access.admit]
            or after != [bodies.discard_unread]
            or any(hook.get(name) for hook in hooks for name in own)
            or bool(app.teardown_appcontext_funcs)
            or any(signal.receivers for signal in _SIGNALS)
        )

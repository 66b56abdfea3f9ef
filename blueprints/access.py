"""For what cannot send a header (EventSource, <video>): a token exchanged for a cookie, or for a link to one path.

Rules:
- The cookie is the token itself: HttpOnly, SameSite=Lax, Secure but for plain http on this machine. Nothing is stored
  here, so any worker knows it, and it ends when the token does.
- It outlives its token by a day: a browser that sent nothing could not be told that its token has expired.
- Where to go afterwards is a path of this server, or it would be anybody's (CWE-601).
"""

from __future__ import annotations

import math
import time
from typing import TypeVar

import msgspec
from flask import Blueprint, Flask, Response, current_app, jsonify, make_response, redirect, render_template, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as AnyResponse

from streaming import access, bodies, callers, page_policy, signed_links
from streaming.cursors import Parameters
from streaming.errors import BadRequest, Forbidden, NotFound, Unauthorized
from streaming.grants import Caller
from streaming.guard import PLAIN_COOKIE, SECURE_COOKIE
from streaming.origins import host_name, is_loopback

blueprint = Blueprint("access", __name__)

_BODY_BYTES = 16 * 1024
_COOKIE_BYTES = 4000  # browsers take 4096 with the name and the attributes
_AFTER_END_S = 86_400
_LINK_S = 600.0

T = TypeVar("T")


class _Login(msgspec.Struct):
    token: str


class _Asked(msgspec.Struct):
    """A link to a path of this server with its query, for so many seconds; 0: as usual."""

    url: str
    seconds: float = 0


@blueprint.get("/login")
def login_page() -> Response:
    """The form; ``next`` is where to go afterwards."""
    return _form(200, "", request.args.get("next", "/"))


@blueprint.post("/api/login")
def login() -> AnyResponse:
    Parameters()
    guard = access.guard_of(current_app._get_current_object())  # type: ignore[attr-defined]  # a LocalProxy
    if not guard.closed:
        raise NotFound("Nobody needs a token here.")
    token, form = _token()
    try:
        caller = guard.identify(token)
    except Unauthorized as error:
        if form is None:
            raise
        return _form(401, error.detail, form.get("next", "/"))
    response = make_response(_told(caller)) if form is None else redirect(_local(form.get("next", "/")), 303)
    _set_cookie(response, token, caller.ends_at)
    return response


@blueprint.post("/api/logout")
def logout() -> AnyResponse:
    """Let the browser forget the token. The token itself is good until it ends."""
    Parameters()
    form = request.mimetype == "application/x-www-form-urlencoded"
    response = redirect("/login", 303) if form else Response(status=204)
    for name, secure in ((SECURE_COOKIE, True), (PLAIN_COOKIE, False)):
        response.delete_cookie(name, secure=secure, httponly=True, samesite="Lax")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@blueprint.post("/api/links")
def links() -> Response:
    """A URL by which its caller may read what is there, and nothing else, for a while."""
    Parameters()
    caller = callers.current()
    if caller is None:
        raise NotFound("Nobody needs a token here, and so nobody a link.")
    asked = _decoded(_Asked, 'Say what the link is for, as JSON: {"url": "/api/…", "seconds": 600}.')
    settings = current_app.extensions["settings"]
    seconds = asked.seconds or min(_LINK_S, settings.LINK_S)
    if not 1 <= seconds <= max(settings.LINK_S, 1):
        raise BadRequest(f"seconds must be from 1 to {settings.LINK_S:g} (LINK_S).", parameter="seconds")
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
    read = signed_links.reads(app, asked.url)
    for need in read[1]:
        callers.check(need)
    ends_at = min(time.time() + seconds, caller.ends_at or math.inf)
    who = {"sub": caller.name.partition(":")[2], "caller": caller.name}
    url = signed_links.link(settings, asked.url, read, who, ends_at)
    return jsonify(url=url, ends_at=math.floor(ends_at))


@blueprint.after_request
def unstored(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def form_instead(error: Unauthorized) -> Response:
    """For a page: the form, under the status that the page would have had."""
    response = _form(401, "", f"{request.path}?{request.query_string.decode('latin-1')}".rstrip("?"))
    response.headers.update(error.headers)
    return response


def _form(status: int, sentence: str, next: str) -> Response:
    response = make_response(render_template("login.html", sentence=sentence, next=_local(next)), status)
    response.headers["Cache-Control"] = "no-store"
    return page_policy.secure(response)


def _token() -> tuple[str, MultiDict[str, str] | None]:
    """Return the token that was sent, and the form where it was one. Raises BadRequest."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip(), None
    if request.mimetype == "application/x-www-form-urlencoded":
        # Bounded by gunicorn's own reading of it: Flask reads a form whole.
        request.max_content_length = _BODY_BYTES
        return request.form.get("token", "").strip(), request.form
    how = 'Send the token in Authorization, in a form, or as JSON: {"token": "…"}.'
    return _decoded(_Login, how).token.strip(), None


def _decoded(type: type[T], how: str) -> T:
    """Return what the body says in JSON. Raises BadRequest, which tells ``how`` it is said."""
    body = bodies.taken(_BODY_BYTES)
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest(how) from None


def _set_cookie(response: AnyResponse, token: str, ends_at: float | None) -> None:
    if len(token) > _COOKIE_BYTES:
        raise BadRequest(f"A cookie holds {_COOKIE_BYTES} bytes, and this token has more.")
    if not request.is_secure and not is_loopback(host_name(request.host)):
        raise Forbidden("A cookie is given over TLS only: without it everybody on the way could take it.")
    left = None if ends_at is None else math.ceil(ends_at - time.time()) + _AFTER_END_S
    name = SECURE_COOKIE if request.is_secure else PLAIN_COOKIE
    response.set_cookie(name, token, max_age=left, secure=request.is_secure, httponly=True, samesite="Lax")


def _told(caller: Caller) -> Response:
    grants = {"read": caller.grants.read, "write": caller.grants.write}
    return jsonify(caller=caller.name, ends_at=caller.ends_at, **grants)


def _local(next: str) -> str:
    return next if signed_links.is_local(next) else "/"

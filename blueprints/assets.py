"""What the pages are made of besides HTML: scripts, styles and the icon, kept by browsers for as long as they like."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request
from markupsafe import Markup

from streaming.assets import STYLE, Assets
from streaming.errors import NotFound

blueprint = Blueprint("assets", __name__)

_FOR_EVER = "public, max-age=31536000, immutable"


@blueprint.get("/assets/<release>/<path:name>")
def asset(release: str, name: str) -> Response:
    assets: Assets = current_app.extensions["assets"]
    if (found := assets.find(name)) is None:
        raise NotFound("There is no such asset.")
    packed = bool(found.packed) and request.accept_encodings["gzip"] > 0
    response = Response(found.packed if packed else found.data, content_type=found.content_type)
    if packed:
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    response.headers["Cache-Control"] = _FOR_EVER if release == assets.release else "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@blueprint.app_template_global()
def asset_url(name: str) -> str:
    """Where a page finds the file ``name`` of static/."""
    assets: Assets = current_app.extensions["assets"]
    return assets.url(name)


@blueprint.app_template_global()
def page_style(name: str = STYLE) -> Markup:
    """The style sheet ``name``, for a page's own ``<style>``."""
    assets: Assets = current_app.extensions["assets"]
    return Markup(assets.sheets[name])


@blueprint.app_template_global()
def page_begin() -> Markup:
    """What brings a page's module behind its first paint, for its own ``<script data-module>``."""
    assets: Assets = current_app.extensions["assets"]
    return Markup(assets.begin)

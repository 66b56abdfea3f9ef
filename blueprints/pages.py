"""The HTML pages: a map of the streams, and one page for each kind of consumer.

Rules:
- A page is rendered from what the server has (tables, videos) and holds no data of a stream; scripts fetch that.
- No inline script or style but the two of our own that the policy of pages names by their hashes: it forbids all
  others, and with them markup that somebody injected.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec
from flask import Blueprint, Response, current_app, render_template, request
from markupsafe import Markup

from settings import ROOT, Settings
from stores.base import Log, State
from stores.errors import NoStream, StreamGone
from stores.tables import Table, Tables
from streaming import callers, durable, markup, openapi_routes, page_policy
from streaming.compression import gzipped
from streaming.errors import NotFound
from streaming.folders import list_below
from streaming.listing import list_streams
from streaming.pipeline import TRANSFORMS

blueprint = Blueprint("pages", __name__)

PAGE_FILES = 100
PAGE_STREAMS = 100
DOCUMENTS = {
    "http": "Routes",
    "protocols": "Protocols",
    "operations": "Operations",
    "performance": "Performance",
    "security": "Security",
    "design": "Design",
}
_PLOT_NAME = re.compile("[a-z]{1,40}")
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_VIDEO_PATH = re.compile(r"videos/([A-Za-z0-9_-]{1,64})\.mp4")


@blueprint.after_request
def secure(response: Response) -> Response:
    """Give a page the headers of every page, and gzip it."""
    page_policy.secure(response)
    response.headers.setdefault("Cache-Control", "no-cache")
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] > 0 and response.status_code == 200:
        response.data = gzipped(response.data)
        response.content_encoding = "gzip"
    return response


def shown(refusal: Response) -> Response:
    """Return a refusal as a page, where somebody sees it."""
    return page_policy.shown(refusal, lambda told: render_template("refused.html", **told))


@blueprint.get("/")
def home() -> str:
    origin = request.host_url.rstrip("/")
    return render_template("home.html", origin=origin, cards=_cards(origin))


@functools.lru_cache(8)
def _cards(origin: str) -> Markup:
    """The cards for whoever asks under this name: half of the time that the map takes, and the same for all."""
    return Markup(render_template("cards.html", origin=origin))


@blueprint.get("/streams")
def streams() -> str:
    log: Log = current_app.extensions["log"]
    prefix, after, path = (request.args.get(name, "") for name in ("prefix", "after", "path"))
    found = list(list_streams(log, prefix, after, PAGE_STREAMS + 1))
    more = found[PAGE_STREAMS - 1].path if len(found) > PAGE_STREAMS else ""
    current = _state(log, path)
    return render_template(
        "streams.html",
        streams=[each for each in found[:PAGE_STREAMS] if callers.may_read_stream(each.path)],
        prefix=prefix,
        after=more,
        path=path,
        current=current,
        origin=request.host_url.rstrip("/"),
    )


def _state(log: Log, path: str) -> State | None:
    """How the stream stands; None where there is none for everybody to see."""
    try:
        return log.state(path) if path and not path.startswith(durable.HIDDEN) else None
    except (NoStream, StreamGone):
        return None


@blueprint.get("/events")
def events() -> str:
    topic, follow = request.args.get("topic", "default"), request.args.get("follow") == "1"
    return render_template("events.html", topic=topic, follow=follow)


@blueprint.get("/chat")
def chat() -> str:
    # Its id is made here, so that a form that is sent again is known for the same question.
    return render_template("chat.html", id=secrets.token_hex(16))


@blueprint.get("/upload")
def upload() -> str:
    return render_template("upload.html")


@blueprint.get("/files")
def files() -> str:
    after = request.args.get("after", "")
    found = list_below(current_app.extensions["settings"].FILES_DIR, after, PAGE_FILES + 1)
    entries = found[:PAGE_FILES]
    videos = {entry.path: _VIDEO_PATH.sub(r"\1", entry.path) for entry in entries if _VIDEO_PATH.fullmatch(entry.path)}
    more = entries[-1].path if len(found) > PAGE_FILES else ""
    return render_template("files.html", entries=entries, videos=videos, after=more)


@blueprint.get("/video")
def video() -> str:
    videos = sorted(_videos())
    current = request.args.get("id", "sample" if "sample" in videos else next(iter(videos), ""))
    if current and current not in videos:
        raise NotFound("There is no such video.", parameter="id")
    return render_template("video.html", videos=videos, current=current)


@blueprint.get("/export")
def export() -> str:
    tables: Tables = current_app.extensions["tables"]
    found = tables.tables()
    name = request.args.get("table", next(iter(found), ""))
    if name and name not in found:
        raise NotFound("There is no such table.", parameter="table")
    current: Table | None = found.get(name)
    return render_template("export.html", tables=list(found), current=current, arrow=find_spec("pyarrow") is not None)


@blueprint.get("/docs")
def docs() -> str:
    return _document("http")


@blueprint.get("/docs/<name>")
def other_docs(name: str) -> str:
    return _document(name)


def _document(name: str) -> str:
    path = ROOT / "docs" / f"{name}.md"
    if name not in DOCUMENTS or not path.exists():
        raise NotFound("There is no such document.")
    shown = markup.document(path)
    documents = [(text, "/docs" if each == "http" else f"/docs/{each}") for each, text in DOCUMENTS.items()]
    # The only HTML that is not made by a template: of our own files, in which HTML is text (streaming/markup.py).
    parts = {"html": Markup(shown.html), "first": markup.FIRST_HEADINGS}
    return render_template("docs.html", document=shown, documents=documents, **parts)


@blueprint.get("/docs/plots/<name>.svg")
def plot(name: str) -> Response:
    """A picture of docs/performance.md. Opened by itself it has its own style, and still nothing that runs."""
    path = ROOT / "docs" / "plots" / f"{name}.svg"
    if not _PLOT_NAME.fullmatch(name) or not path.exists():
        raise NotFound("There is no such plot.")
    headers = {"Content-Security-Policy": PICTURE_POLICY}
    return Response(path.read_bytes(), content_type="image/svg+xml", headers=headers)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    return Response(_described(), content_type="application/json")


@functools.cache
def _described() -> bytes:
    return msgspec.json.encode(openapi_routes.description())


@blueprint.get("/transform")
def transform() -> str:
    return render_template("transform.html", transforms=list(TRANSFORMS))


def _videos() -> Iterator[str]:
    """Yield the ids that /api/video serves, in no order."""
    settings: Settings = current_app.extensions["settings"]
    for path in Path(settings.FILES_DIR, "videos").glob("*.mp4"):
        if re.fullmatch("[A-Za-z0-9_-]{1,64}", path.stem) and path.is_file():
            yield path.stem

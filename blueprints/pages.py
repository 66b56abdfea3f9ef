"""The HTML pages: a map of the streams, and one page for each kind of consumer.

Rules:
- A page is rendered from what the server has (tables, videos) and holds no data of a stream; scripts fetch that.
- No inline script or style anywhere: the policy below forbids both, and with them markup that somebody injected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, current_app, render_template, request

from settings import Settings
from stores.base import Table, Tables
from streaming.errors import NotFound
from streaming.folders import list_below
from streaming.pipeline import TRANSFORMS

blueprint = Blueprint("pages", __name__)

PAGE_FILES = 100
_VIDEO_PATH = re.compile(r"videos/([A-Za-z0-9_-]{1,64})\.mp4")

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


@dataclass(frozen=True, slots=True)
class Card:
    """One stream of the map: what it is for, how a terminal asks for it, and what its start button fetches.

    ``curl`` holds ``{origin}`` where the server's address belongs. ``accept_bytes`` shows counts instead of text;
    ``upload`` is the size of a made-up file to send.
    """

    title: str
    purpose: str
    curl: str
    path: str
    method: str = "GET"
    type: str = ""
    body: str = ""
    range: str = ""
    accept_bytes: bool = False
    upload: int = 0
    links: tuple[tuple[str, str], ...] = ()


_HELLO = '{"messages":[{"role":"user","content":"Hello"}]}'
_HELLO_PARTS = (
    '{"id":"map","trigger":"submit-message",'
    '"messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"Hello"}]}]}'
)

CARDS = (
    Card(
        "Text",
        "Plain lines, each sent the moment it exists.",
        "curl -N '{origin}/api/stream?chunks=10&interval=0.5'",
        "/api/stream?chunks=10&interval=0.5",
    ),
    Card(
        "Rows as NDJSON",
        "A whole table, one JSON object a line, in constant memory.",
        "curl -N '{origin}/api/stream-json?table=users'",
        "/api/stream-json?table=users",
        links=(("Export page", "/export"),),
    ),
    Card(
        "Server-sent events",
        "Numbered events that a browser resumes by itself.",
        "curl -N '{origin}/api/sse?count=10&interval=1'",
        "/api/sse?count=10&interval=1",
    ),
    Card(
        "Typed events",
        "Every stored notification, then a count and a clean end.",
        "curl -N {origin}/api/events",
        "/api/events",
        links=(("Events page", "/events"),),
    ),
    Card(
        "Live notifications",
        "Stays open and delivers what is published. Start it, then publish from a terminal.",
        "curl -d 'Hello from a terminal' {origin}/api/notifications",
        "/api/events?follow=1",
        links=(("Events page", "/events?follow=1"),),
    ),
    Card(
        "Chat",
        "A model's answer as plain text, token by token.",
        f"curl -N --json '{_HELLO}' {{origin}}/api/chat",
        "/api/chat?protocol=text",
        "POST",
        "application/json",
        _HELLO,
        links=(("Chat page", "/chat"),),
    ),
    Card(
        "Chat for the AI SDK",
        "The same answer as the message stream that useChat reads.",
        f"curl -N --json '{_HELLO}' '{{origin}}/api/chat?protocol=ui'",
        "/api/chat?protocol=ui",
        "POST",
        "application/json",
        _HELLO_PARTS,
        links=(("Chat page", "/chat"),),
    ),
    Card(
        "Downloads",
        "Files with ranges and conditions, so that an interrupted download continues.",
        "curl -O -C - {origin}/api/download/poem.txt",
        "/api/download/poem.txt",
        links=(("Download poem.txt", "/api/download/poem.txt"), ("Files page", "/files")),
    ),
    Card(
        "Video",
        "Any part of a film by byte range: seeking just works.",
        "curl -r 0-65535 -o part.mp4 {origin}/api/video/sample",
        "/api/video/sample",
        range="bytes=0-65535",
        accept_bytes=True,
        links=(("Video page", "/video"),),
    ),
    Card(
        "Uploads",
        "Straight to disk, with progress that the server itself reports. The button stores a file of 256 KiB.",
        "head -c 64M /dev/zero | curl -X POST -T - '{origin}/api/upload-progress?filename=zeros.bin'",
        "/api/upload-progress?filename=demo.bin",
        "POST",
        "application/octet-stream",
        upload=256 * 1024,
        links=(("Upload page", "/upload"),),
    ),
    Card(
        "CSV export",
        "A database cursor as a CSV file that is correct whatever the data.",
        "curl -OJ '{origin}/api/export?table=users'",
        "/api/export?table=users",
        links=(("Export page", "/export"),),
    ),
    Card(
        "Errors in the stream",
        "When its source fails, the stream says so in its last line. This one fails after three items.",
        "curl -N '{origin}/api/stream-safe?fail_after=3'",
        "/api/stream-safe?fail_after=3",
    ),
    Card(
        "Transform",
        "A body in upper case while it is still arriving. Type, and end with Ctrl-D.",
        "curl -N -X POST -T . {origin}/api/transform",
        "/api/transform",
        "POST",
        "text/plain; charset=utf-8",
        "The river never runs dry.\nDer Fluß versiegt nie.\nΟ ποταμός δεν στερεύει ποτέ.\n",
        links=(("Transform page", "/transform"),),
    ),
)


@blueprint.after_request
def secure(response: Response) -> Response:
    """Give a page the headers that keep it from being framed, sniffed or scripted by others."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/")
def home() -> str:
    return render_template("home.html", cards=CARDS, origin=request.host_url.rstrip("/"))


@blueprint.get("/events")
def events() -> str:
    return render_template("events.html")


@blueprint.get("/chat")
def chat() -> str:
    return render_template("chat.html")


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


@blueprint.get("/transform")
def transform() -> str:
    return render_template("transform.html", transforms=list(TRANSFORMS))


def _videos() -> Iterator[str]:
    """Yield the ids that /api/video serves, in no order."""
    settings: Settings = current_app.extensions["settings"]
    for path in Path(settings.FILES_DIR, "videos").glob("*.mp4"):
        if re.fullmatch("[A-Za-z0-9_-]{1,64}", path.stem) and path.is_file():
            yield path.stem

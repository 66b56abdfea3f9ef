"""The pages in OpenAPI: each, and what their forms do without a script.

Rules:
- A page refuses as a page where a browser asks, and as every route does elsewhere.
"""

from __future__ import annotations

from streaming.openapi import ANY, HTML, PROBLEM, Described, answer, body, flag, operation, path, query, text

TOPIC = text("[A-Za-z0-9._-]{1,64}", default="default")
CHAT_ERRORS = (400, 404, 406, 408, 409, 413, 415, 422, 429, 502, 503, 504)

_REFUSED_IN = (HTML, PROBLEM)
_PAGE = {200: answer("HTML.", HTML)}


def pages() -> Described:
    """Return what a browser opens."""
    names = ("", "events", "streams", "chat", "upload", "files", "video", "export", "transform", "docs")
    refused = {"video": (404,), "export": (404, 503), "streams": (503,)}
    found = {
        f"/{name}": {"get": operation("A page.", _PAGE, refused.get(name, ()), (), None, _REFUSED_IN)} for name in names
    }
    document = operation("A document as a page.", _PAGE, (404,), [path("name", text())], None, _REFUSED_IN)
    shown = {200: answer("A plot.", "image/svg+xml")}
    plot = operation("A picture of a document.", shown, (404,), [path("name", text())], None, _REFUSED_IN)
    return found | {"/docs/{name}": {"get": document}, "/docs/plots/{name}.svg": {"get": plot}}


def forms() -> Described:
    """Return what a form of theirs does by itself."""
    arriving = {200: answer("The page, in which the stream arrives.", HTML)}
    said = {"type": "array", "items": text()}
    fields = {"type": "object", "properties": {"id": text("[A-Za-z0-9_-]{1,64}"), "message": text(), "said": said}}
    form = body("application/x-www-form-urlencoded", schema=fields)
    parts = body("multipart/form-data", schema={"type": "object", "properties": {"to": text(), "text": text()}})
    transformed = {200: answer("The page, or what comes back.", ANY)}
    save = query("save", flag(), "As a download.")
    asked = [query("topic", TOPIC, "Which."), query("follow", flag(), "Stay live.")]
    listed = operation("The events of a topic.", arriving, (400, 503), asked, None, _REFUSED_IN)
    back = {303: answer("Back to the list.", HTML)}
    published = operation("Publish.", back, (400, 408, 409, 413, 415, 503), asked[:1], form, _REFUSED_IN)
    return {
        "/chat": {"post": operation("Ask a model.", arriving, CHAT_ERRORS, (), form, _REFUSED_IN)},
        "/transform": {
            "post": operation("Transform.", transformed, (400, 408, 413, 415, 503), [save], parts, _REFUSED_IN)
        },
        "/events/list": {"get": listed, "post": published},
    }

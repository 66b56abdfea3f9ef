"""The type that a name tells, and what could act in a browser."""

from __future__ import annotations

import pytest

from streaming.media_types import content_type, is_active


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("poem.txt", "text/plain; charset=utf-8"),
        ("rows.csv", "text/csv; charset=utf-8"),
        ("rows.ndjson", "application/x-ndjson"),
        ("data.json", "application/json"),
        ("film.mp4", "video/mp4"),
        ("film.webm", "video/webm"),
        ("picture.PNG", "image/png"),
        ("photo.webp", "image/webp"),
        ("paper.pdf", "application/pdf"),
        ("font.woff2", "font/woff2"),
        # Sent as they are, without a Content-Encoding, they are not what they hold.
        ("rows.csv.gz", "application/octet-stream"),
        ("logo.svgz", "application/octet-stream"),
        ("archive.tar.xz", "application/octet-stream"),
        ("none", "application/octet-stream"),
        ("strange.what", "application/octet-stream"),
        ("videos/film.mp4", "video/mp4"),
    ],
)
def test_a_name_tells_the_type(name: str, type: str) -> None:
    """As registered with IANA; text is UTF-8; what is unknown is bytes."""
    assert content_type(name) == type


@pytest.mark.parametrize(
    "name", ["a.html", "a.HTM", "a.xhtml", "a.svg", "a.xml", "a.xsl", "a.rdf", "a.swf", "a.js.html"]
)
def test_documents_that_can_hold_scripts_are_active(name: str) -> None:
    """HTML, and every XML: XHTML and SVG may stand in it."""
    assert is_active(content_type(name))


@pytest.mark.parametrize("name", ["a.js", "a.mjs", "a.JS"])
def test_a_script_is_text(name: str) -> None:
    """<script src> minds neither an attachment nor a sandbox; with nosniff it does not run text (Fetch, 3.6)."""
    assert content_type(name) == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.png", "a.mp4", "a.pdf", "a", "a.js"])
def test_the_rest_is_not_active(name: str) -> None:
    """No browser runs what is in it."""
    assert not is_active(content_type(name))

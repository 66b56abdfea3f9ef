"""What a file is, by its name.

Rules:
- Pure, and the same on every machine: the table of Python's own, not that of the system.
- What can act in a browser under this server's name is known as such (``is_active``); a script is sent as text, since
  ``<script src>`` minds neither an attachment nor a sandbox, but with nosniff it minds the type.
"""

from __future__ import annotations

import mimetypes
import re

_TYPES = mimetypes.MimeTypes()
for _type, _suffixes in {
    "text/markdown": (".md",),
    "text/vtt": (".vtt",),
    "application/x-ndjson": (".ndjson", ".jsonl"),
    "application/vnd.apache.parquet": (".parquet",),
    "application/wasm": (".wasm",),
    "application/xhtml+xml": (".xhtml", ".xht"),
    "application/zstd": (".zst",),
    "audio/flac": (".flac",),
    "audio/ogg": (".oga", ".ogg", ".opus"),
    "font/woff": (".woff",),
    "font/woff2": (".woff2",),
    "image/avif": (".avif",),
    "image/webp": (".webp",),
    "video/matroska": (".mkv",),
    "video/mp4": (".m4v",),
    "video/webm": (".webm",),
}.items():
    for _suffix in _suffixes:
        _TYPES.add_type(_type, _suffix)

# Types that are documents with scripts in them: HTML, and all XML, since XHTML and SVG may stand in it.
_ACTIVE = re.compile(r"text/html|(?:text|application)/xml|.+\+xml|application/x-shockwave-flash")
_SCRIPT = re.compile(r"(?:text|application)/(?:x-)?(?:java|ecma|j|live)script")


def content_type(name: str) -> str:
    """Return the Content-Type of a file; ``application/octet-stream`` for what the name does not tell."""
    guessed, compression = _TYPES.guess_type(name)
    # A .csv.gz is sent as it is: under text/csv it would be no CSV.
    if guessed is None or compression:
        return "application/octet-stream"
    if _SCRIPT.fullmatch(guessed):
        guessed = "text/plain"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def is_active(content_type: str) -> bool:
    """Whether a browser that shows it may run what is in it."""
    return _ACTIVE.fullmatch(content_type.partition(";")[0].strip().lower()) is not None

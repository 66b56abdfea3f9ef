"""Pages of other origins that may use this server (CORS, Fetch Standard 3.3): what Flask-Cors is told.

Rules:
- Nothing is allowed that CORS_ORIGINS does not name. Cookies come along only from origins that are named one by one.
- A page may read every header that one of this server's protocols says something with.
"""

from __future__ import annotations

from flask import Flask
from flask_cors import CORS

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PREFLIGHT_S = 7200  # browsers keep it no longer
EXPOSED = (
    # what every answer may say
    "Location",
    "Content-Location",
    "Content-Length",
    "Content-Disposition",
    "Content-Range",
    "Accept-Ranges",
    "ETag",
    "Link",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "Repr-Digest",
    "WWW-Authenticate",
    # tus 1.0 and the IETF's draft
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Defer-Length",
    "Upload-Metadata",
    "Upload-Concat",
    "Upload-Expires",
    "Upload-Complete",
    "Upload-Incomplete",
    "Upload-Limit",
    "Upload-Draft-Interop-Version",
    # Durable Streams
    "Stream-Next-Offset",
    "Stream-Up-To-Date",
    "Stream-Closed",
    "Stream-Cursor",
    "Stream-Missed",
    "Stream-TTL",
    "Stream-Expires-At",
    "Stream-SSE-Data-Encoding",
    "Producer-Epoch",
    "Producer-Seq",
    "Producer-Expected-Seq",
    "Producer-Received-Seq",
    # chat and exports
    "X-Run-Id",
    "X-Run-Joined",
    "X-Vercel-AI-Data-Stream",
    "X-Vercel-AI-UI-Message-Stream",
    "Export-Receipt",
    "Export-Snapshot",
)


def allow(app: Flask, origins: str) -> None:
    """Let pages of the comma-separated ``origins`` use the application; nothing is changed where there are none."""
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    if not allowed:
        return
    CORS(
        app,
        origins=allowed,
        methods=METHODS,
        expose_headers=EXPOSED,
        supports_credentials="*" not in allowed,
        max_age=PREFLIGHT_S,
    )

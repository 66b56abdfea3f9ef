"""The server with one more view, which does nothing: what a request costs at the least under Flask and this worker."""

from __future__ import annotations

from app import create_app

app = create_app()
app.add_url_rule("/empty", "empty", lambda: "")

"""The server with two more views: the least that a request takes under Flask and this worker, and a page of a line."""

from __future__ import annotations

from app import create_app

LINE = "<!doctype html><html lang=en><meta charset=utf-8><title>A line</title><p>A stream that never runs dry."

app = create_app()
app.add_url_rule("/empty", "empty", lambda: "")
app.add_url_rule("/line", "line", lambda: LINE)

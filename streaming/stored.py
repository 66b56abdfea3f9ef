"""What is told of an upload that has become a file: to its client, to those who watch it, and to everybody."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from stores.base import Config, Log
from streaming.events import json_event

FOLDER = "uploads"


def progress_path(id: str) -> str:
    """Return the path of the stream that tells how far the upload is."""
    return f"uploads/{id}"


def url(filename: str) -> str:
    return f"/api/download/{FOLDER}/{quote(filename)}"


def told(filename: str, received: int, digest: str = "") -> dict[str, Any]:
    """Return what is told of the file; ``digest`` as a digest field has it (RFC 9530), or ""."""
    found = {"received": received, "filename": filename, "url": url(filename)}
    return {**found, **({"digest": digest} if digest else {})}


def publish(store: Log, keep_events: int, told: dict[str, Any]) -> None:
    """Tell the topic default, as any notification. Raises StoreError."""
    kept = Config("application/json", keep_events=keep_events)
    message = {"message": f"{told['filename']} was uploaded.", **told}
    store.append("notifications/default", [json_event(message, "notification")], create=kept)

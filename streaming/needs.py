"""What each route needs: to read or to write which path. The whole model of access is this table.

Rules:
- A safe method reads, every other one writes. A route that is not in the table needs its URL's own path: what is added
  without a thought is closed.
- A thing has one path, by whatever route it is asked for: ``/topics/<topic>``, ``/tables/<table>``, ``/files/<path>``,
  ``/v1/stream/<path>``, and what a caller makes: ``/chats/``, ``/runs/``, ``/uploads/`` and ``/exports/<id>``. A path
  that ends with "/" is the list of what is below it.
- What is below ``/v1/stream/`` but is the server's own has its own path, so that ``/v1/stream/*`` opens no topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streaming.durable import PREFIX
from streaming.formats import by_file_name
from streaming.grants import Action, Need
from streaming.origins import SAFE_METHODS
from streaming.table_schemas import METADATA_ENDING

DEFAULT_TOPIC: Final = "default"
DEFAULT_TABLE: Final = "users"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as far as its needs depend on it: the URL's ``path``, what was in it, and ``query`` by name."""

    action: Action
    path: str
    parts: Mapping[str, Any]
    query: Callable[[str], Sequence[str]]

    def need(self, path: str, id: str = "") -> Need:
        return Need(self.action, path, id)


def topics(asked: Asked) -> list[Need]:
    # As the view reads it (cursors.Parameters.texts), and all of them: a thousandth one is read, too.
    given = {name for value in asked.query("topic") for name in value.split(",")} or {DEFAULT_TOPIC}
    return [asked.need(f"/topics/{name}") for name in sorted(given)]


def tables(asked: Asked) -> list[Need]:
    return [asked.need(f"/tables/{name}") for name in sorted(set(asked.query("table")) or {DEFAULT_TABLE})]


def _tables_or_list(asked: Asked) -> list[Need]:
    return tables(asked) if asked.query("table") else [asked.need("/tables/")]


def _tables_or_own(asked: Asked) -> list[Need]:
    return tables(asked) if asked.query("table") else [asked.need(asked.path)]


def _export(asked: Asked) -> list[Need]:
    """A table's file, its schema, or a receipt."""
    name = asked.parts["name"]
    if name.endswith(METADATA_ENDING):
        return [asked.need(f"/tables/{name.removesuffix(METADATA_ENDING)}")]
    table, format = by_file_name(name)
    # A receipt's id is its caller's own, as that of an upload's progress.
    return [asked.need(f"/tables/{table}")] if format else []


def file(path: str) -> Need:
    return Need("read", f"/files/{path}")


def _upload(asked: Asked) -> list[Need]:
    return [asked.need(f"/uploads/{asked.parts['id']}", asked.parts["id"])]


def _stream(asked: Asked) -> list[Need]:
    return [stream(asked.action, asked.path.removeprefix(PREFIX))]


def stream(action: Action, path: str) -> Need:
    """What is needed of the stream at ``path`` below ``PREFIX``."""
    first, slash, rest = path.partition("/")
    if slash and first == "notifications":
        return Need(action, f"/topics/{rest}")
    if slash and first in ("chats", "runs", "uploads", "exports"):
        return Need(action, f"/{path}", rest)
    return Need(action, PREFIX + path)


def _streams(asked: Asked) -> list[Need]:
    """The list of what is below ``prefix``, and the stream that the page shows beside it."""
    prefix = "".join(asked.query("prefix")[:1])
    shown = [stream("read", path) for path in asked.query("path") if path]
    return [stream("read", prefix[: prefix.rfind("/") + 1]), *shown]


def _fixed(path: str) -> Callable[[Asked], list[Need]]:
    return lambda asked: [asked.need(path)]


def _own_path(asked: Asked) -> list[Need]:
    return [asked.need(asked.path)]


def _nothing(asked: Asked) -> list[Need]:
    return []


# For everybody, with a token or without.
OPEN = frozenset(
    ("static", "assets.asset", "status.healthz", "status.readyz", "access.login", "access.logout", "access.login_page"),
)
_PAGES = ("home", "events", "chat", "upload", "transform", "docs", "other_docs", "plot", "openapi")
_ROUTES: Mapping[str, Callable[[Asked], list[Need]]] = {
    # Pages that hold nothing: whoever has a token may see them.
    **dict.fromkeys((f"pages.{name}" for name in _PAGES), _nothing),
    "activity.activity": _nothing,
    # What is at its URL is looked at.
    "access.links": _nothing,
    # What their forms do is what the API does.
    "forms.chat": _fixed("/api/chat"),
    "forms.transform": _fixed("/api/transform"),
    "forms.list_events": topics,
    "forms.publish": topics,
    "pages.files": _fixed("/files/"),
    "pages.video": _fixed("/files/videos/"),
    "pages.export": _fixed("/tables/"),
    "pages.streams": _streams,
    "listings.streams": _streams,
    "downloads.files": _fixed("/files/"),
    "downloads.download": lambda asked: [file(asked.parts["filename"])],
    "downloads.video": lambda asked: [file(f"videos/{asked.parts['id']}.mp4")],
    "downloads.post_video": _fixed("/files/videos/"),
    "uploads.upload_progress": _fixed("/files/uploads/"),
    # Its id is its caller's own: another caller's is another upload.
    "uploads.upload_progress_events": _nothing,
    "resumables.create": _fixed("/files/uploads/"),
    "resumables.append": _upload,
    "resumables.offset": _upload,
    "resumables.terminate": _upload,
    "resumables.overridden": _upload,
    "events.events": topics,
    "events.notifications": topics,
    "exports.export": _tables_or_list,
    "exports.export_file": _export,
    "records.stream_json": tables,
    "records.stream_safe": _tables_or_own,
    # A chat's id is its caller's own, too; a run's id is looked at where it is found.
    "chat.resume_of_v4": _fixed("/api/chat"),
    "chat.resume": _fixed("/api/chat"),
    "chat.stop": _fixed("/api/chat"),
    **dict.fromkeys(("streams.create", "streams.append", "streams.delete", "streams.read"), _stream),
}


def needs(
    endpoint: str | None, method: str, path: str, parts: Mapping[str, Any], query: Callable[[str], Sequence[str]]
) -> list[Need]:
    """Return all that a request needs, which may be nothing but a token."""
    asked = Asked("read" if method in SAFE_METHODS else "write", path, parts, query)
    if endpoint is None:  # there is no such route: nothing is behind it
        return []
    return _ROUTES.get(endpoint, _own_path)(asked)

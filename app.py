"""The whole wiring: settings, stores, blueprints, errors."""

from __future__ import annotations

import atexit
import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

import doctor
import processors
import settings as settings_module
from blueprints import access as access_blueprint
from blueprints import (
    activity,
    assets,
    chat,
    completions,
    downloads,
    events,
    exports,
    forms,
    listings,
    pages,
    records,
    resumables,
    status,
    streams,
    text,
    token_commands,
    uploads,
)
from llm.models import Models
from settings import Settings
from stores import seed, sqlite_log
from stores.base import Log
from stores.disk import Disk
from stores.errors import StoreError
from stores.memory import MemoryLog
from stores.resumables import FileResumables
from stores.sqlite_log import SQLiteLog
from stores.sqlite_tables import SQLiteTables
from stores.tables import Tables
from stores.uploads import FileUploads
from streaming import (
    access,
    accounts,
    bodies,
    body_limits,
    cross_origin,
    markup,
    metrics,
    page_policy,
    rate_limits,
    refusals,
    sent_limits,
)
from streaming.activity import Sampler
from streaming.activity_reports import Reports
from streaming.assets import Assets
from streaming.chats import Chats
from streaming.claims import Claims
from streaming.direct import Direct
from streaming.errors import Problem, Unauthorized
from streaming.intake import Intake
from streaming.kept import Kept
from streaming.leases import Lease
from streaming.links import links
from streaming.shares import Shares
from streaming.slowness import Slowest
from streaming.url_tokens import WithoutUrlTokens

_BLUEPRINTS = (
    text,
    records,
    exports,
    events,
    chat,
    completions,
    downloads,
    uploads,
    resumables,
    streams,
    listings,
    pages,
    forms,
    assets,
    activity,
    status,
    access_blueprint,
)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application with its stores open. What ``prepare`` makes, it makes when it is not there."""
    settings = settings or settings_module.from_environment()
    logging.basicConfig(level=settings.LOG_LEVEL, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each question to the model
    prepare(settings)
    app = Flask(__name__)
    app.session_interface = NoSession()
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # //etc/passwd is no file, and no reason for a redirect either
    app.extensions["guard"] = guard = access.make(settings)
    if guard.closed and "public" not in settings.FILES_CACHE_CONTROL:
        # What one caller may see, a cache on the way must not give to another.
        settings = replace(settings, FILES_CACHE_CONTROL=f"private, {settings.FILES_CACHE_CONTROL}")
    app.extensions["settings"] = settings
    links.configure(settings.SEND_TIMEOUT_S, settings.HEADERS_S)
    accounts.lines.configure(settings.STREAM_LOG)
    atexit.register(accounts.lines.flush)
    atexit.register(metrics.take)
    _open(app, settings)
    _route(app, settings)
    return app


def _open(app: Flask, settings: Settings) -> None:
    """Open the stores, and what stands on them."""
    app.extensions["streams"] = Shares("streams", 0, settings.CALLER_STREAMS)
    app.extensions["runs"] = Shares("runs", 0, settings.CALLER_RUNS)
    app.extensions["exports"] = Shares("exports", 0, settings.CALLER_EXPORTS)
    app.extensions["log"] = log = _open_log(settings)
    app.extensions["kept"] = Kept(log, settings.CALLER_STREAM_PATHS)
    app.extensions["lease"] = lease = Lease(log)
    app.extensions["models"] = Models(settings)
    app.extensions["chats"] = Chats(log, lease, settings)
    app.extensions["reports"] = Reports(log, lease.worker, Sampler(links, settings.CHAT_CALLER_HEADER))
    app.extensions["tables"] = tables = _open_tables(settings)
    app.extensions["slowest"] = slowest = Slowest.of(settings)
    uploads_dir, disk = settings.FILES_DIR / "uploads", _disk(settings.UPLOADS_SYNC)
    app.extensions["uploads"] = uploads_store = FileUploads(uploads_dir, disk)
    app.extensions["intake"] = Intake(
        FileResumables(uploads_dir, settings.UPLOAD_KEEP_S, disk),
        Claims(log),
        log,
        settings.MAX_UPLOAD_BYTES,
        slowest,
        settings.NOTIFICATIONS_KEEP,
    )
    app.extensions["videos"] = videos_store = FileUploads(settings.FILES_DIR / "videos", disk)
    for store in (log, tables, uploads_store, videos_store):
        atexit.register(store.dispose)


def _route(app: Flask, settings: Settings) -> None:
    """Let requests in: the routes, what stands before each of them, and how they are refused."""
    app.extensions["assets"] = Assets(settings_module.ROOT / "static")
    for module in _BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    app.cli.add_command(doctor.command)
    app.cli.add_command(token_commands.commands)
    app.register_error_handler(Problem, _refused)
    app.register_error_handler(Unauthorized, _unauthorized)
    app.register_error_handler(HTTPException, lambda error: pages.shown(refusals.http_error(error)))
    app.register_error_handler(StoreError, lambda error: pages.shown(refusals.store_error(error)))
    app.before_request(access.admit)
    app.after_request(bodies.discard_unread)
    rate_limits.limit(app, settings, _refused)
    body_limits.open_limits(app, settings)
    sent_limits.limit(app, settings)
    cross_origin.allow(app, settings.CORS_ORIGINS)
    wsgi_app: Any = WithoutUrlTokens(Direct(app, "downloads", downloads.place))
    if hops := settings.TRUSTED_PROXIES:
        wsgi_app = ProxyFix(wsgi_app, x_for=hops, x_proto=hops, x_host=0)
    app.wsgi_app = wsgi_app  # type: ignore[method-assign]  # as Flask's docs have it


def _refused(problem: Problem) -> Response:
    return pages.shown(refusals.problem_response(problem))


def _unauthorized(problem: Unauthorized) -> Response:
    """A page asks for the token itself."""
    return access_blueprint.form_instead(problem) if page_policy.of_page() else refusals.problem_response(problem)


class NoSession(SessionInterface):
    """There are none: one empty session for all, where Flask would make one for each request."""

    _empty = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._empty

    def is_null_session(self, obj: object) -> bool:
        return True


def prepare(settings: Settings) -> None:
    """Make the folders and the embedded databases that are not there; and read the docs, before there are workers."""
    read_docs()
    for folder in (settings.INSTANCE_DIR, settings.FILES_DIR / "videos", settings.FILES_DIR / "uploads"):
        folder.mkdir(parents=True, exist_ok=True)
    if not settings.DATABASE_URL:
        seed.make_sample_database(_path(settings.database_url))
    if _is_redis(settings.streams_url):
        from stores import redis_log

        redis_log.prepare(settings.streams_url)
    elif settings.streams_url != "memory:":
        sqlite_log.prepare(_path(settings.streams_url))


def read_docs() -> None:
    """Render the longest document once, for all workers that come: beside streams it takes too long (40 ms)."""
    with contextlib.suppress(FileNotFoundError):  # who leaves docs/ at home has no page of them
        markup.document(settings_module.ROOT / "docs" / "http.md")


def _open_log(settings: Settings) -> Log:
    if _is_redis(settings.streams_url):
        from stores.redis_log import RedisLog  # here, as in prepare: its driver costs 6 MB, and most have no Redis

        return RedisLog(settings.streams_url)
    return (
        MemoryLog()
        if settings.streams_url == "memory:"
        else SQLiteLog(_path(settings.streams_url), settings.STREAMS_SYNC)
    )


def _disk(sync: str) -> Disk:
    if sync not in ("full", "normal"):
        raise SystemExit(f"UPLOADS_SYNC must be full or normal, and {sync!r} is not.")
    return Disk(synced=sync == "full")


def _is_redis(url: str) -> bool:
    return url.startswith(("redis:", "rediss:", "unix:"))


def _open_tables(settings: Settings) -> Tables:
    names = [name.strip() for name in settings.EXPORT_TABLES.split(",")]
    turns = max(1, processors.usable() - 1)
    if settings.database_url.startswith(("postgresql:", "postgres:")):
        from stores.postgres_tables import PostgresTables  # here, as Redis: its driver costs 10 MB

        return PostgresTables(settings.database_url, names, settings.MAX_EXPORTS, turns)
    return SQLiteTables(_path(settings.database_url), names, settings.MAX_EXPORTS, turns)


def _path(url: str) -> Path:
    if not url.startswith("sqlite:///"):
        raise SystemExit(
            f"{url!r} is no store that this version knows: sqlite:///<path> and postgresql://<host>/<name> are."
        )
    return Path(url.removeprefix("sqlite:///"))

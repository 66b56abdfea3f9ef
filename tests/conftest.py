"""Servers, an application in memory, and the leak detector that watches every test.

Fixtures: ``server`` (one real gunicorn with one worker for the whole session), ``live_server(**env)`` (makes further
ones with settings of their own), ``settings``, ``app`` and ``client`` (in this process, without sockets).
"""

from __future__ import annotations

import atexit
import gc
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient

from settings import Settings
from tests.browser import browser, page
from tests.chat_peers import npm_clients
from tests.forkserver import Forked
from tests.harness import LiveServer, eventually
from tests.postgres_server import PostgresServer

# A machine that is busy is no failure of an example; what hangs is ended by pytest-timeout.
hypothesis.settings.register_profile("perennial", deadline=None)
hypothesis.settings.load_profile("perennial")

__all__ = ["browser", "npm_clients", "page"]

_FD = Path("/proc/self/fd")
_greenlets: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()
gevent.Greenlet.add_spawn_callback(_greenlets.add)
# The hub and its thread pool are made at their first use and stay: made here, no test is blamed for them.
gevent.get_hub().threadpool.apply(int)
# So is the one that starts the servers.
Forked.prepare()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest begin first, or one of them would run alone at the end."""
    seconds: Counter[Path] = Counter()
    for item in items:
        marker = item.get_closest_marker("slow")
        seconds[item.path] += 0.05 if marker is None else marker.args[0] if marker.args else 3
    items.sort(key=lambda item: -seconds[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Iterator[None]:
    """Show the end of the log of each server that ran when a test failed."""
    report = yield
    if report.failed and {"server", "live_server"} & set(item.fixturenames):
        report.sections += [(f"log of {server.url}", server.tail()) for server in LiveServer.running]
    return report


def _left() -> dict[str, str]:
    """What a test may have left running or open: a key that names it once, and how to tell a person."""
    threads = {f"thread {each.ident}": each.name for each in threading.enumerate()}
    greenlets = {f"greenlet {id(each)}": repr(each) for each in list(_greenlets) if not each.dead}
    files = {}
    for entry in os.listdir(_FD) if _FD.exists() else []:
        try:
            files[f"descriptor {entry}"] = os.readlink(_FD / entry)
        except OSError:
            continue  # that of this very listing
    return threads | greenlets | {key: target for key, target in files.items() if target != f"/proc/{os.getpid()}/fd"}


@pytest.fixture(autouse=True)
def leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends with the threads, descriptors, greenlets and streams it began with, within two seconds."""
    before = _left()
    shared = request.getfixturevalue("server") if "server" in request.fixturenames else None
    streams = shared.streams() if shared else 0
    yield
    if request.node.get_closest_marker("may_leak"):
        return

    def new() -> dict[str, str]:
        gevent.sleep(0)
        return {key: text for key, text in _left().items() if before.get(key) != text}

    if new():
        gc.collect()
        eventually(lambda: not new(), 2.0, f"left behind: {new()}")
    if shared:
        _no_stream_left(shared, streams)


def _no_stream_left(server: LiveServer, before: int = 0) -> None:
    """A client that has gone is noticed within a second; two are given. ``before``: what an earlier test left."""
    if server.alive:
        eventually(lambda: server.streams() <= before, 2.0, f"no open stream on {server.url}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The server that tests share: defaults, one worker. Who changes its settings or stops it takes ``live_server``."""
    server = LiveServer(tmp_path_factory.mktemp("server"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def sample_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The DATABASE_URL of a sample database that tests share, for reading: making one takes a while."""
    from stores.seed import make_sample_database

    path = tmp_path_factory.mktemp("database") / "app.db"
    make_sample_database(path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL that tests share; each leaves its ``public`` schema empty, or takes a database of its own."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def live_server(tmp_path: Path, sample_database: str) -> Iterator[Callable[..., LiveServer]]:
    """Make a server with the settings given: ``live_server(HEARTBEAT_S=0.2, WEB_CONCURRENCY=2)``.

    Each has folders of its own; ``folder=`` shares those of another. At the end no stream may be left in one that
    still runs with one worker (of several workers, one answers for itself only).
    """
    servers: list[LiveServer] = []

    def start(folder: Path | None = None, **env: object) -> LiveServer:
        server = LiveServer(folder or tmp_path / f"server{len(servers)}", {"DATABASE_URL": sample_database} | env)
        servers.append(server)
        return server.start()

    yield start
    try:
        for server in servers:
            if len(server.pids() if server.alive else []) == 1:
                _no_stream_left(server)
    finally:
        for server in servers:
            server.stop()


@pytest.fixture
def settings(tmp_path: Path, sample_database: str) -> Settings:
    """Settings that keep everything below the test's own folder, and the log in memory."""
    return Settings(
        FILES_DIR=tmp_path / "files",
        INSTANCE_DIR=tmp_path / "instance",
        STREAMS_URL="memory:",
        DATABASE_URL=sample_database,
    )


@pytest.fixture
def make_app(settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Make the whole application in this process, with the settings given: ``make_app(RATE_LIMIT=…)``."""
    from app import create_app

    apps: list[Flask] = []

    def make_app(**changes: Any) -> Flask:
        apps.append(create_app(replace(settings, **changes)))
        return apps[-1]

    yield make_app
    for app in apps:
        for store in (app.extensions[name] for name in ("log", "tables", "uploads", "videos")):
            store.dispose()
            # What is disposed of is not kept until the process ends.
            atexit.unregister(store.dispose)


@pytest.fixture
def make_client(make_app: Callable[..., Flask]) -> Callable[..., FlaskClient]:
    """Make a client of such an application."""
    return lambda **changes: make_app(**changes).test_client()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    app = make_app()
    app.testing = True
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()

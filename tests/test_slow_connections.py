"""A crowd of slow connections: heads, bodies and reads that come in drops. Others do not notice, memory is bounded."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import LiveServer, eventually

Live = Callable[..., LiveServer]
ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


@contextlib.contextmanager
def crowd(server: LiveServer, size: int, drop_s: float, within_s: float) -> Iterator[None]:
    """So many slow connections, all of which have been open, in a process of their own."""
    (server.files / "large.bin").write_bytes(bytes(8 * MIB))
    command = [sys.executable, "-m", "tests.slow_crowd", str(server.port), str(size), "large.bin", str(drop_s)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            began = time.monotonic()
            assert process.stdout.readline() == b"open\n"
            assert time.monotonic() - began < within_s
            yield
        finally:
            process.kill()


def p99_s(server: LiveServer, for_s: float) -> float:
    """Of another client's requests, one after the other on one connection."""
    taken = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            began = time.monotonic()
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:1]) == (200, b"{")
            taken.append(time.monotonic() - began)
            time.sleep(0.002)
    finally:
        connection.close()
    return sorted(taken)[int(len(taken) * 0.99)]


@pytest.mark.slow
def test_a_crowd_of_slow_connections_harms_nobody(live_server: Live) -> None:
    """600 connections, more than there are places: every newcomer is answered, and memory grows by their share."""
    server = live_server(HEADERS_S=2, MAX_UPLOADS=100, MAX_STREAMS=150, GUNICORN_CMD_ARGS="--worker-connections 400")
    before = server.rss_bytes()
    with crowd(server, 600, 0.5, 30):
        assert p99_s(server, 2) < 5
        assert server.get("/healthz", timeout_s=5)[0] == 200
        assert server.rss_bytes() - before < 100 * MIB
    server.stop()


@pytest.mark.slow_suite
def test_ten_thousand_slow_connections(live_server: Live) -> None:
    """Another request's p99 stays under 10 ms (or thrice what it is without them), what they take under 1 GiB."""
    server = live_server(MAX_UPLOADS=4000)
    alone, before = p99_s(server, 5), server.rss_bytes()
    with crowd(server, 10_000, 10, 120):
        eventually(lambda: server.streams() > 3000, 60)
        beside = p99_s(server, 20)
        grown = server.rss_bytes() - before
    server.stop()
    sys.stdout.write(f"p99 {alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside them, {grown / MIB:.0f} MiB more\n")
    assert beside < max(0.010, 3 * alone)
    assert grown < 1024 * MIB

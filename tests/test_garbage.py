"""What a request leaves for Python's collector, which holds up the whole worker while it looks for it."""

from __future__ import annotations

import gc
from collections.abc import Callable

import gevent
import pytest
from flask import Flask

from worker import PerennialWorker

REQUESTS = 20
# Werkzeug's own matching of a path, and its client for tests, leave functions that refer to themselves.
_ITS_OWN = 20


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/api/sse?ticks=x", 400), ("/api/download/none", 404), ("/healthz", 200)]
)
def test_a_request_leaves_nothing_to_collect(make_app: Callable[..., Flask], path: str, status: int) -> None:
    """Neither does a refusal: a scan of a thousand URLs left a hundred objects for each of them."""
    client = make_app().test_client()
    assert client.get(path).status_code == status
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            client.get(path).close()
        assert gc.collect() <= REQUESTS * _ITS_OWN
    finally:
        gc.enable()


def test_a_wait_that_was_too_long_leaves_nothing_to_collect() -> None:
    """A crowd whose heads never come is ended by the thousand: a time-out lets go of the frames it went through."""
    worker = PerennialWorker.__new__(PerennialWorker)
    worker._idle = {}
    gc.collect()
    gc.disable()
    try:
        for number in range(REQUESTS):
            with worker._deadline(number, 0.001):
                gevent.sleep(5)
        assert not worker._idle
        assert gc.collect() < REQUESTS
    finally:
        gc.enable()

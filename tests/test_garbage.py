"""What a request leaves for Python's collector, which holds up the whole worker while it looks for it."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from flask import Flask

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

"""Every route answers whatever /openapi.json allows as it says there: schemathesis asks.

Left out are the streams that have no end: there is nothing to wait for in them, and tests of their own read them.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from streaming import openapi_routes
from tests.harness import LiveServer

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = ["/api/activity", "/api/upload-progress/{id}"]
# What would only make a test wait: each asked for as described, and then for less.
SHORTER = {"follow": "0", "poll": "0", "interval": 0, "limit": 3, "count": 3, "chunks": 3}


CONFIG = schemathesis.Config.from_dict({"generation": {"allow-x00": False}})
DESCRIPTION = schemathesis.openapi.from_dict(openapi_routes.description(), config=CONFIG)
ROUTES = [
    (path, method)
    for path, methods in openapi_routes.description()["paths"].items()
    for method in methods
    if path not in ENDLESS
]


def ask(server: LiveServer, path: str, method: str, examples: int) -> None:
    """Ask a route for ``examples`` things that its description allows, the same ones in every run."""

    @hypothesis.seed(0)
    @hypothesis.settings(max_examples=examples, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=DESCRIPTION[path][method].as_strategy())
    def asked(case: Any) -> None:
        case.query = shorter(path, case.query)
        case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=20)

    asked()


def shorter(path: str, query: Any) -> dict[str, Any]:
    """The same query, for less: what it would wait for, and rows by the hundred thousand."""
    asked = {name: SHORTER.get(name, value) for name, value in dict(query or {}).items() if name != "live"}
    if asked and path.startswith(("/api/export", "/api/stream-json")):
        asked["limit"] = 3
    if path in ("/api/stream", "/api/sse", "/api/stream-safe") and "table" not in asked:
        asked["interval"] = 0
    return asked


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_route_is_as_described(server: LiveServer, path: str, method: str) -> None:
    """A few requests of each route: no status, type or shape but those described, and no failure of the server."""
    ask(server, path, method, 4)


@pytest.mark.slow_suite
@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_route_is_as_described_at_length(server: LiveServer, path: str, method: str) -> None:
    """The same with many requests."""
    ask(server, path, method, 100)

"""A line of the access log is gunicorn's own, letter by letter."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from access_log import FORMAT, AccessLog

OF_AN_OPERATOR = '%(h)s %(t)s "%(r)s" %(s)s %(b)s "%({x-one}i)s" "%({content-type}o)s" %(q)s'


def line(kind: type[Any], format: str, status: str | int, uri: str, seconds: float) -> str:
    """What a logger of this kind writes of a request."""
    config = Config()
    config.set("access_log_format", format)
    log = kind(config)
    log.now = lambda: "[now]"
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": uri, "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1"}
    environ["QUERY_STRING"] = uri.partition("?")[2]
    answer = SimpleNamespace(status=status, sent=12_345, headers=[("Content-Type", "text/plain")])
    asked = SimpleNamespace(headers=[("X-ONE", '1"2')])
    atoms = log.atoms_wrapper_class(log.atoms(answer, asked, environ, timedelta(seconds=seconds)))
    return str(format % atoms)


@pytest.mark.parametrize("format", [FORMAT, OF_AN_OPERATOR], ids=["ours", "an operator's"])
@pytest.mark.parametrize("status", ["200 OK", "404", 206])
@pytest.mark.parametrize("uri", ["/a?b=c", '/%22"quoted"%0a', "/\x7f"])
@pytest.mark.parametrize("seconds", [0.000001, 61.5])
def test_a_line_is_gunicorns(format: str, status: str | int, uri: str, seconds: float) -> None:
    """What the line says, and what it does not let through."""
    assert line(AccessLog, format, status, uri, seconds) == line(Logger, format, status, uri, seconds)

"""A response's head and its first piece leave together; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from streaming import first_writes
from tests.clients import RawClient
from tests.harness import LiveServer


class Recorder:
    """A socket: ``sent``, a call each; ``error``, raised by each call instead."""

    def __init__(self, error: OSError | None = None) -> None:
        self.sent: list[bytes] = []
        self._error = error

    def sendall(self, data: bytes) -> None:
        if self._error:
            raise self._error
        self.sent.append(data)


def response(connection: Recorder, *, joined: bool = True, method: str = "GET", length: int | None = None) -> Any:
    asked = SimpleNamespace(version=(1, 1), method=method, should_close=lambda: False)
    made = Response(asked, connection, Config())
    made.start_response("200 OK", [("Content-Length", str(length))] if length is not None else [])
    if joined:
        first_writes.join(made)
    return made


def written(pieces: list[bytes], **how: Any) -> list[bytes]:
    """The calls of a response of so many pieces, without its date."""
    connection = Recorder()
    made = response(connection, **how)
    for piece in pieces:
        made.write(piece)
    made.close()
    return [b"".join(line for line in each.splitlines(True) if b"Date" not in line) for each in connection.sent]


def test_the_head_leaves_with_the_first_piece() -> None:
    """One call for both, and one for each further piece, as gunicorn has it."""
    apart = written([b"one", b"two"], joined=False)
    assert written([b"one", b"two"]) == [apart[0] + apart[1], *apart[2:]]
    assert apart[1:] == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("pieces", "how"),
    [
        ([], {}),
        ([b""], {}),
        ([b"", b"one"], {}),
        ([], {"length": 0}),
        ([b"one", b"two"], {"length": 4}),
        ([b""], {"length": 3}),
        ([b"one"], {"method": "HEAD"}),
        ([b"x" * 65_536], {}),
        ([b"x" * 65_537], {}),
        ([b"x" * 65_537], {"length": 65_537}),
    ],
)
def test_the_bytes_are_gunicorns(pieces: list[bytes], how: dict[str, Any]) -> None:
    """Whatever is written first: nothing, too much, what a HEAD has no place for, and what is too long to be copied."""
    apart = written(pieces, joined=False, **how)
    assert b"".join(written(pieces, **how)) == b"".join(apart)
    if pieces and len(pieces[0]) > 65_536:
        assert written(pieces, **how) == apart
    assert written([b"", b"one"])[0].endswith(b"\r\n\r\n"), "an empty piece keeps the head waiting"


def test_what_is_no_bytes_ends_a_response_that_has_begun() -> None:
    """As with gunicorn: the head has left, so the connection is cut and not answered a second time."""
    connection = Recorder()
    made = response(connection)
    with pytest.raises(TypeError, match="not a byte"):
        made.write("text")
    assert made.headers_sent
    assert made.sock is connection
    assert connection.sent[0].startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_has_gone_is_noticed() -> None:
    """By the write that fails; the response keeps its own socket."""
    connection = Recorder(BrokenPipeError(32, "gone"))
    made = response(connection)
    with pytest.raises(BrokenPipeError):
        made.write(b"one")
    assert made.sock is connection


def test_another_kind_of_response_is_left_alone() -> None:
    """HTTP/2 has one of its own, and other servers have others."""
    other = SimpleNamespace(write=print)
    first_writes.join(other)
    assert other.write is print


@pytest.mark.slow(2)
@pytest.mark.parametrize("written", ["", "%({x-accel-buffering}o)s"])
def test_a_parked_response_keeps_its_headers_for_the_log(live_server: Callable[..., LiveServer], written: str) -> None:
    """Where a line of the access log has one, it is there at the end; none keeps the line from being written."""
    flags = f"--access-logformat='%(s)s {written} %(U)s'"
    server = live_server(GUNICORN_CMD_ARGS=flags)
    with RawClient(server.port) as client:
        client.request("GET", "/api/events?topic=default&follow=1").read_body_until(b"connected")
        with RawClient(server.port) as publisher:  # what comes now is written to it while it waits
            publisher.request("POST", "/api/notifications", body=b"hello").read_to_end()
        client.read_body_until(b"hello")
    assert server.wait_log(f"200 {'no' if written else ''} /api/events")

"""``flask --app wsgi doctor URL``: what stands between a client and this server, and does harm to streams.

Rules:
- It sees what a client sees, by the client's own URL. Only how the server was asked is the server's word.
- Each finding is one sentence that says what is wrong and what to set. No finding is no promise.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click

TIMEOUT_S = 10.0
# Between two events; what arrives together that was apart by this has been held.
_APART_S = 0.4
_WAIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """The server as its clients know it. ``trusting``: take any certificate."""

    url: str
    token: str = ""
    trusting: bool = False

    def connect(self, timeout_s: float = TIMEOUT_S) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        context = ssl._create_unverified_context() if self.trusting else ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=context)

    def target(self, path: str) -> str:
        return urlsplit(self.url).path.rstrip("/") + path

    def headers(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        return {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), "Connection": "close", **more}

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
    ) -> http.client.HTTPResponse:
        """Return the answer once its head is there. Raises Refused for a status other than 200, and OSError."""
        connection = self.connect()
        connection.request(method, self.target(path), body, self.headers(headers))
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refused(f"{method} {path} is answered with {answer.status}, so that could not be looked at.")
        return answer


class Refused(Exception):
    """It could not be looked at; the sentence says why."""


def findings(place: Place) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong."""
    for look in (upstream_protocol, buffering, request_buffering, hidden_cut):
        try:
            yield from look(place)
        except Refused as refused:
            yield str(refused)
        except (OSError, http.client.HTTPException) as error:
            yield f"No answer to what {look.__name__.replace('_', ' ')} asks: {error!r}."


def upstream_protocol(place: Place) -> Iterator[str]:
    """A proxy that asks in HTTP/1.0: the end of its connection is the end of a response, whole or not."""
    told: Any = json.loads(place.ask("GET", "/healthz").read())
    if told.get("protocol") == "HTTP/1.0":
        yield (
            "The proxy speaks HTTP/1.0 to the server: a response that a killed worker left looks whole. "
            'nginx: proxy_http_version 1.1; proxy_set_header Connection "";'
        )


def buffering(place: Place) -> Iterator[str]:
    """Events that were apart and come together were held."""
    path = f"/api/sse?count=4&interval={_APART_S}"
    answer = place.ask("GET", path, headers={"Accept": "text/event-stream"})
    arrived = [time.monotonic() for _ in iter(lambda: _event(answer), b"")]
    if len(arrived) > 1 and arrived[-1] - arrived[0] < 2 * _APART_S:
        yield (
            "The proxy buffers responses: events come together at the end, not as they are made. nginx: "
            "proxy_buffering off; proxy_http_version 1.1; and no proxy_ignore_headers X-Accel-Buffering."
        )
    packed = place.ask("GET", "/api/sse?count=1", headers={"Accept-Encoding": "gzip, br, zstd"})
    if packed.getheader("Content-Encoding"):
        yield "The proxy compresses streams: a compressed body that is cut is taken for a whole one. nginx: gzip off;"


def _event(answer: http.client.HTTPResponse) -> bytes:
    """Return the next data line, b"" at the end."""
    return next((line for line in iter(answer.readline, b"") if line.startswith(b"data:")), b"")


def request_buffering(place: Place) -> Iterator[str]:
    """The answer to half of a body has to come before the other half is sent."""
    with _halfway(place, "/api/transform?to=upper", b"half", b"half") as half:
        if half.answer is None or half.answer.status != 200:
            yield (
                "The proxy buffers requests: an upload has no progress and a transform no answer until all of it has "
                "been sent. nginx: proxy_request_buffering off;"
            )


def hidden_cut(place: Place) -> Iterator[str]:
    """A body that cannot be unpacked to its end makes the server cut its answer: the client has to see that."""
    # What does not shrink, and so much that its first half has an answer.
    packed = gzip.compress(random.Random(1).randbytes(300_000))[:-2000]
    with _halfway(place, "/api/transform?to=gunzip", packed[:-1000], packed[-1000:]) as half:
        if half.answer is None or half.answer.status != 200:
            return  # it came to the server at once, who refused it: that was found already
        half.finish()
        try:
            half.answer.read()
        except (http.client.IncompleteRead, ConnectionError):
            return
    yield (
        "The proxy hides a cut: a response that the server broke off looks whole. nginx: proxy_http_version 1.1; and "
        "chunked_transfer_encoding on;"
    )


@dataclass(frozen=True, slots=True)
class _Half:
    """A request of which the first half has been sent, and its answer if there is one already."""

    answer: http.client.HTTPResponse | None
    finish: Callable[[], None]


@contextlib.contextmanager
def _halfway(place: Place, path: str, first: bytes, rest: bytes) -> Iterator[_Half]:
    connection = place.connect(_WAIT_S)
    with contextlib.closing(connection):
        connection.putrequest("POST", place.target(path))
        length = str(len(first) + len(rest))
        for name, value in place.headers({"Content-Length": length, "Content-Type": "text/plain"}).items():
            connection.putheader(name, value)
        connection.endheaders()
        socket = connection.sock  # of an answer that ends with its connection http.client lets go
        socket.sendall(first)
        try:
            answer: http.client.HTTPResponse | None = connection.getresponse()
        except TimeoutError:
            answer = None
        yield _Half(answer, lambda: socket.sendall(rest))


@click.command("doctor")
@click.argument("url")
@click.option("--token", default="", help="A bearer token that may read and write.")
@click.option("--trusting", is_flag=True, help="Take any certificate.")
def command(url: str, token: str, trusting: bool) -> None:
    """Look at the way to this server as its clients have it, by URL; say what harms streams on it."""
    if not urlsplit(url).hostname or urlsplit(url).scheme not in ("http", "https"):
        raise click.BadParameter(f"{url!r} is no URL of a server, such as https://perennial.example.")
    found = list(findings(Place(url, token, trusting)))
    for sentence in found:
        click.echo(f"✗ {sentence}")
    if found:
        raise SystemExit(1)
    click.echo("✓ Streams arrive as they are made, uploads too, and a cut is seen.")

"""``/v1/stream/<path>`` in memory and on a real server: what the protocol's own suite does not ask.

That suite is run by ``make conformance``; here stand the bounds, the extensions of docs/protocols.md, what concerns
sockets, and the protocol's clients in two languages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from settings import Settings
from stores.base import Config
from streaming import quotas
from streaming.durable import ZERO
from streaming.events import Event
from streaming.quotas import Quota
from tests.harness import LiveServer, RawClient, eventually, parse_events

TEXT = {"Content-Type": "text/plain"}
CONFORMANCE = Path(__file__).resolve().parent / "conformance"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, MAX_APPEND_BYTES=1000, MAX_STREAM_PATHS=3, LONG_POLL_S=0.05)


@pytest.mark.parametrize("path", ["a", "a/b%20c/%E6%97%A5%E6%9C%AC", "a%3Fb", "%25", "a%2Bb", "__dsx"])
def test_a_path_is_one_stream_by_every_method(client: FlaskClient, path: str) -> None:
    """What was made under a URL is read, written and deleted there, and its Location is that URL."""
    url = f"/v1/stream/{path}"
    made = client.put(url, data="a", headers=TEXT)
    assert (made.status_code, made.headers["Location"]) == (201, f"http://localhost{url}")
    assert client.post(url, data="b", headers=TEXT).status_code == 204
    assert client.get(made.headers["Location"]).data == b"ab"
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/v1/stream/a/../b", 400),
        ("/v1/stream/a/%2e%2e/b", 400),
        ("/v1/stream/a//b", 400),
        ("/v1/stream/a%2F", 400),
        ("/v1/stream/a%00", 400),
        ("/v1/stream/" + "x" * 513, 400),
        ("/v1/stream/__ds/subscriptions/1", 404),
        ("/v1/stream/leases/1", 404),
    ],
)
def test_a_path_that_cannot_be_is_a_problem(client: FlaskClient, url: str, status: int) -> None:
    """For every method alike, and with the headers that keep a browser from guessing."""
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        answer = client.open(url, method=method, headers=TEXT)
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["%ff", "a%0D%0Ab"])
def test_a_path_that_is_no_text_is_refused(streams: LiveServer, raw: RawClient, path: str) -> None:
    """Bytes that are no UTF-8 are nobody's replacement characters, and a line end is no part of a name."""
    assert raw.request("PUT", f"/v1/stream/{path}", [], b"").read_to_end().status in (400, 404)


def test_the_servers_own_streams_are_only_read(app: Flask, client: FlaskClient) -> None:
    """Notifications are a stream as any other to readers, and nobody else's to write."""
    client.post("/api/notifications?topic=t", json={"n": 1})
    url = "/v1/stream/notifications/t"
    assert client.get(url).json == [{"n": 1}]
    assert client.head(url).status_code == 200
    answers = [
        client.put(url, headers=TEXT),
        client.post(url, data="x", headers=TEXT),
        client.delete(url),
        client.put("/v1/stream/mine", headers={"Stream-Forked-From": url}),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert client.get(url).json == [{"n": 1}]


def test_what_is_too_large_is_refused(client: FlaskClient) -> None:
    """MAX_APPEND_BYTES bounds what one request adds, whole."""
    assert client.put("/v1/stream/a", data=b"x" * 1000, headers=TEXT).status_code == 201
    assert client.post("/v1/stream/a", data=b"x" * 1001, headers=TEXT).status_code == 413
    assert client.put("/v1/stream/b", data=b"x" * 1001, headers=TEXT).status_code == 413
    assert len(client.get("/v1/stream/a").data) == 1000
    assert client.head("/v1/stream/b").status_code == 404


def test_streams_are_bounded(client: FlaskClient) -> None:
    """One more than MAX_STREAM_PATHS is a 429 that says when to come again; what is there is still found."""
    for name in "abc":
        assert client.put(f"/v1/stream/{name}", headers=TEXT).status_code == 201
    refused = client.put("/v1/stream/d", headers=TEXT)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert client.put("/v1/stream/c", headers=TEXT).status_code == 200
    assert client.delete("/v1/stream/a").status_code == 204
    assert client.put("/v1/stream/d", headers=TEXT).status_code == 201


def test_the_count_is_taken_anew(app: Flask) -> None:
    """What expired, or another worker deleted, makes place within COUNT_S; the server's own streams take none."""
    log, now = app.extensions["log"], [0.0]
    quota = Quota(log, 1, clock=lambda: now[0])
    log.create("notifications/a", Config())
    quota.enter("x")
    log.create("x", Config())
    quota.made()
    with pytest.raises(quotas.TooManyRequests):
        quota.enter("y")
    log.delete("x")
    with pytest.raises(quotas.TooManyRequests):
        quota.enter("y")
    now[0] += quotas.COUNT_S
    quota.enter("y")


def test_types_are_alike_without_their_parameters(client: FlaskClient) -> None:
    """fetch() adds a charset to text on its own; readers get the type that the stream was made with."""
    charset = {"Content-Type": "text/plain;charset=UTF-8"}
    client.put("/v1/stream/a", headers=TEXT)
    assert client.put("/v1/stream/a", headers=charset).status_code == 200
    assert client.post("/v1/stream/a", data="x", headers=charset).status_code == 204
    assert client.get("/v1/stream/a", buffered=True).content_type == "text/plain"


def test_a_body_on_a_fork_is_of_its_sources_type(client: FlaskClient) -> None:
    """Without a Content-Type of its own, too: the messages of an array are messages."""
    client.put("/v1/stream/a", json=[1, 2])
    assert client.put("/v1/stream/b", data="[3,4]", headers={"Stream-Forked-From": "/v1/stream/a"}).status_code == 201
    assert client.get("/v1/stream/b").data == b"[1,2,3,4]"


def test_messages_stay_as_they_were_sent(client: FlaskClient) -> None:
    """A message is the sender's bytes: numbers, escapes and spaces are nobody's to rewrite."""
    client.put(
        "/v1/stream/a",
        data=b'[ 1.0000000000000000000001 , {"b" : "\\u00e9", "a":1E2} ]',
        content_type="application/json",
    )
    assert client.get("/v1/stream/a").data == b'[1.0000000000000000000001,{"b" : "\\u00e9", "a":1E2}]'


def drop(app: Flask, path: str, count: int, keep: int) -> list[str]:
    """Append ``count`` events and keep ``keep``; return every offset."""
    config = Config("text/plain", keep_events=keep)
    append = app.extensions["log"].append
    return [append(path, [Event(b"%d" % number)], create=config).offset for number in range(count)]


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
def test_what_is_no_longer_kept_is_gone(app: Flask, client: FlaskClient, live: str) -> None:
    """5.6: an offset before the earliest that is kept is a 410, in every mode; also the end of a stream once empty."""
    first, second, *_ = drop(app, "a", 4, 2)
    for offset in (ZERO, first):
        assert client.get(f"/v1/stream/a?offset={offset}{live}").status_code == 410
    if not live:
        assert client.get(f"/v1/stream/a?offset={second}").data == b"23"


def test_the_beginning_is_what_is_kept(app: Flask, client: FlaskClient) -> None:
    """Who asks for the beginning gets what there is, and is told how much is not."""
    drop(app, "a", 4, 2)
    answer = client.get("/v1/stream/a?offset=-1")
    assert (answer.data, answer.headers["Stream-Missed"]) == (b"23", "2")


def test_an_offset_of_another_life_is_refused(client: FlaskClient) -> None:
    """A stream that was deleted and made again gives nobody a place in the other."""
    offset = client.put("/v1/stream/a", data="x", headers=TEXT).headers["Stream-Next-Offset"]
    client.delete("/v1/stream/a")
    client.put("/v1/stream/a", data="y", headers=TEXT)
    assert client.get(f"/v1/stream/a?offset={offset}").status_code == 400


def test_a_large_stream_comes_in_parts(app: Flask, client: FlaskClient) -> None:
    """5.6: an answer has about 128 KiB; each part but the last may be kept by a cache."""
    pieces = [bytes([number]) * 40_000 for number in range(10)]
    app.extensions["log"].append("a", [Event(piece) for piece in pieces], create=Config())
    offset, read, answers = "-1", b"", []
    while not answers or "Stream-Up-To-Date" not in answers[-1].headers:
        answers.append(client.get(f"/v1/stream/a?offset={offset}"))
        offset = answers[-1].headers["Stream-Next-Offset"]
        read += answers[-1].data
    assert read == b"".join(pieces)
    assert [len(answer.data) for answer in answers] == [120_000, 120_000, 120_000, 40_000]
    caching = [answer.headers["Cache-Control"] for answer in answers]
    assert caching == ["private, max-age=60, stale-while-revalidate=300"] * 3 + ["private, no-cache"]


def test_a_304_still_says_where_the_stream_stands(client: FlaskClient) -> None:
    """RFC 9110, 15.4.5: what a cache keeps up to date comes along, and nothing of a body."""
    client.put("/v1/stream/a", data="x", headers=TEXT)
    whole = client.get("/v1/stream/a", buffered=True)
    again = client.get("/v1/stream/a", headers={"If-None-Match": f'"x", W/{whole.headers["ETag"]}'})
    assert (again.status_code, again.data, again.content_type) == (304, b"", None)
    for name in ("ETag", "Stream-Next-Offset", "Stream-Up-To-Date", "Cache-Control"):
        assert again.headers[name] == whole.headers[name]
    client.post("/v1/stream/a", headers={"Stream-Closed": "true"})
    closed = client.get("/v1/stream/a", headers={"If-None-Match": whole.headers["ETag"]}, buffered=True)
    assert (closed.status_code, closed.headers["Stream-Closed"]) == (200, "true")


@pytest.mark.parametrize("query", ["live=", "live=yes", "live=sse&live=sse&offset=-1", "live=sse", "offset=a&offset=b"])
def test_a_query_that_cannot_be_is_a_400(client: FlaskClient, query: str) -> None:
    """5.7, 5.8: a mode is one of two and needs an offset; unknown parameters are nobody's business (11.1)."""
    client.put("/v1/stream/a", headers=TEXT)
    assert client.get(f"/v1/stream/a?{query}").status_code == 400
    assert client.get("/v1/stream/a?foo=bar&foo=baz", buffered=True).status_code == 200


def test_an_event_source_is_told_the_end(client: FlaskClient) -> None:
    """It comes back after every end but a 204 (HTML standard, 9.2.3); others get the protocol's answer."""
    client.put("/v1/stream/a", data="x", headers=TEXT | {"Stream-Closed": "true"})
    events = parse_events(client.get("/v1/stream/a?offset=-1&live=sse").data)
    assert [event.type for event in events] == ["data", "control"]
    again = client.get("/v1/stream/a?offset=-1&live=sse", headers={"Last-Event-ID": events[-1].id})
    assert (again.status_code, again.content_type) == (204, None)
    other = client.get(f"/v1/stream/a?offset={events[-1].id}&live=sse")
    assert json.loads(parse_events(other.data)[0].data)["streamClosed"] is True


@pytest.mark.parametrize("query", ["", "?offset=-1&live=sse", "?offset=-1&live=long-poll"])
def test_a_stream_is_no_page_of_the_server(client: FlaskClient, query: str) -> None:
    """CWE-79: HTML that somebody has put there is not run as this server's own."""
    html = {"Content-Type": "text/html", "Stream-Closed": "true"}
    client.put("/v1/stream/a", data="<script>alert(1)</script>", headers=html)
    answer = client.get(f"/v1/stream/a{query}", buffered=True)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_preflight_says_what_may_be_asked(client: FlaskClient) -> None:
    """The headers of the protocol, and no origin: that is said where it is allowed."""
    answer = client.options("/v1/stream/a")
    assert {"if-none-match", "producer-id", "stream-seq"} <= set(
        answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    )
    assert "Access-Control-Allow-Origin" not in answer.headers


# --- on a real server ---------------------------------------------------------------------------------------------


@pytest.fixture
def streams(live_server: Callable[..., LiveServer]) -> LiveServer:
    return live_server(STREAMS_URL="memory:", HEARTBEAT_S=0.2)


@pytest.fixture
def raw(streams: LiveServer) -> Iterator[RawClient]:
    with RawClient(streams.port) as client:
        yield client


def put(streams: LiveServer, path: str, **headers: str) -> str:
    """Make a stream, and return its tail."""
    return send(streams, "PUT", path, None, **headers)


def send(streams: LiveServer, method: str, path: str, body: bytes | None, **headers: str) -> str:
    named = {"Content-Type": "text/plain", **{name.replace("_", "-"): value for name, value in headers.items()}}
    with RawClient(streams.port) as client:
        answer = client.request(method, f"/v1/stream/{path}", named.items(), body or b"").read_to_end()
    assert answer.status in (200, 201, 204), answer
    return answer.header("stream-next-offset")


def test_a_live_reader_gets_what_comes(streams: LiveServer, raw: RawClient) -> None:
    """5.8: where it stands at once, then every append with its control, heartbeats between them, and the end."""
    put(streams, "a")
    raw.request("GET", "/v1/stream/a?offset=-1&live=sse").read_body_until(b"upToDate")
    raw.read_body_until(b":\n\n")
    send(streams, "POST", "a", b"one\ntwo ")
    raw.read_body_until(b"data:two \n")
    tail = send(streams, "POST", "a", b"end", Stream_Closed="true")
    answer = raw.read_to_end()
    assert (answer.status, answer.end, answer.header("content-type")) == (200, "clean", "text/event-stream")
    events = parse_events(bytes(answer.body))
    assert [event.data for event in events if event.type == "data"] == ["one\ntwo ", "end"]
    last = json.loads(events[-1].data)
    assert (last["streamNextOffset"], last["streamClosed"], events[-1].id) == (tail, True, tail)


def test_an_event_source_continues_by_its_last_id(streams: LiveServer, raw: RawClient) -> None:
    """Its URL still says where it began; the id of the last control event says where it is."""
    put(streams, "a")
    middle = send(streams, "POST", "a", b"before")
    send(streams, "POST", "a", b"after", Stream_Closed="true")
    answer = raw.request("GET", "/v1/stream/a?offset=-1&live=sse", [("Last-Event-ID", middle)]).read_to_end()
    assert [event.data for event in parse_events(bytes(answer.body)) if event.type == "data"] == ["after"]


def test_a_stream_that_is_deleted_ends_its_readers(streams: LiveServer, raw: RawClient) -> None:
    """5.4: the response ends; who comes back gets the 404."""
    put(streams, "a")
    send(streams, "POST", "a", b"x")
    raw.request("GET", "/v1/stream/a?offset=-1&live=sse").read_body_until(b"upToDate")
    send(streams, "DELETE", "a", None)
    assert raw.read_to_end().end == "clean"


def test_a_poll_waits_for_an_append(streams: LiveServer, raw: RawClient) -> None:
    """5.7: nothing is answered while there is nothing, and what comes is answered at once."""
    tail = put(streams, "a")
    raw.request("GET", f"/v1/stream/a?offset={tail}&live=long-poll")
    assert raw.quiet(0.7)
    send(streams, "POST", "a", b"x")
    answer = raw.read_to_end(2.0)
    assert (answer.status, bytes(answer.body)) == (200, b"x")


def test_a_poll_ends_after_its_time(live_server: Callable[..., LiveServer]) -> None:
    """5.7: 204 with the tail, a cursor, and that there is nothing more for now."""
    streams = live_server(STREAMS_URL="memory:", LONG_POLL_S=0.3)
    tail = put(streams, "a")
    with RawClient(streams.port) as raw:
        answer = raw.request("GET", "/v1/stream/a?offset=now&live=long-poll").read_to_end(3.0)
    assert (answer.status, answer.header("stream-next-offset"), answer.header("stream-up-to-date")) == (
        204,
        tail,
        "true",
    )
    assert answer.header("stream-cursor").isdigit()


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_a_reader_that_has_gone_is_noticed(streams: LiveServer, mode: str) -> None:
    """Within a second, while nothing happens: it held a place that somebody else may want."""
    put(streams, "a")
    with RawClient(streams.port) as raw:
        raw.request("GET", f"/v1/stream/a?offset=now&live={mode}")
        eventually(lambda: streams.streams() == 1, 2.0, "the reader is counted")
    eventually(lambda: streams.streams() == 0, 1.0, "the reader is noticed to be gone")


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_a_server_that_is_restarted_lets_its_readers_go(streams: LiveServer, raw: RawClient, mode: str) -> None:
    """A clean end at once, after which the client continues: nothing waits for the grace time."""
    put(streams, "a")
    raw.request("GET", f"/v1/stream/a?offset=now&live={mode}")
    eventually(lambda: streams.streams() == 1, 2.0, "the reader is counted")
    streams.signal(15)
    assert raw.read_to_end(3.0).end == "clean"
    assert streams.wait_exit(5.0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_a_reader_that_waits_keeps_its_stream(streams: LiveServer, raw: RawClient, mode: str) -> None:
    """5.1: a stream with a sliding lifetime and a live reader does not expire, even if nothing comes."""
    put(streams, "a", Stream_TTL="1")
    raw.request("GET", f"/v1/stream/a?offset=now&live={mode}")
    if mode == "sse":
        raw.read_until(lambda answer: answer.body.count(b":\n\n") >= 5, 5.0)  # heartbeats, one a tick
    else:
        assert raw.quiet(2.5)
    send(streams, "POST", "a", b"still here")


def test_many_wait_for_one(streams: LiveServer) -> None:
    """Every reader of a stream gets every append once, in order, however they read."""
    put(streams, "a")
    seen: dict[int, bytes] = {}

    def follow(number: int) -> None:
        with RawClient(streams.port) as client:
            answer = client.request("GET", "/v1/stream/a?offset=-1&live=sse").read_to_end()
        events = parse_events(bytes(answer.body))
        seen[number] = "".join(event.data for event in events if event.type == "data").encode()

    readers = [threading.Thread(target=follow, args=(number,)) for number in range(10)]
    for reader in readers:
        reader.start()
    for number in range(20):
        send(streams, "POST", "a", b"%d," % number, **({"Stream_Closed": "true"} if number == 19 else {}))
    for reader in readers:
        reader.join()
    assert set(seen.values()) == {b"".join(b"%d," % number for number in range(20))}
    assert len(seen) == 10


# --- the protocol's own clients -----------------------------------------------------------------------------------


def test_the_python_client_works_unchanged(live_server: Callable[..., LiveServer]) -> None:
    """``durable-streams`` from PyPI: create, append, read at once and live, and see the end of a stream."""
    durable_streams = pytest.importorskip("durable_streams", reason="durable-streams is not installed")
    streams = live_server(STREAMS_URL="memory:", LONG_POLL_S=2)  # its client ends none before it is answered
    url = f"{streams.url}/v1/stream/python"
    with closing(durable_streams.DurableStream.create(url, content_type="application/json")) as handle:
        handle.append({"n": 1})
        handle.append({"n": 2})
        with durable_streams.stream(url, live=False) as caught_up:
            assert caught_up.read_json() == [{"n": 1}, {"n": 2}]
            offset = caught_up.offset
        for mode in ("long-poll", "sse"):
            with durable_streams.stream(url, offset=offset, live=mode) as live:
                handle.append({"mode": mode})
                assert next(live.iter_json()) == {"mode": mode}
            offset = handle.head().offset
        handle.delete()


@pytest.mark.slow
@pytest.mark.skipif(
    not (CONFORMANCE / "node_modules").exists() or not shutil.which("node"),
    reason="the JavaScript client is not here: npm install --prefix tests/conformance",
)
def test_the_javascript_client_works_unchanged(streams: LiveServer) -> None:
    """``@durable-streams/client``: create, append, also as a producer, read at once and live both ways, close."""
    command = ["node", "client.mjs", f"{streams.url}/v1/stream/javascript"]
    ran = subprocess.run(command, cwd=CONFORMANCE, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["caughtUp"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert said["sse"] == said["longPoll"] == [{"n": 4}, {"n": 5}]
    assert said["closed"] is True

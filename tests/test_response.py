"""The pump in memory: what is written when, and that every source is closed. What needs a socket is in test_races."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response

from settings import Settings
from stores.errors import StoreError, UnknownOffset
from streaming import wire
from streaming.begun import Begun
from streaming.errors import BadRequest, ClientLeft, Problem, StreamFailed, Unavailable
from streaming.events import Event, Source
from streaming.framings import NDJSON, SSE, Text
from streaming.links import links
from streaming.pump import BLOCK_BYTES, pump
from streaming.response import respond
from streaming.shares import Shares
from streaming.table_framings import CSV
from tests.harness import EventStream

ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": "/a", "SERVER_PROTOCOL": "HTTP/1.1"}
PLENTY_S = 1000.0


class Watched:
    """A source that notes what was asked of it; an exception among ``items`` is raised in its turn."""

    def __init__(self, *items: Event | BaseException | None) -> None:
        self.items = list(items)
        self.asked = 0
        self.closed = 0

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Event | None:
        self.asked += 1
        if not self.items:
            raise StopIteration
        item = self.items.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1


def some(*texts: str) -> list[Event]:
    return [Event(text.encode()) for text in texts]


def pumped(source: Source, framing: Any = None, **options: Any) -> Iterator[bytes]:
    return pump(source, framing or Text(), ENVIRON, options.pop("heartbeat_s", PLENTY_S), **options)


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """No test leaves a connection that is still watched."""
    before = len(links)
    yield
    assert len(links) == before


# When what leaves


def test_headers_leave_before_the_source_is_asked() -> None:
    """The opening, be it empty, is written first: it carries the headers."""
    source = Watched(*some("a"))
    writes = pumped(source)
    assert next(writes) == b""
    assert source.asked == 0
    writes.close()


def test_the_first_item_leaves_at_once() -> None:
    """It is written before the source is asked for a second one."""
    source = Watched(*some("a", "b"))
    writes = pumped(source)
    assert [next(writes), next(writes)] == [b"", b"a"]
    assert source.asked == 1
    writes.close()


def test_none_flushes() -> None:
    """What was made until a None is written together, before the source is asked again."""
    source = Watched(*some("a", "b", "c"), None, *some("d", "e"), None, None, *some("f"))
    assert list(pumped(source)) == [b"", b"a", b"bc", b"de", b"f"]


def test_bulk_leaves_in_blocks() -> None:
    """A source that is never idle is written in blocks of about 64 KiB, nothing lost between them."""
    event = Event(b"x" * 99)
    writes = list(pumped(iter([event] * 5000), NDJSON()))
    assert b"".join(writes) == (b"x" * 99 + b"\n") * 5000
    assert writes[:2] == [b"", event.data + b"\n"]
    assert all(BLOCK_BYTES < len(each) <= BLOCK_BYTES + 100 for each in writes[2:-1])
    assert 0 < len(writes[-1]) <= BLOCK_BYTES


def test_a_large_item_waits_for_nothing() -> None:
    """An item beyond the block's size leaves by itself."""
    writes = list(pumped(iter([Event(b"a"), Event(b"b" * 10**6), Event(b"c")])))
    assert [len(each) for each in writes] == [0, 1, 10**6, 1]


def test_a_large_item_is_not_copied() -> None:
    """What fills a write by itself is written as its framing made it; what small ones came before it is not lost."""
    large = Event(b"b" * 10**6)
    writes = list(pumped(iter([Event(b"a"), large, Event(b"c"), large, large])))
    assert [len(each) for each in writes] == [0, 1, 10**6, 1 + 10**6, 10**6, 0]
    assert writes[2] is large.data
    assert writes[4] is large.data


def test_an_empty_stream_is_opened_and_ended() -> None:
    """No item is a whole stream, too."""
    assert list(pumped(iter(()), CSV(["a"]))) == [b"a\r\n", b""]


def test_memory_does_not_grow_with_the_stream() -> None:
    """The pump asks for no more than a block ahead of what is taken from it."""
    source = Watched(*[Event(b"x" * 1024)] * 1000)
    writes = pumped(source)
    for _ in range(3):
        next(writes)
    assert source.asked <= 2 + BLOCK_BYTES // 1024
    writes.close()


# Heartbeats


def test_a_heartbeat_leaves_when_it_is_due() -> None:
    """Of a silent source, one heartbeat each ``heartbeat_s``."""

    def silent() -> Source:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            time.sleep(0.005)
            yield None

    beats = list(pumped(silent(), SSE("7"), heartbeat_s=0.1))[1:-1]
    assert set(beats) == {b"id: 7\n\n"}
    assert 2 <= len(beats) <= 5


def test_a_heartbeat_tells_the_newest_cursor() -> None:
    """Its id is that of the last event written."""
    source = Watched(Event(b"x", id="1"), None, Event(b"y", id="2"), None, None)
    assert list(pumped(source, SSE(), heartbeat_s=0.0))[1:] == [
        b"id: 1\ndata: x\n\n",
        b"id: 1\n\n",
        b"id: 2\ndata: y\n\n",
        b"id: 2\n\n",
        b"",
    ]


def test_no_heartbeat_beside_events() -> None:
    """What is written is a sign of life itself."""

    def busy() -> Source:
        for _ in range(50):
            time.sleep(0.002)
            yield Event(b"1")
            yield None

    assert list(pumped(busy(), NDJSON(), heartbeat_s=0.05)) == [b"", *[b"1\n"] * 50, b""]


def test_no_heartbeat_where_the_format_has_none() -> None:
    """Text may be idle for long, and what is written meanwhile is nothing at all."""
    assert b"".join(pumped(Watched(None, None, *some("a"), None), heartbeat_s=0.0)) == b"a"


# Failures

SECRET = "password=hunter2"


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (RuntimeError(SECRET), "Stream failed"),
        (OSError(SECRET), "Stream failed"),
        (StreamFailed("The model stopped."), "The model stopped."),
        (UnknownOffset("7 is no offset of this stream."), "Stream failed"),
        (BadRequest("Byte 7 of the body is not UTF-8."), "Byte 7 of the body is not UTF-8."),
    ],
)
def test_a_failure_is_told_in_band(failure: Exception, sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the format can say it: our own sentences as they are, and nothing of anybody else's; the log has it all."""
    source = Watched(*some("1"), failure)
    assert list(pumped(source, NDJSON()))[1:] == [b"1\n", b'{"error":"%b"}\n' % sentence.encode()]
    assert source.closed == 1
    (record,) = caplog.records
    assert str(failure) in record.getMessage()
    expected = isinstance(failure, StreamFailed | Problem | StoreError)
    assert (record.levelname, bool(record.exc_info)) == (("WARNING", False) if expected else ("ERROR", True))


def test_a_path_cannot_write_lines_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A line end in a path (%0A) is shown as it was sent (CWE-117)."""
    caplog.set_level(logging.INFO, "perennial")
    writes = pump(iter(some("a")), Text(), ENVIRON | {"PATH_INFO": "/a\nERROR forged\xc3\xa9"}, PLENTY_S)
    next(writes)
    writes.close()  # type: ignore[attr-defined]
    assert caplog.messages == ["GET /a%0AERROR%20forged%C3%A9: the client left"]


@pytest.mark.parametrize("framing", [Text(), CSV(["a"])])
def test_a_failure_is_a_cut_where_it_cannot_be_told(framing: Any) -> None:
    """An OSError with EPIPE makes gunicorn close the connection without the final chunk, and in silence."""
    source = Watched(*some("1"), RuntimeError())
    writes = pumped(source, framing)
    assert [next(writes), next(writes)] == [framing.open(), framing.encode(Event(b"1"))]
    with pytest.raises(BrokenPipeError) as raised:
        next(writes)
    assert raised.value.errno == 32
    assert source.closed == 1


def test_a_download_is_told_and_cut() -> None:
    """With ``cut_after_error`` both: the line for those who read it, the cut for those who look at the end."""
    writes = pumped(Watched(RuntimeError()), NDJSON(), cut_after_error=True)
    assert [next(writes), next(writes)] == [b"", b'{"error":"Stream failed"}\n']
    with pytest.raises(BrokenPipeError):
        next(writes)


@pytest.mark.parametrize("framing", [Text(), NDJSON(), SSE()])
def test_what_was_made_before_a_failure_arrives(framing: Any) -> None:
    """Items that waited to be written with others are written before the failure is told, or the connection cut."""
    source = Watched(*some("a", "b", "c"), RuntimeError())
    written = []
    try:
        for each in pumped(source, framing):
            written.append(each)  # noqa: PERF402  # what came before the cut is to be seen
    except BrokenPipeError:
        assert framing.error is None
    made = b"".join(framing.encode(event) for event in some("a", "b", "c"))
    assert b"".join(written).startswith(framing.open() + made)


def test_an_event_that_cannot_be_written_is_a_failure() -> None:
    """A type with a line end fails the stream in-band, after what came before it."""
    stream = b"".join(pumped(Watched(*some("a", "b"), Event(b"", "two\nlines")), SSE()))
    assert [event.type for event in EventStream().feed(stream)] == ["message", "message", "stream-error"]


# Ends


def test_the_source_ends() -> None:
    """The end is clean: the format's close, and the source closed once."""
    source = Watched(*some("a"))
    assert list(pumped(source)) == [b"", b"a", b""]
    assert source.closed == 1


@pytest.mark.parametrize("after", [1, 2, 3])
def test_the_server_closes_the_response(after: int) -> None:
    """When a write failed, gunicorn closes the response: the source is closed with it, wherever that happens."""
    source = Watched(*some("a"), None, *some("b", "c"))
    writes = pumped(source)
    for _ in range(after):
        next(writes)
    writes.close()  # type: ignore[attr-defined]
    assert source.closed == 1


def test_the_worker_drains() -> None:
    """A stream that its client continues by itself ends cleanly, with a retry and the cursor of what was written."""
    source = Watched(Event(b"a", id="1"), Event(b"b", id="2"), Event(b"c", id="3"), wire.Interrupted())
    client = EventStream()
    events = client.feed(b"".join(pumped(source, SSE("0", retry_ms=5000, drain_ms=(7, 7)))))
    # With the cursor 3 and without the events 2 and 3, a client would never get them.
    assert [event.id for event in events] == ["1", "2", "3"]
    assert (client.last_event_id, client.retry_ms) == ("3", 7)
    assert source.closed == 1


@pytest.mark.parametrize("framing", [Text(), NDJSON(), CSV(["a"])])
def test_an_interrupted_download_is_cut(framing: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where an early end would pass for the whole there is none; a client that leaves is no error."""
    caplog.set_level(logging.INFO, "perennial")
    source = Watched(*some("a"), wire.Interrupted())
    writes = pumped(source, framing)
    next(writes), next(writes)
    with pytest.raises(BrokenPipeError):
        list(writes)
    assert source.closed == 1
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [("INFO", "GET /a: the client left")]


def test_a_source_that_cannot_be_closed_is_fine() -> None:
    """A plain iterator is a source."""
    assert list(pumped(iter(some("a")))) == [b"", b"a", b""]


def test_a_close_that_fails_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged; what was written is whole."""

    class Bad(Watched):
        def close(self) -> None:
            raise RuntimeError("while closing")

    assert list(pumped(Bad(*some("a")))) == [b"", b"a", b""]
    assert "did not close" in caplog.text


# respond


def make_app(source: Source, settings: Settings | None = None, **options: Any) -> Flask:
    app = Flask(__name__)
    app.extensions["settings"] = settings or Settings()
    app.extensions["streams"] = Shares("streams", 0, 0)
    app.add_url_rule("/", view_func=lambda: respond(source, options.pop("framing", Text()), **options))
    app.register_error_handler(Problem, lambda problem: Response(problem.detail, problem.status))
    return app


def test_a_response_says_what_it_is() -> None:
    """The content type of the framing, nothing that stores or buffers it, and no header that only a server may send."""
    app = make_app(Watched(*some("1")), framing=NDJSON(), headers={"X-More": "yes"})
    response = app.test_client().get("/")
    assert response.data == b"1\n"
    assert dict(response.headers) == {
        "Content-Type": "application/x-ndjson",
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
        "X-Content-Type-Options": "nosniff",
        "X-More": "yes",
    }


def test_head_does_no_work() -> None:
    """Same headers, no body; the source is closed and was never asked."""
    source = Watched(*some("1"))
    app = make_app(source)
    head = app.test_client().head("/")
    head.close()
    assert (head.status_code, head.data, source.asked, source.closed) == (200, b"", 0, 1)
    assert head.headers == make_app(Watched()).test_client().get("/").headers


def test_a_response_that_is_never_read_closes_its_source() -> None:
    """A client may be gone before the first byte: then nobody starts the pump."""
    source = Watched(*some("1"))
    with make_app(source).test_request_context("/") as context:
        context.app.full_dispatch_request().close()
    assert (source.asked, source.closed) == (0, 1)


def test_a_generator_that_never_began_is_closed() -> None:
    """Its ``finally`` has nothing to do then, and nothing is left to be collected."""
    source = (event for event in some("1"))
    with make_app(source).test_request_context("/") as context:
        context.app.full_dispatch_request().close()
    assert next(source, "closed") == "closed"


def test_beyond_the_bound_there_is_a_503() -> None:
    """With MAX_STREAMS open a further one is refused, with a time to come back, and its source closed."""
    source = Watched(*some("1"))
    app = make_app(source, Settings(MAX_STREAMS=1))
    link = wire.Link(ENVIRON)
    try:
        with app.test_request_context("/"), pytest.raises(Unavailable) as raised:
            respond(source, Text())
        assert raised.value.retry_after_s
        assert source.closed == 1
    finally:
        link.close()
    assert app.test_client().get("/").status_code == 200


# Begun


def begun(source: Source, within_s: float = PLENTY_S) -> Begun:
    with Flask(__name__).test_request_context("/"):
        return Begun(source, within_s)


def test_begun_refuses_before_the_response() -> None:
    """What a source raises before its first item is still a status."""
    with pytest.raises(BadRequest):
        begun(Watched(None, None, BadRequest("No.")))


@pytest.mark.parametrize("items", [some("a", "b"), [], [*some("a"), None, *some("b")]])
def test_begun_gives_every_item_once(items: list[Event | None]) -> None:
    """The first item is the first, and the end is the end, also of an empty source."""
    assert list(begun(iter(items))) == items


def test_begun_waits_no_longer_than_it_is_told() -> None:
    """A source that has nothing yet is left at that, and loses nothing; one with an event is asked no further."""
    source = Watched(None, None, None, *some("a"))
    assert list(begun(source, 0.0)) == [None, None, None, *some("a")]
    source = Watched(None, None, *some("a", "b"))
    first = begun(source)
    assert source.asked == 3
    assert list(first) == some("a", "b")


def test_begun_closes_its_source() -> None:
    """Read or not."""
    source = Watched(*some("a"))
    begun(source).close()
    assert source.closed == 1


def test_begun_whose_client_left_closes_its_source() -> None:
    """There is nobody to answer; no source goes on for that."""
    source = Watched(None, wire.Interrupted())
    with pytest.raises(ClientLeft):
        begun(source)
    assert source.closed == 1


def test_what_has_come_before_the_answer_leaves_with_its_headers() -> None:
    """In one write; where the first word has not come, the headers leave at once, and so do those of empty frames."""

    def writes(*items: Event | None, within_s: float = PLENTY_S) -> list[bytes]:
        with Flask(__name__).test_request_context("/"):
            source = Begun(iter([*items, None, *some("z")]), within_s, frozenset(["start"]))
        return [each for each in pump(source, Text(), ENVIRON, 60.0) if isinstance(each, bytes)]

    start = Event(b"s", "start")
    assert writes(start, *some("a", "b")) == [b"sab", b"z"]
    assert writes(*some("a", "b")) == [b"a", b"b", b"z"]
    assert writes(start, None, *some("a"), within_s=0.0) == [b"", b"s", b"a", b"z"]
    assert writes(Event(b"", "start"), *some("")) == [b"", b"z"]

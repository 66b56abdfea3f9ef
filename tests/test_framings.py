"""What stands on the wire, held to the HTML standard (9.2), RFC 4180 and the NDJSON specification."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming import events as events_module
from streaming.events import Event, json_event, pause
from streaming.framings import NDJSON, SSE, Text
from streaming.table_framings import CSV
from tests.harness import EventStream, ServerSentEvent, parse_events

# What browsers may be given: everything but surrogates, and no NUL in an id (9.2.6: such an id is ignored).
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ONE_LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


def lf(text: str) -> str:
    """Line ends as a client of the standard sees them: CRLF and CR are one LF each."""
    return re.sub("\r\n|\r", "\n", text)


# Server-sent events

# The streams of the standard's own section 9.2.6 and the introduction (9.2.1), and the events it says come of them.
STANDARD = [
    (
        b"data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        [
            ServerSentEvent("This is the first message."),
            ServerSentEvent("This is the second message, it\nhas two lines."),
            ServerSentEvent("This is the third message."),
        ],
    ),
    (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [ServerSentEvent("73857293", "add"), ServerSentEvent("2153", "remove"), ServerSentEvent("113411", "add")],
    ),
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerSentEvent("YHOO\n+2\n10")]),
]


@pytest.mark.parametrize(("stream", "expected"), STANDARD)
def test_sse_writes_the_standards_examples(stream: bytes, expected: list[ServerSentEvent]) -> None:
    """The standard's example streams are what our encoder makes of their events, byte for byte."""
    assert parse_events(stream) == expected
    framing = SSE()
    types = ["" if event.type == "message" else event.type for event in expected]
    written = b"".join(framing.encode(Event(e.data.encode(), type)) for e, type in zip(expected, types, strict=True))
    assert written == stream


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event(b""), b"data: \n\n"),
        (Event(b"\n"), b"data: \ndata: \n\n"),
        (Event(b" x"), b"data:  x\n\n"),
        (Event(b"a\r\nb\rc\nd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Event(b"a\n"), b"data: a\ndata: \n\n"),
        (Event(b"a\rid: evil\n\nevent: evil"), b"data: a\ndata: id: evil\ndata: \ndata: event: evil\n\n"),
        (Event("a\u2028b\u0085c\x0bd".encode()), "data: a\u2028b\u0085c\x0bd\n\n".encode()),
        (Event(b"x", "t", "7"), b"id: 7\nevent: t\ndata: x\n\n"),
        (Event(b"x", "t"), b"event: t\ndata: x\n\n"),
    ],
)
def test_sse_writes_an_event(event: Event, expected: bytes) -> None:
    """One field a line; CR, LF and CRLF end lines and nothing else does; empty data is still an event (9.2.6)."""
    assert SSE().encode(event) == expected


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\n", "x\r\ndata: evil"])
def test_sse_refuses_what_would_inject_fields(text: str) -> None:
    """A line end in a type or an id would begin another field: no such event leaves."""
    with pytest.raises(ValueError, match="cannot hold"):
        SSE().encode(Event(b"", type=text))
    with pytest.raises(ValueError, match="cannot hold"):
        SSE().encode(Event(b"", id=text))
    with pytest.raises(ValueError, match="cannot hold"):
        SSE(text)


def test_sse_refuses_an_id_that_browsers_ignore() -> None:
    """The standard ignores an id with NUL; who reconnected would go on from an older one."""
    with pytest.raises(ValueError, match="NUL"):
        SSE().encode(Event(b"", id="a\0"))


def test_sse_tells_its_cursor_before_the_first_event() -> None:
    """The opening sets the reconnection time and the Last-Event-ID, and fires no event."""
    client = EventStream()
    assert client.feed(SSE("17", retry_ms=250).open()) == []
    assert (client.last_event_id, client.retry_ms) == ("17", 250)


def test_sse_without_a_cursor_clears_none() -> None:
    """An empty id would clear the client's cursor (9.2.6); without one, opening and heartbeats say nothing of it."""
    framing, client = SSE(), EventStream()
    client.feed(b"id: before\n\n")
    assert client.feed(framing.open() + framing.idle() + framing.encode(Event(b"x"))) == [
        ServerSentEvent("x", id="before")
    ]


def test_sse_heartbeat_repeats_the_cursor() -> None:
    """A heartbeat fires nothing, changes nothing and completes no event that is not ours."""
    framing, client = SSE("1"), EventStream()
    client.feed(framing.open())
    assert client.feed(framing.idle()) == []
    client.feed(framing.encode(Event(b"x", id="2")) + framing.encode(Event(b"y")))
    assert client.feed(framing.idle()) == []
    assert client.last_event_id == "2"


def test_sse_heartbeat_is_never_empty() -> None:
    """Also a stream without ids has one: a comment, which the standard keeps for that (9.2.7)."""
    assert SSE().idle() == b":\n\n"


def test_sse_error_is_an_event_of_its_own_name() -> None:
    """EventSource fires ``error`` itself for a lost connection: ours is called otherwise, and keeps the cursor."""
    framing = SSE()
    stream = framing.encode(Event(b"x", id="5")) + framing.error('a "sentence"\nof two')
    event = parse_events(stream)[1]
    assert (event.type, event.id) == ("stream-error", "5")
    assert json.loads(event.data) == {"error": 'a "sentence"\nof two'}


def test_sse_drain_sets_a_jittered_retry_and_the_cursor() -> None:
    """Clients of a restarted server come back at different times, each where it was."""
    drawn = set()
    for _ in range(200):
        framing, client = SSE(drain_ms=(100, 1000)), EventStream()
        client.feed(framing.encode(Event(b"x", id="9")))
        assert client.feed(framing.drain()) == []
        assert client.last_event_id == "9"
        assert client.retry_ms is not None
        assert 100 <= client.retry_ms <= 1000
        drawn.add(client.retry_ms)
    assert len(drawn) > 50


@given(st.lists(st.tuples(ANY_TEXT, ONE_LINE, ONE_LINE), max_size=8), st.data())
@example([("\r", "", ""), ("\n\r\n", " ", " "), (":", ":", ":"), ("\ufeff", "\ufeff", "\ufeff")], None)
def test_sse_survives_any_cut(items: list[tuple[str, str, str]], data: Any) -> None:
    """A parser written from the standard gets every event back: whole, byte by byte, and cut anywhere."""
    framing, last, expected = SSE(), "", []
    stream = framing.open()
    for text, type, id in items:
        stream += framing.encode(Event(text.encode(), type, id)) + framing.idle()
        last = id or last
        expected.append(ServerSentEvent(lf(text), type or "message", last))
    assert parse_events(stream) == expected
    client = EventStream()
    assert [event for n in range(len(stream)) for event in client.feed(stream[n : n + 1])] == expected
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
        client = EventStream()
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert [event for piece in pieces for event in client.feed(piece)] == expected


@given(st.binary(max_size=200))
def test_sse_is_not_led_astray_by_any_bytes(data: bytes) -> None:
    """Whatever an event holds, UTF-8 or not, it is one event, and the one after it is what was written."""
    stream = SSE().encode(Event(data, "a", "1")) + SSE().encode(Event(b"after", "b", "2"))
    found = parse_events(stream)
    assert [(event.type, event.id) for event in found] == [("a", "1"), ("b", "2")]
    assert found[0].data == lf(data.decode("utf-8", "replace"))
    assert found[1].data == "after"


# NDJSON (github.com/ndjson/ndjson-spec): each text is followed by LF, and holds none itself.


def test_ndjson_puts_a_line_feed_after_each() -> None:
    """NDJSON: each JSON text MUST be followed by the newline character 0x0A."""
    framing = NDJSON()
    stream = framing.open() + framing.encode(json_event({"a": 1})) + framing.encode(json_event([])) + framing.close()
    assert stream == b'{"a":1}\n[]\n'


def test_ndjson_heartbeat_and_error_are_lines() -> None:
    """An empty line MAY be ignored by a reader; a failure is a line that no row looks like."""
    assert NDJSON().idle() == b"\n"
    assert NDJSON().error("Stream failed") == b'{"error":"Stream failed"}\n'


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | ANY_TEXT, st.lists, max_leaves=5))
def test_a_json_event_is_one_line(value: object) -> None:
    """Whatever the value, its JSON holds no line end, and any reader gives it back."""
    line = NDJSON().encode(json_event(value))
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert json.loads(line) == value


# CSV


def test_csv_header_and_lines_end_in_crlf() -> None:
    """RFC 4180, section 2, rules 1 to 3: CRLF, also after the last line; a header line of the same format."""
    framing = CSV(["aaa", "bbb"])
    assert framing.open() + framing.encode(Event(b"zzz,yyy")) + framing.close() == b"aaa,bbb\r\nzzz,yyy\r\n"
    assert framing.content_type == "text/csv; charset=utf-8; header=present"


@pytest.mark.parametrize(
    ("name", "field"),
    [("b b", "b b"), ("a,b", '"a,b"'), ('b"bb', '"b""bb"'), ("b\r\nbb", '"b\r\nbb"'), ("a\rb", '"a\rb"'), ("é", "é")],
)
def test_csv_quotes_a_column_that_needs_it(name: str, field: str) -> None:
    """RFC 4180, section 2, rules 5 to 7."""
    assert CSV(["x", name]).open() == f"x,{field}\r\n".encode()


@given(st.lists(ANY_TEXT.filter(lambda text: "\0" not in text), min_size=2, max_size=5))
def test_csv_header_is_read_back(columns: list[str]) -> None:
    """The standard library's reader finds the very names in the header."""
    header = CSV(columns).open().decode()
    assert next(csv.reader(io.StringIO(header, newline=""))) == columns


@pytest.mark.parametrize("framing", [Text(), CSV(["a"]), Text("application/gzip")])
def test_formats_without_words_for_it_say_nothing(framing: Text | CSV) -> None:
    """Text and CSV have no heartbeat, no in-band error and no end: a reader would take each for content."""
    assert (framing.idle(), framing.close(), framing.error, framing.drain) == (b"", b"", None, None)


def test_text_is_the_data() -> None:
    """Nothing is put between, before or after."""
    framing = Text()
    assert framing.open() + framing.encode(Event(b"a\n")) + framing.encode(Event(b"b")) + framing.close() == b"a\nb"


def test_what_is_ready_is_the_data() -> None:
    """Of any content type; and where that is NDJSON, a failure has its line."""
    framing = Text("application/x-ndjson", NDJSON().error)
    assert framing.content_type == "application/x-ndjson"
    assert framing.open() + framing.encode(Event(b'{"a":1}\n')) + framing.close() == b'{"a":1}\n'
    assert framing.error is not None
    assert framing.error("Why.") == b'{"error":"Why."}\n'
    assert framing.idle() == b"", "it could stand within a line"


# Time


def test_pause_yields_before_it_waits_and_at_every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """None comes first, so that what was made leaves; then one a tick; and the time asked for passes."""
    now = [100.0]
    naps = []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            naps.append(seconds)
            now[0] += seconds

    monkeypatch.setattr(events_module, "time", Clock)
    waiting = pause(1.25)
    assert next(waiting) is None
    assert naps == []
    assert list(waiting) == [None] * 3
    assert naps == [0.5, 0.5, 0.25]
    assert list(pause(0)) == [None]

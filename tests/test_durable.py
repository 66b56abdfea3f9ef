"""The Durable Streams protocol without a server: what its headers say, and how its answers are written.

What is expected is written from the protocol's text, whose sections are named, or with another decoder than ours.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from stores.base import BEGINNING, START, Batch, Config, Producer, State
from stores.errors import UnknownOffset
from streaming import durable, durable_answers
from streaming.durable import Place
from streaming.durable_framings import DurableSSE, Shown, body
from streaming.errors import BadRequest, Forbidden, NotFound, Problem, TooLarge
from streaming.events import Event
from tests.clients import ServerSentEvent, parse_events

FIRST, SECOND = "000000000001-abcdef", "000000000002-abcdef"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


def asked(**headers: str) -> Headers:
    """Headers, with ``_`` for ``-``."""
    return Headers({name.replace("_", "-"): value for name, value in headers.items()})


def batch(*data: bytes, tail: str = "", closed: bool = False, missed: int = 0) -> Batch:
    events = [Event(each, id=f"{number:012d}-abcdef") for number, each in enumerate(data, 1)]
    return Batch(events, missed, tail or (events[-1].id if events else START), closed, len(events))


@pytest.mark.parametrize("path", ["a", "a/b", "日本/語", "a b", ".hidden", "a..b", "x" * 512, "__dsx", "a/__ds"])
def test_a_path_is_any_utf8(path: str) -> None:
    """1 to 512 bytes, whose segments are names."""
    assert durable.stream_path(path.encode()) == path


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", BadRequest),
        (b"x" * 513, BadRequest),
        (b"a//b", BadRequest),
        (b"/a", BadRequest),
        (b"a/", BadRequest),
        (b"./a", BadRequest),
        (b"a/..", BadRequest),
        (b"\xff", BadRequest),
        (b"a\0", BadRequest),
        (b"a\r\nb", BadRequest),
        (b"__ds", NotFound),
        (b"__ds/subscriptions/1", NotFound),
        (b"leases/1", NotFound),
        (b"held/1/a", NotFound),
    ],
)
def test_a_path_that_cannot_be_is_refused(raw: bytes, problem: type[Problem]) -> None:
    """What could be taken for another path, what is reserved (6), and what nobody may touch."""
    with pytest.raises(problem):
        durable.stream_path(raw)


@pytest.mark.parametrize("path", ["notifications/default", "uploads/1", "runs/1"])
def test_the_servers_own_streams_are_only_read(path: str) -> None:
    """Who could write there could forge a notification."""
    with pytest.raises(Forbidden):
        durable.of_clients(path)


@pytest.mark.parametrize(
    ("value", "closed"), [("true", True), ("TRUE", True), ("false", False), ("1", False), ("yes", False), ("", False)]
)
def test_stream_closed_is_true_or_nothing(value: str, closed: bool) -> None:
    """4.1: only "true", in any case, closes; every other value is as if the header were absent."""
    assert durable.closing(asked(Stream_Closed=value)) is closed


def test_a_stream_is_made_of_bytes_unless_said_otherwise() -> None:
    """5.1: without a Content-Type the server may take application/octet-stream."""
    assert durable.creation(Headers()) == Config("application/octet-stream")


@pytest.mark.parametrize(
    "value", ["+3600", "03600", "3600.0", "3.6e3", "-1", "", " 1", "abc", "1_000", "٣", str(2**53)]
)
def test_a_ttl_is_a_plain_whole_number(value: str) -> None:
    """5.1: no leading zeros, plus signs, decimal points or scientific notation."""
    with pytest.raises(BadRequest, match="Stream-TTL"):
        durable.creation(asked(Stream_TTL=value))


@pytest.mark.parametrize(
    "value",
    ["2026-11-23T12:00:00Z", "2026-11-23t12:00:00.000z", "2026-11-23T14:00:00+02:00", "2026-11-23T06:30:00-05:30"],
)
def test_an_expiry_is_a_time_of_rfc3339(value: str) -> None:
    """RFC 3339, 5.6: T and Z in either case, a fraction or none, an offset in hours and minutes."""
    assert durable.creation(asked(Stream_Expires_At=value)).expires_at == NOON


@pytest.mark.parametrize(
    "value",
    [
        "",
        "not-a-timestamp",
        "2026-11-23",
        "2026-11-23T12:00:00",
        "2026-11-23 12:00:00Z",
        "2026-13-01T00:00:00Z",
        "20261123T120000Z",
    ],
)
def test_an_expiry_that_is_none_is_refused(value: str) -> None:
    """Also what ISO 8601 allows and RFC 3339 does not."""
    with pytest.raises(BadRequest, match="Stream-Expires-At"):
        durable.creation(asked(Stream_Expires_At=value))


def test_two_lifetimes_are_refused() -> None:
    """5.1: a request with both should be rejected, and is."""
    with pytest.raises(BadRequest):
        durable.creation(asked(Stream_TTL="1", Stream_Expires_At="2026-11-23T12:00:00Z"))


@pytest.mark.parametrize("value", ["text", "text/", "/plain", "text plain", "a/b\x7f", "é/b", "a/" + "b" * 300])
def test_a_content_type_is_a_media_type(value: str) -> None:
    """What is handed to every reader as a header has the form of one (RFC 9110, 8.3.1)."""
    with pytest.raises(BadRequest):
        durable.content_type(Headers({"Content-Type": value}))


@pytest.mark.parametrize(
    ("offset", "kept"), [(None, START), ("now", START), (durable.ZERO, BEGINNING), ("-1", BEGINNING), (FIRST, FIRST)]
)
def test_a_fork_says_where_it_leaves_its_source(offset: str | None, kept: str) -> None:
    """4.2: without an offset at the tail; the beginning is a place as any other."""
    headers = asked(Stream_Forked_From="/v1/stream/a%20b/%E6%97%A5", Stream_Fork_Sub_Offset="2")
    if offset is not None:
        headers["Stream-Fork-Offset"] = offset
    assert durable.creation(headers) == Config("", forked_from="a b/日", fork_offset=kept, fork_sub_offset=2)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (asked(Stream_Forked_From="/elsewhere/a"), NotFound),
        (asked(Stream_Forked_From="a"), NotFound),
        (asked(Stream_Forked_From="/v1/stream/a/../b"), BadRequest),
        (asked(Stream_Forked_From="/v1/stream/%ff"), BadRequest),
        (asked(Stream_Forked_From="/v1/stream/uploads/1"), Forbidden),
        (asked(Stream_Fork_Offset=FIRST), BadRequest),
        (asked(Stream_Fork_Sub_Offset="0"), BadRequest),
        (asked(Stream_Forked_From="/v1/stream/a", Stream_Fork_Sub_Offset="-1"), BadRequest),
    ],
)
def test_a_fork_that_cannot_be_is_refused(headers: Headers, problem: type[Problem]) -> None:
    """4.2 and 5.1: the source is a path of this server, and the offsets need one."""
    with pytest.raises(problem):
        durable.creation(headers)


def test_a_producer_is_three_headers() -> None:
    """5.2.1: all or none."""
    assert durable.producer(Headers()) is None
    whole = asked(Producer_Id="p", Producer_Epoch="0", Producer_Seq=str(2**53 - 1))
    assert durable.producer(whole) == Producer("p", 0, 2**53 - 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"Producer-Id": ""},
        {"Producer-Id": None},
        {"Producer-Epoch": None},
        {"Producer-Seq": None},
        {"Producer-Epoch": "1.5"},
        {"Producer-Seq": "-1"},
        {"Producer-Seq": "abc"},
        {"Producer-Seq": str(2**53)},
    ],
)
def test_a_producer_that_is_not_whole_is_refused(changes: dict[str, str | None]) -> None:
    """5.2.1: an empty id, a missing header, and numbers past 2^53-1 are a 400."""
    headers = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"} | changes
    with pytest.raises(BadRequest):
        durable.producer(Headers({name: value for name, value in headers.items() if value is not None}))


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        (b'{"event": "created"}', [b'{"event": "created"}']),
        (b'[{"event": "a"}, {"event": "b"}]', [b'{"event": "a"}', b'{"event": "b"}']),
        (b"[[1,2], [3,4]]", [b"[1,2]", b"[3,4]"]),
        (b"[[[1,2,3]]]", [b"[[1,2,3]]"]),
        (b' \r\n\t[ 1e400 , "\\u00e9" , null ]\n', [b"1e400", b'"\\u00e9"', b"null"]),
        (b"[]", []),
        (b'"x"', [b'"x"']),
    ],
)
def test_an_array_is_taken_apart_once(sent: bytes, messages: list[bytes]) -> None:
    """9.1.2, its own examples first; and every message stays byte for byte as it was sent."""
    assert [event.data for event in durable.events(sent, "Application/JSON; charset=utf-8")] == messages


@pytest.mark.parametrize(
    "sent",
    [
        b"{ invalid json }",
        b"[1,]",
        b"",
        b" ",
        b"NaN",
        b"[01]",
        b'["\xff"]',
        b'"\n"',
        b"1 2",
        b"\xef\xbb\xbf[]",
        b"[" * 99999,
    ],
)
def test_what_is_no_json_is_refused(sent: bytes) -> None:
    """9.1.4, RFC 8259: also what a lenient reader lets pass, as bytes that are no UTF-8."""
    with pytest.raises(BadRequest):
        durable.appending(sent, "application/json", close=False)


def test_an_empty_array_appends_nothing_and_creates() -> None:
    """9.1.3: no append, but the body of an empty stream."""
    assert durable.events(b"[]", "application/json") == []
    with pytest.raises(BadRequest):
        durable.appending(b"[]", "application/json", close=True)


def test_an_append_has_a_body_or_closes() -> None:
    """5.2: only Stream-Closed: true comes without one; what has one has its type."""
    assert durable.appending(b"", "", close=True) == []
    with pytest.raises(BadRequest):
        durable.appending(b"", "text/plain", close=False)
    with pytest.raises(BadRequest):
        durable.appending(b"x", "", close=False)


def test_messages_are_bounded() -> None:
    """A small body of very many messages would stand in everybody's way."""
    most = b"[" + b",".join([b"1"] * durable.MESSAGES) + b"]"
    assert len(durable.events(most, "application/json")) == durable.MESSAGES
    with pytest.raises(TooLarge):
        durable.events(most[:-1] + b",1]", "application/json")


@given(st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_json_comes_back_as_it_went(values: list[object]) -> None:
    """9.1.5: the array that is read holds the messages that were sent."""
    events = durable.events(json.dumps(values, ensure_ascii=False).encode(), "application/json")
    assert json.loads(body(events, "application/json")) == values


@pytest.mark.parametrize(
    ("offset", "place"),
    [
        (None, Place(whole=True)),
        ("-1", Place(whole=True)),
        ("now", Place(now=True)),
        (durable.ZERO, Place(START)),
        (FIRST, Place(FIRST)),
    ],
)
def test_an_offset_is_a_place(offset: str | None, place: Place) -> None:
    """8: the two sentinels, and what the server gave out."""
    assert durable.place(offset) == place


@pytest.mark.parametrize("offset", ["", "0,1", "0 1", "a/b", "a?b", "a=b", "a&b", "é", "x" * 129, "a\n"])
def test_what_is_no_offset_is_refused(offset: str) -> None:
    """8: an offset is a single token without the characters of a query."""
    with pytest.raises(BadRequest, match="offset"):
        durable.place(offset)


def test_the_zero_offset_sorts_before_all_others() -> None:
    """8: offsets sort as text, and none is one of the sentinels."""
    assert durable_answers.named(START) < durable_answers.named(FIRST) < durable_answers.named(SECOND)
    assert durable_answers.named(START) not in ("-1", "now")


@pytest.mark.parametrize(
    ("time", "cursor"),
    [
        (datetime(2024, 10, 9, tzinfo=UTC), "0"),
        (datetime(2024, 10, 9, 0, 0, 19, tzinfo=UTC), "0"),
        (datetime(2024, 10, 9, 0, 0, 20, tzinfo=UTC), "1"),
        (datetime(2024, 10, 10, tzinfo=UTC), "4320"),
    ],
)
def test_a_cursor_counts_intervals(time: datetime, cursor: str) -> None:
    """10.1: 20 seconds each, since 2024-10-09."""
    assert durable_answers.cursor(time.timestamp()) == cursor


@given(st.integers(0, 10**15 - 1))
def test_a_cursor_never_goes_back(asked: int) -> None:
    """10.1: one that is not behind the time is passed by 1 to 3600 seconds of intervals."""
    now = int(durable_answers.cursor(NOON))
    cursor = int(durable_answers.cursor(NOON, str(asked)))
    assert cursor == now if asked < now else asked < cursor <= asked + 180


@pytest.mark.parametrize("asked", ["", "abc", "-1", "9" * 400, "٣", "1.5"])
def test_a_cursor_that_is_none_is_passed_over(asked: str) -> None:
    """It is the client's own to echo; nothing hangs on it but the keys of caches."""
    assert durable_answers.cursor(NOON, asked) == durable_answers.cursor(NOON)


def test_an_etag_tells_closed_from_open() -> None:
    """10.1: it varies with the data and with the closure, or a 304 would hide the end."""
    tags = {
        durable_answers.etag(first, last, closed)
        for first in (START, FIRST)
        for last in (FIRST, SECOND)
        for closed in (0, 1)
    }
    assert len(tags) == 8
    assert all(tag[0] == tag[-1] == '"' and '"' not in tag[1:-1] for tag in tags)


@pytest.mark.parametrize(
    ("config", "settled", "expected"),
    [
        (Config(), True, "private, max-age=60, stale-while-revalidate=300"),
        (Config(), False, "private, no-cache"),
        (Config(ttl_s=5), True, "private, max-age=5"),
        (Config(ttl_s=0), True, "private, max-age=0"),
        (Config(expires_at=NOON + 30), True, "private, max-age=30"),
        (Config(expires_at=NOON - 1), True, "private, max-age=0"),
        (Config(ttl_s=3600), True, "private, max-age=60, stale-while-revalidate=300"),
    ],
)
def test_caches_keep_nothing_longer_than_it_lives(config: Config, settled: bool, expected: str) -> None:
    """10.1: a minute for what cannot change, for the one who asked, and no longer than the stream lives."""
    assert durable_answers.caching(config, settled, NOON) == expected


def test_the_end_is_said_only_where_it_is() -> None:
    """5.6: Stream-Up-To-Date and Stream-Closed belong to answers that reach the tail, and to no other."""
    part = durable_answers.caught_up(batch(b"a", tail=SECOND, closed=True), Place(), Config(), NOON)
    assert (part["Stream-Next-Offset"], "Stream-Up-To-Date" in part, "Stream-Closed" in part) == (FIRST, False, False)
    whole = durable_answers.caught_up(batch(b"a", b"b", closed=True), Place(), Config(), NOON)
    assert (whole["Stream-Next-Offset"], whole["Stream-Up-To-Date"], whole["Stream-Closed"]) == (SECOND, "true", "true")


def test_now_is_for_nobody_else() -> None:
    """8: no ETag, no-store, and the tail as the next offset."""
    headers = durable_answers.caught_up(batch(tail=SECOND), Place(now=True), Config(), NOON)
    assert headers == {"Stream-Next-Offset": SECOND, "Stream-Up-To-Date": "true", "Cache-Control": "no-store"}


def test_a_poll_without_news_says_where_to_go_on() -> None:
    """5.7: tail, up to date, and a cursor; and nobody keeps it."""
    headers = durable_answers.polled(batch(tail=FIRST), Place(FIRST), Config(), NOON, "")
    cursor = durable_answers.cursor(NOON)
    assert headers == {
        "Stream-Next-Offset": FIRST, "Stream-Up-To-Date": "true", "Stream-Cursor": cursor, "Cache-Control": "no-store"
    }  # fmt: skip


def test_a_stream_says_when_it_expires() -> None:
    """5.5: the window, or the time."""
    assert durable_answers.standing(State(Config(ttl_s=60), FIRST, False, 1)) == {
        "Stream-Next-Offset": FIRST,
        "Stream-TTL": "60",
    }
    at = durable_answers.standing(State(Config(expires_at=NOON + 0.5), START, True, 0))
    assert at["Stream-Expires-At"] == "2026-11-23T12:00:00.500Z"
    assert at["Stream-Closed"] == "true"


def frames(shown: Shown, *batches: Batch) -> list[ServerSentEvent]:
    """What a reader of the HTML standard makes of the batches."""
    framing = DurableSSE(shown.content_type)
    events = [event for each in batches for event in shown(each, START)]
    return parse_events(framing.open() + b"".join(map(framing.encode, events)) + framing.idle())


def test_every_data_event_is_followed_by_its_control() -> None:
    """5.8: one array for JSON, then where it ends; the control event's id is what an EventSource comes back with."""
    data, control = frames(Shown("application/json"), batch(b'{"k":"v"}', b'{"k":"w"}'))
    assert (data.type, json.loads(data.data)) == ("data", [{"k": "v"}, {"k": "w"}])
    assert (control.type, control.id) == ("control", SECOND)
    said = json.loads(control.data)
    assert said.pop("streamCursor").isdigit()
    assert said == {"streamNextOffset": SECOND, "upToDate": True}


def test_a_batch_before_the_tail_is_not_up_to_date() -> None:
    """5.8: upToDate is said when the client has all there is, and streamClosed when nothing more will come."""
    said = json.loads(frames(Shown("text/plain"), batch(b"a", tail=SECOND, closed=True))[1].data)
    assert said.keys() == {"streamNextOffset", "streamCursor"}
    end = json.loads(frames(Shown("text/plain"), batch(b"a", b"b", closed=True))[1].data)
    assert end == {"streamNextOffset": SECOND, "upToDate": True, "streamClosed": True}


@given(st.lists(st.binary(max_size=40), min_size=1))
def test_bytes_come_back_out_of_base64(data: list[bytes]) -> None:
    """5.8, RFC 4648: the standard alphabet, padded, each event by itself."""
    event = frames(Shown("application/octet-stream"), batch(*data))[0]
    assert base64.b64decode(event.data, validate=True) == b"".join(data)


@given(st.text(st.characters(blacklist_categories=["Cs"])), st.sampled_from(["text/plain", "text/html; charset=utf-8"]))
def test_text_comes_back_and_injects_nothing(text: str, content_type: str) -> None:
    """HTML standard, 9.2.6: whatever its lines are, text is one event; only the kind of line end is not carried."""
    first, *others = frames(Shown(content_type), batch(text.encode()))
    assert first.data == text.replace("\r\n", "\n").replace("\r", "\n")
    assert [(event.type, event.id) for event in others] == [("control", FIRST)]


@pytest.mark.parametrize(
    ("content_type", "header"),
    [
        ("text/plain", None),
        ("Application/JSON", None),
        ("application/octet-stream", "base64"),
        ("image/png", "base64"),
        ("application/ndjson", "base64"),
    ],
)
def test_binary_types_say_that_they_are_encoded(content_type: str, header: str | None) -> None:
    """5.8: all but text/* and application/json."""
    assert DurableSSE(content_type).headers.get("Stream-SSE-Data-Encoding") == header


def test_an_empty_batch_says_only_the_end() -> None:
    """A wake-up without news is no event; the end of a closed stream is one."""
    shown = Shown("text/plain")
    assert list(shown(batch(tail=FIRST), FIRST)) == []
    (end,) = shown(batch(tail=FIRST, closed=True), FIRST)
    (said,) = parse_events(end.data)
    assert json.loads(said.data) == {"streamNextOffset": FIRST, "upToDate": True, "streamClosed": True}


def test_a_reader_that_retention_overtook_is_not_moved() -> None:
    """Its response ends, and coming back it is told; who asked for whatever is kept is told how much is not."""
    with pytest.raises(UnknownOffset):
        Shown("text/plain")(batch(b"c", missed=2), FIRST)
    with pytest.raises(UnknownOffset):
        Shown("text/plain")(batch(b"c", missed=2), START)
    _, control = frames(Shown("text/plain", whole=True), batch(b"c", missed=2))
    assert json.loads(control.data)["missed"] == 2


def test_readers_alike_are_one_to_the_fan_out() -> None:
    """Two readers of one stream share what is made for one of them, but not one whose cursor is ahead of the time."""
    assert Shown("text/plain") == Shown("text/plain")
    assert hash(Shown("text/plain")) == hash(Shown("text/plain"))
    assert Shown("text/plain") != Shown("text/plain", past=10**9)

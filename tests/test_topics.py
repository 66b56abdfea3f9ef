"""Several topics, one reader, one cursor: the codec, the wake-ups and the sources, over the log in memory."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.base import START, Config
from stores.memory import MemoryLog
from streaming import positions, topics, watches
from streaming.event_lines import Lines, Poll, line
from streaming.events import Event, Source, json_event
from streaming.topics import Reader, begin_at, begin_since
from tests.harness import eventually

OFFSETS = st.one_of(st.just(""), st.from_regex("[0-9]{1,12}-[a-z0-9]{1,8}", fullmatch=True))
TOPICS = st.from_regex("[A-Za-z0-9._-]{1,64}", fullmatch=True)
JSON = Config("application/json")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryLog]:
    monkeypatch.setattr(topics, "TICK_S", 0.02)
    monkeypatch.setattr(watches, "TICK_S", 0.02)
    log = MemoryLog()
    yield log
    log.dispose()


def publish(log: MemoryLog, topic: str, *values: Any, **more: Any) -> str:
    events = [json_event(value, "notification") for value in values]
    return log.append(topics.path(topic), events, create=JSON, **more).offset


def reader(log: MemoryLog, *names: str, cursor: str = "") -> Reader:
    return Reader(log, begin_at(log, names, cursor), topics.frame)


def told(source: Source) -> list[tuple[str, Any]]:
    return [(event.type, json.loads(event.data)) for event in source if event is not None]


def take(source: Source, count: int) -> list[Event]:
    """The next ``count`` events."""
    seen: list[Event] = []
    while len(seen) < count:
        event = next(source)
        seen += [event] if event is not None else []
    return seen


# The codec


@given(st.dictionaries(TOPICS, OFFSETS, min_size=1, max_size=16))
def test_a_cursor_that_was_written_is_read(offsets: dict[str, str]) -> None:
    """Every topic's place comes back, whichever topic the event was from, complete or not."""
    for topic in ("", *offsets):
        assert positions.read(positions.write(offsets, topic), list(offsets)).offsets == offsets
    complete = positions.read(positions.write_complete(offsets), list(offsets))
    assert (complete.offsets, complete.complete, complete.unknown) == (offsets, True, [])


def test_a_cursor_is_the_offset_or_the_sorted_topics() -> None:
    """As docs/http.md writes them."""
    assert positions.write({"a": "000000000001-abcdef"}) == "000000000001-abcdef"
    assert positions.write({"b": "2-y", "a": "1-x"}, "b") == "a:1-x,b=2-y"
    assert positions.write({"b": "", "a": ""}) == "a:,b:"


@given(st.text(max_size=200), st.lists(TOPICS, min_size=1, max_size=3, unique=True))
def test_any_text_can_be_read_as_a_cursor(text: str, names: list[str]) -> None:
    """A cursor comes from a browser, a proxy, an attacker: reading one never fails."""
    cursor = positions.read(text, names)
    assert all(re.fullmatch("([0-9]+-[A-Za-z0-9_-]+)?", offset) for offset in cursor.offsets.values())


@pytest.mark.parametrize(
    ("text", "names", "offsets", "unknown"),
    [
        ("a:1-x,b:2-y", ["a"], {"a": "1-x", "b": "2-y"}, []),
        ("a:1-x,!,b:2-y", ["a", "b"], {"a": "1-x", "b": "2-y"}, ["!"]),
        ("a:1-x,a:2-y", ["a", "b"], {"a": "1-x"}, ["a:2-y"]),
        ("1-x", ["a", "b"], {}, ["1-x"]),
        ("garbage", ["a"], {}, ["garbage"]),
        ("1-x\n", ["a"], {}, ["1-x\n"]),
    ],
)
def test_what_is_no_part_of_a_cursor_is_said(
    text: str, names: list[str], offsets: dict[str, str], unknown: list[str]
) -> None:
    """What can be read is; what cannot comes back as it came."""
    cursor = positions.read(text, names)
    assert (cursor.offsets, cursor.unknown) == (offsets, unknown)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", 970.0),
        ("10m", 400.0),
        ("1.5m", 910.0),
        ("1h", -2600.0),
        ("1d", -85400.0),
        ("1970-01-01T00:00:05Z", 5.0),
        ("1970-01-01T01:00:05.5+01:00", 5.5),
        ("1970-01-02", 86400.0),
        ("1970-01-01 00:01", 60.0),
        ("000000000001-abcdef", None),
        ("10", None),
        ("10w", None),
        ("", None),
    ],
)
def test_a_moment_is_a_duration_or_a_date(text: str, expected: float | None) -> None:
    """A duration counts back from now, here 1000 s after the epoch; a date without an offset is UTC (ISO 8601)."""
    assert positions.moment(text, 1000.0) == expected


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_date_is_a_moment(date: datetime) -> None:
    """What Python writes as ISO 8601 is read as the same time."""
    assert positions.moment(date.isoformat(), 0.0) == date.timestamp()


@pytest.mark.parametrize("text", ["2026-13-01", "2026-11-23T25:00:00Z", "2026-11-23Tnoon"])
def test_a_date_that_is_none_is_said(text: str) -> None:
    """It is not taken for an id."""
    with pytest.raises(ValueError, match=r"\S"):
        positions.moment(text, 0.0)


# Lines


def test_a_line_is_an_object_with_its_cursor() -> None:
    """id, type and data, and the topic where there are several (docs/http.md)."""
    event = json_event({"n": 1}, "notification", "1-x")
    assert json.loads(line(event, "1-x").data) == {"id": "1-x", "type": "notification", "data": {"n": 1}}
    assert json.loads(line(event, "a=1-x,b:", "a").data)["topic"] == "a"


def test_a_poll_is_one_json_document_whenever_it_ends() -> None:
    """With heartbeats wherever they may come, at its end or by a drain, empty or not."""
    for count in range(3):
        for end in ("close", "drain"):
            poll = Poll("0-x")
            wire = poll.open() + poll.idle()
            for n in range(count):
                wire += poll.encode(line(json_event(n, "t"), f"{n + 1}-x")) + poll.idle()
            wire += getattr(poll, end)()
            document = json.loads(wire)
            assert [event["data"] for event in document["events"]] == list(range(count))
            assert document["cursor"] == f"{count}-x"


def test_lines_say_at_a_drain_from_where_to_go_on() -> None:
    """The last line is valid JSON, with the cursor after the last event and a time drawn for each reader."""
    drawn = set()
    for _ in range(200):
        lines = Lines("0-x")
        assert json.loads(lines.drain())["id"] == "0-x"
        lines.encode(line(json_event(1, "t"), "1-x"))
        lines.passed("2-x")
        told = json.loads(lines.drain())
        assert (told["id"], told["type"], list(told["data"])) == ("2-x", "stream-drain", ["retry_ms"])
        drawn.add(told["data"]["retry_ms"])
    assert 100 <= min(drawn) <= max(drawn) <= 1000
    assert len(drawn) > 50


# Sources


def test_stored_is_every_topic_and_the_sum(log: MemoryLog) -> None:
    """connected, what each topic holds, complete with the total of all."""
    publish(log, "a", 1, 2)
    publish(log, "b", 3)
    assert told(reader(log, "a", "b", "c").stored()) == [
        ("connected", {"status": "ok"}),
        ("notification", 1),
        ("notification", 2),
        ("notification", 3),
        ("complete", {"total": 3}),
    ]


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
def test_from_every_cursor_exactly_the_rest(log: MemoryLog, names: tuple[str, ...]) -> None:
    """Whatever was read before, its last id continues all topics: nothing lost, nothing doubled."""
    values = [f"{name}{n}" for name in names for n in range(3)]
    for value in values:
        publish(log, value[0], value)
    whole = [event for event in reader(log, *names).stored() if event is not None and event.type == "notification"]
    for done in range(len(whole)):
        rest = told(reader(log, *names, cursor=whole[done].id).stored())[1:-1]
        assert [json.loads(event.data) for event in whole[: done + 1]] + [value for _, value in rest] == values


def test_follow_interleaves_what_is_published(log: MemoryLog) -> None:
    """Each event in the moment it comes, with one cursor for all; the end when every topic is closed."""
    source = reader(log, "a", "b").follow()
    assert [event.type for event in take(source, 1)] == ["connected"]
    seen = []
    for n in range(6):
        offset = publish(log, "ab"[n % 2], n)
        (event,) = take(source, 1)
        assert f"{'ab'[n % 2]}={offset}" in event.id.split(",")
        seen.append(json.loads(event.data))
    assert seen == list(range(6))
    log.close(topics.path("a"))
    log.close(topics.path("b"))
    assert told(source) == []


def test_follow_beside_writers_loses_no_wake_up(log: MemoryLog) -> None:
    """Four writers, five readers: each reader sees each topic's events in order, each once."""
    names = ["a", "b", "c", "d"]
    seen: list[list[tuple[str, int]]] = [[] for _ in range(5)]

    def read(into: list[tuple[str, int]]) -> None:
        into += [tuple(value) for kind, value in told(reader(log, *names).follow()) if kind == "notification"]

    def write(name: str) -> None:
        for n in range(200):
            publish(log, name, [name, n])
        log.close(topics.path(name))

    threads = [threading.Thread(target=read, args=(each,)) for each in seen]
    threads += [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for each in seen:
        assert [[n for name, n in each if name == wanted] for wanted in names] == [list(range(200))] * 4


def test_watchers_end_with_their_readers(log: MemoryLog) -> None:
    """One for each stream, however many wait for it; none when nobody does."""
    sources = [reader(log, "a", "b").follow() for _ in range(3)]
    for source in sources:
        take(source, 1)
    assert len(watches._watchers) == 2
    for source in sources:
        source.close()
    eventually(lambda: not watches._watchers, 2.0)


def test_a_poll_answers_at_once_or_at_the_next_event(log: MemoryLog) -> None:
    """What there is ends it; when there is nothing it waits, and ends empty when its time is over."""
    cursor = publish(log, "a", 1)
    assert told(reader(log, "a").poll(60)) == [("notification", 1)]
    waiting = reader(log, "a", cursor=cursor).poll(60)
    assert next(waiting) is None
    publish(log, "a", 2)
    assert told(waiting) == [("notification", 2)]
    assert told(reader(log, "a", cursor=publish(log, "a", 3)).poll(0.05)) == []


def test_a_poll_is_bounded(log: MemoryLog) -> None:
    """At most a thousand events; its cursor continues with the rest."""
    publish(log, "a", *range(2500))
    seen, cursor = list[int](), ""
    while len(seen) < 2500:
        events = [event for event in reader(log, "a", cursor=cursor).poll(60) if event is not None]
        assert len(events) <= 1000
        seen += [json.loads(event.data) for event in events]
        cursor = events[-1].id
    assert seen == list(range(2500))


def test_since_is_what_was_published_from_then_on(log: MemoryLog) -> None:
    """Of every topic; a time to come is the end."""
    publish(log, "a", 1)
    publish(log, "b", 2)
    everything = Reader(log, begin_since(log, ["a", "b"], 0.0), topics.frame)
    assert [value for _, value in told(everything.stored())[1:-1]] == [1, 2]
    nothing = Reader(log, begin_since(log, ["a", "b"], 2.0**40), topics.frame)
    assert told(nothing.stored())[1:-1] == []


# A cursor that cannot be continued


def test_a_topic_without_a_place_is_told_and_goes_on_at_its_end(log: MemoryLog) -> None:
    """It is not replayed unasked; the others continue."""
    first = publish(log, "a", 1)
    publish(log, "a", 2)
    tail = publish(log, "b", 3)
    events = [event for event in reader(log, "a", "b", cursor=f"a:{first}").stored() if event is not None]
    assert told(iter(events))[1:-1] == [
        ("stream-reset", {"topic": "b", "asked": None, "from": tail, "missed": None}),
        ("notification", 2),
    ]
    # The cursor moves with the telling: who loses the connection before it is told again, and not after.
    assert (events[0].id, events[1].id) == ("", f"a:{first},b:{tail}")


def test_a_cursor_of_another_life_is_told(log: MemoryLog) -> None:
    """The stream was deleted and made anew: what came since cannot be counted."""
    asked = publish(log, "a", 1, 2)
    log.delete(topics.path("a"))
    tail = publish(log, "a", 3)
    reset = {"asked": asked, "from": tail, "missed": None}
    assert told(reader(log, "a", cursor=asked).stored())[1:-1] == [("stream-reset", reset)]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_an_expired_cursor_is_told_with_the_number(log: MemoryLog, names: tuple[str, ...]) -> None:
    """Retention took two: so many are missed, and it goes on with the first that is there."""
    kept = Config("application/json", keep_events=2)
    ids = [log.append(topics.path("a"), [json_event(n, "notification")], create=kept).offset for n in range(5)]
    cursor = positions.write(dict.fromkeys(names, "") | {"a": ids[0]})
    named = {"topic": "a"} if len(names) > 1 else {}
    assert told(reader(log, *names, cursor=cursor).stored())[1:-1] == [
        ("stream-reset", named | {"asked": ids[0], "from": ids[3], "missed": 2}),
        ("notification", 3),
        ("notification", 4),
    ]


def test_unknown_parts_are_told(log: MemoryLog) -> None:
    """Every topic has its place, and there was something else."""
    cursor = f"a:{publish(log, 'a', 1)},b:,%%"
    assert told(reader(log, "a", "b", cursor=cursor).stored())[1:-1] == [
        ("stream-reset", {"asked": "%%", "from": cursor.removesuffix(",%%"), "missed": None})
    ]


def test_lines_and_frames_tell_the_same(log: MemoryLog) -> None:
    """One source, two wires: types, data and cursors agree, of one topic and of several."""
    publish(log, "a", 1, 2)
    publish(log, "b", 3)
    for names in (["a"], ["a", "b"]):
        start = begin_at(log, names, START)
        frames = [event for event in Reader(log, start, topics.frame).stored() if event is not None]
        lines = [msgspec.json.decode(event.data) for event in Reader(log, start, line).stored() if event is not None]
        assert [(event["type"], event["data"]) for event in lines] == told(iter(frames))
        assert [event["id"] for event in lines[1:]] == [event.id for event in frames[1:]]

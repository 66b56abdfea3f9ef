"""What every log must do of forks, lifetimes and retention: a part of the suite in tests/contract_log.py.

Rules for a store:
- Fixture ``passes``: a function that lets so many seconds pass for the log; a store whose clock cannot be set may
  really wait (they are few), or skip.
- Forks are those of the Durable Streams protocol, 4.2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from stores.base import BEGINNING, START, Batch, Config, Log, Producer
from stores.errors import BadFork, NoStream, StreamExists, StreamGone, UnknownOffset, WrongType
from streaming.events import Event
from tests.contract_producers import NOTHING, TEXT, events, texts

JSON = Config("application/json")


def fork(source: str, offset: str = START, sub: int = 0, made: Config = TEXT) -> Config:
    return replace(made, forked_from=source, fork_offset=offset, fork_sub_offset=sub)


def ids(log: Log, path: str) -> list[str]:
    return [event.id for event in log.read(path, START).events]


class ForkContract:
    # Forks

    def test_a_fork_begins_with_what_its_source_has(self, log: Log) -> None:
        """Without an offset at its tail; the inherited offsets are the source's, and each goes on by itself."""
        log.create("s", TEXT, events("1", "2"))
        made = log.create("f", fork("s"), events("3"))
        assert (made.created, made.total, made.closed) == (True, 3, False)
        assert (made.config.forked_from, made.config.fork_offset) == ("s", log.state("s").tail)
        log.append("s", events("of s"))
        log.append("f", events("of f"))
        assert texts(log, "f") == ["1", "2", "3", "of f"]
        assert texts(log, "s") == ["1", "2", "of s"]
        assert ids(log, "f")[:2] == ids(log, "s")[:2]
        assert ids(log, "f") == sorted(set(ids(log, "f")))

    def test_a_fork_at_every_offset(self, log: Log) -> None:
        """It inherits what is up to its offset; before its first own append that is its tail."""
        log.create("s", TEXT, events(*"abc"))
        places = [BEGINNING, *ids(log, "s")]
        for n, place in enumerate(places):
            made = log.create(f"f{n}", fork("s", place))
            assert texts(log, f"f{n}") == list("abc")[:n]
            assert made.total == n
            if n:
                assert made.tail == place
                assert log.read(f"f{n}", place) == Batch((), 0, place, False, n)
            log.append(f"f{n}", events("own"))
            assert texts(log, f"f{n}") == [*list("abc")[:n], "own"]

    def test_what_the_source_appends_later_is_no_place_in_the_fork(self, log: Log) -> None:
        """Nor is what the fork appends one in the source, or in another fork."""
        log.create("s", TEXT, events("1"))
        log.create("f", fork("s"))
        log.create("g", fork("s"))
        offsets = {path: log.append(path, events(f"of {path}")).offset for path in ("s", "f", "g")}
        for path in offsets:
            for other in set(offsets) - {path}:
                with pytest.raises(UnknownOffset):
                    log.read(path, offsets[other])
        with pytest.raises(BadFork):
            log.create("h", fork("f", offsets["s"]))

    def test_a_forks_reading_goes_on_after_every_offset(self, log: Log) -> None:
        """Over the seams of a chain of three, with limits of events and of bytes."""
        log.create("s", TEXT, events("1", "2"))
        log.create("f", fork("s"), events("3", "4"))
        log.create("g", fork("f"), events("5", "6"))
        whole = log.read("g", START).events
        assert [event.data for event in whole] == [b"1", b"2", b"3", b"4", b"5", b"6"]
        for at, after in enumerate([START, *[event.id for event in whole]]):
            assert list(log.read("g", after).events) == list(whole[at:])
            assert list(log.read("g", after, limit=3).events) == list(whole[at : at + 3])
            assert list(log.read("g", after, limit_bytes=3).events) == list(whole[at : at + 3])

    def test_a_fork_of_a_fork_below_its_seam(self, log: Log) -> None:
        """A fork at an inherited offset takes nothing of what the one between appended."""
        log.create("s", TEXT, events("1", "2", "3"))
        log.create("f", fork("s"), events("of f"))
        log.create("g", fork("f", ids(log, "s")[0]), events("of g"))
        assert texts(log, "g") == ["1", "of g"]
        with pytest.raises(UnknownOffset):
            log.read("g", ids(log, "s")[1])

    @pytest.mark.parametrize("sub", [0, 1, 3, 5])
    def test_a_sub_offset_takes_bytes_of_the_next_event(self, log: Log, sub: int) -> None:
        """As many of its bytes are the fork's first; with all of them, the whole event is inherited as it is."""
        log.create("s", TEXT, events("first", "hello", "more"))
        log.create("f", fork("s", ids(log, "s")[0], sub), events("own"))
        assert "".join(texts(log, "f")) == "first" + "hello"[:sub] + "own"
        assert (ids(log, "f")[1] == ids(log, "s")[1]) is (sub == 5)
        log.create("g", fork("f", ids(log, "s")[0], 1))
        assert "".join(texts(log, "g")) == "first" + (("hello"[:sub] or "own")[:1])

    @pytest.mark.parametrize("sub", [0, 1, 2])
    def test_a_sub_offset_counts_messages_of_json(self, log: Log, sub: int) -> None:
        """Each event is a message, whatever its length."""
        log.create("s", JSON, events("{}", "[1,2]", "3"))
        made = log.create("f", fork("s", ids(log, "s")[0], sub, JSON), events("own"))
        assert texts(log, "f") == [*["{}", "[1,2]", "3"][: 1 + sub], "own"]
        assert made.config.fork_sub_offset == sub

    @pytest.mark.parametrize(
        ("made", "place", "sub"),
        [(TEXT, 0, 6), (TEXT, 1, 1), (JSON, 0, 2), (JSON, 1, 1), (TEXT, None, 1), (JSON, None, 1)],
    )
    def test_a_sub_offset_past_what_follows_is_refused(
        self, log: Log, made: Config, place: int | None, sub: int
    ) -> None:
        """Beyond the next event's bytes, the last message, or the tail, which is meant without an offset."""
        log.create("s", made, events("first", "hello"))
        with pytest.raises(BadFork):
            log.create("f", fork("s", START if place is None else ids(log, "s")[place], sub, made))
        assert log.paths("") == ["s"]
        assert log.delete("s")
        assert log.read("s", START) == NOTHING  # and no fork that was refused holds it

    def test_a_sub_offset_into_an_empty_stream_is_refused(self, log: Log) -> None:
        """There is no next event."""
        log.create("s", TEXT)
        with pytest.raises(BadFork):
            log.create("f", fork("s", BEGINNING, 1))

    @pytest.mark.parametrize("place", ["x", "9" * 12 + "-zzzzzz", "0" * 16 + "_" + "0" * 16])
    def test_a_fork_at_no_offset_of_its_source_is_refused(self, log: Log, place: str) -> None:
        """Nothing is made."""
        log.create("s", TEXT, events("1"))
        with pytest.raises(BadFork):
            log.create("f", fork("s", place))
        with pytest.raises(NoStream):
            log.state("f")

    def test_a_fork_needs_its_source_and_its_type(self, log: Log) -> None:
        """No source is NoStream, another type WrongType; without a type it is the source's."""
        with pytest.raises(NoStream):
            log.create("f", fork("s"))
        log.create("s", JSON, events("1"))
        with pytest.raises(WrongType):
            log.create("f", fork("s"))
        assert log.create("f", fork("s", made=Config(""))).config.content_type == "application/json"
        assert log.create("f", fork("s", made=Config(""))).created is False

    def test_making_a_fork_again_finds_it(self, log: Log) -> None:
        """With the same request, also after both went on; another offset, sub-offset or source is a conflict."""
        log.create("s", TEXT, events("one", "two"))
        log.create("t", TEXT, events("one", "two"))
        first = ids(log, "s")[0]
        log.create("f", fork("s"))
        log.create("g", fork("s", first, 2))
        log.append("s", events("on"))
        log.append("f", events("on"))
        assert not log.create("f", fork("s")).created
        assert not log.create("g", fork("s", first, 2)).created
        for other in (fork("s", first, 1), fork("s", first), fork("s", ids(log, "s")[1], 2), fork("t"), TEXT):
            with pytest.raises(StreamExists):
                log.create("g", other)

    def test_a_fork_is_open_and_new_to_writers(self, log: Log) -> None:
        """Of a closed source, too; producers, sequences and keys are not inherited."""
        log.create("s", TEXT)
        log.append("s", events("1"), producer=Producer("p", 4, 0), seq="m", key="k", close=True)
        assert not log.create("f", fork("s")).closed
        done = log.append("f", events("2"), producer=Producer("p", 0, 0), seq="a", key="k")
        assert not done.duplicate
        log.close("f")
        assert texts(log, "f") == ["1", "2"]
        assert log.read("f", START).closed

    def test_an_append_to_the_source_is_nothing_new_in_the_fork(self, log: Log) -> None:
        """Who waits at the fork's tail is not told of it; inherited events are there at once."""
        log.create("s", TEXT, events("1"))
        tail = log.create("f", fork("s")).tail
        log.append("s", events("2"))
        log.close("s")
        assert log.wait("f", START, 5)
        assert not log.wait("f", tail, 0.05) or log.read("f", tail).events == ()
        assert not log.read("f", tail).closed

    # Deleting beside forks

    def test_a_deleted_source_lives_on_for_its_forks(self, log: Log) -> None:
        """Its own path answers gone to everybody, its forks read on, and with the last of them it is forgotten."""
        log.create("s", TEXT, events("1"))
        tail = log.state("s").tail
        log.create("f", fork("s"), events("2"))
        log.create("g", fork("s"))
        assert log.delete("s") is True
        for work in (
            lambda: log.read("s", START),
            lambda: log.read("s", tail),
            lambda: log.state("s"),
            lambda: log.append("s", events("x")),
            lambda: log.append("s", events("x"), create=TEXT),
            lambda: log.close("s"),
            lambda: log.delete("s"),
            lambda: log.create("h", fork("s")),
        ):
            with pytest.raises(StreamGone):
                work()
        with pytest.raises(StreamExists):
            log.create("s", TEXT)
        assert log.wait("s", tail, 5)
        assert (texts(log, "f"), texts(log, "g")) == (["1", "2"], ["1"])
        assert log.paths("") == ["f", "g"]
        assert log.create("h", fork("f")).total == 2
        for path in ("f", "g"):
            assert log.delete(path)
        with pytest.raises(StreamGone):
            log.state("s")  # f is soft-deleted: h reads from it, and through it from s
        assert texts(log, "h") == ["1", "2"]
        assert log.delete("h")
        for path in ("s", "f", "g", "h"):
            assert log.delete(path) is False
            assert log.create(path, TEXT).total == 0
            with pytest.raises(UnknownOffset):
                log.read(path, tail)

    def test_a_source_that_goes_wakes_who_waits(self, log: Log) -> None:
        """A reader of what was deleted is told to look again, and finds it gone."""
        tail = log.create("s", TEXT, events("1")).tail
        log.delete("s")
        assert log.wait("s", tail, 5)
        with pytest.raises(UnknownOffset):
            log.read("s", tail)

    # Lifetimes

    def test_a_sliding_lifetime_begins_anew_with_each_read_and_write(
        self, log: Log, passes: Callable[[float], None]
    ) -> None:
        """Then it ends: the stream is as if it had never been."""
        log.create("a", replace(TEXT, ttl_s=1), events("1"))
        passes(0.6)
        assert texts(log, "a") == ["1"]
        passes(0.6)
        log.append("a", events("2"))
        passes(0.6)
        offset = log.read("a", START).tail
        passes(0.6)
        assert log.read("a", offset).tail == offset
        passes(1.2)
        self._gone(log, "a", offset)

    def test_to_ask_for_the_state_or_to_wait_is_no_read(self, log: Log, passes: Callable[[float], None]) -> None:
        """A watcher does not keep a stream alive."""
        tail = log.create("a", replace(TEXT, ttl_s=1), events("1")).tail
        passes(0.6)
        assert log.state("a").config.ttl_s == 1
        assert log.wait("a", START, 5)
        passes(0.6)
        self._gone(log, "a", tail)

    def test_an_absolute_end_does_not_move(self, log: Log, passes: Callable[[float], None]) -> None:
        """Neither reads nor writes put it off."""
        tail = log.create("a", replace(TEXT, expires_at=time.time() + 1), events("1")).tail
        passes(0.6)
        tail = log.append("a", events("2")).tail
        assert texts(log, "a") == ["1", "2"]
        passes(0.6)
        self._gone(log, "a", tail)

    def _gone(self, log: Log, path: str, offset: str) -> None:
        assert log.paths("") == []
        with pytest.raises(NoStream):
            log.state(path)
        with pytest.raises(NoStream):
            log.append(path, events("x"))
        with pytest.raises(UnknownOffset):
            log.read(path, offset)
        assert log.read(path, START) == NOTHING
        assert log.delete(path) is False
        assert log.create(path, JSON, events("new")).created
        with pytest.raises(UnknownOffset):
            log.read(path, offset)
        assert texts(log, path) == ["new"]

    def test_expire_deletes_what_is_over(self, log: Log, passes: Callable[[float], None]) -> None:
        """And nothing else; it counts."""
        log.create("a", replace(TEXT, ttl_s=1), events("1"))
        log.create("b", replace(TEXT, expires_at=time.time() + 1))
        log.create("c", replace(TEXT, ttl_s=100))
        log.create("d", TEXT)
        assert log.expire() == 0
        passes(1.2)
        assert log.expire() == 2
        assert log.expire() == 0
        assert log.paths("") == ["c", "d"]

    @pytest.mark.parametrize(
        ("source", "asked", "gets"),
        [
            ((None, None), (None, None), (None, None)),
            ((None, None), (60, None), (60, None)),
            ((60, None), (None, None), (60, None)),
            ((60, None), (30, None), (30, None)),
            ((60, None), (None, 4e9), (None, 4e9)),
            ((None, 4e9), (None, None), (None, 4e9)),
            ((None, 4e9), (60, None), (60, None)),
            ((None, 4e9), (None, 5e9), (None, 5e9)),
        ],
    )
    def test_a_forks_lifetime(
        self,
        log: Log,
        source: tuple[int | None, float | None],
        asked: tuple[int | None, float | None],
        gets: tuple[int | None, float | None],
    ) -> None:
        """The table of the protocol's 4.2: its own where it asks for one, otherwise the source's."""
        log.create("s", replace(TEXT, ttl_s=source[0], expires_at=source[1]))
        config = replace(fork("s"), ttl_s=asked[0], expires_at=asked[1])
        made = log.create("f", config).config
        assert (made.ttl_s, made.expires_at) == gets
        assert log.create("f", config).created is False

    def test_a_fork_outlives_its_source(self, log: Log, passes: Callable[[float], None]) -> None:
        """A source whose time has come is gone like one that was deleted, and goes with its last fork."""
        log.create("s", replace(TEXT, ttl_s=1), events("1"))
        log.create("f", replace(fork("s"), ttl_s=100), events("2"))
        passes(1.2)
        with pytest.raises(StreamGone):
            log.read("s", START)
        log.expire()
        with pytest.raises(StreamGone):
            log.state("s")
        assert texts(log, "f") == ["1", "2"]
        assert log.delete("f")
        assert log.delete("s") is False

    # Retention

    @pytest.mark.parametrize(("keep", "kept"), [(5, "bbbb c"), (6, "bbbb c"), (7, "aa bbbb c"), (4, "c"), (1, "c")])
    def test_keep_bytes_drops_the_oldest(self, log: Log, keep: int, kept: str) -> None:
        """What is kept fits; the events are of 2, 4 and 1 bytes."""
        config = replace(TEXT, keep_bytes=keep)
        for text in ("aa", "bbbb", "c"):
            log.append("a", events(text), create=config)
        assert texts(log, "a") == kept.split()
        assert log.read("a", START).missed == 3 - len(kept.split())
        assert log.state("a").total == len(kept.split())

    def test_an_event_larger_than_is_kept_stays_alone(self, log: Log) -> None:
        """The newest event can be read whatever its size."""
        config = replace(TEXT, keep_bytes=3)
        for text in ("aa", "bbbbbbb"):
            log.append("a", events(text), create=config)
        assert texts(log, "a") == ["bbbbbbb"]
        log.append("a", events("c"))
        assert texts(log, "a") == ["c"]

    def test_keep_s_drops_what_is_old(self, log: Log, passes: Callable[[float], None]) -> None:
        """Also when nothing is appended any more, and expire frees it."""
        config = replace(TEXT, keep_s=1)
        log.append("a", events("1"), create=config)
        passes(0.6)
        tail = log.append("a", events("2"), create=config).tail
        assert texts(log, "a") == ["1", "2"]
        passes(0.6)
        batch = log.read("a", START)
        assert ([event.data for event in batch.events], batch.missed, batch.total) == ([b"2"], 1, 1)
        log.expire()
        assert log.read("a", START) == batch
        passes(0.6)
        assert log.read("a", START) == Batch((), 2, tail, False, 0)
        log.append("a", events("3"))
        assert texts(log, "a") == ["3"]

    def test_keys_go_with_what_was_too_old(self, log: Log, passes: Callable[[float], None]) -> None:
        """Also where housekeeping has dropped it: the same again is new, and no other body."""
        log.create("a", replace(TEXT, keep_s=1))
        log.append("a", events("1"), key="k")
        passes(2)
        log.expire()
        assert not log.append("a", events("1"), key="k").duplicate
        assert texts(log, "a") == ["1"]

    def test_an_appends_retention_holds_from_now_on(self, log: Log) -> None:
        """Append's ``create`` sets it, also to none, on a stream that is there; create does not."""
        log.create("a", TEXT, events(*"abcd"))
        log.append("a", events("e"), create=replace(TEXT, keep_events=2))
        log.append("a", events("f"))
        assert texts(log, "a") == ["e", "f"]
        log.create("a", TEXT)
        log.append("a", events("g"))
        assert texts(log, "a") == ["f", "g"]
        log.append("a", events("h"), create=TEXT)
        assert texts(log, "a") == ["f", "g", "h"]

    def test_what_a_fork_inherited_stays_with_it(self, log: Log) -> None:
        """A source that goes on dropping does not reach into its forks; a fork drops by its own bounds."""
        log.create("s", replace(TEXT, keep_events=2), events(*"abc"))
        log.create("f", fork("s"), events("own"))
        for text in "defg":
            log.append("s", events(text))
        assert texts(log, "s") == ["f", "g"]
        batch = log.read("f", START)
        assert ([event.data for event in batch.events], batch.missed, batch.total) == ([b"b", b"c", b"own"], 1, 3)
        log.append("f", events("on"), create=replace(TEXT, keep_events=3))
        assert texts(log, "f") == ["c", "own", "on"]
        log.append("f", events("and on"))
        log.append("f", events("again"))
        assert texts(log, "f") == ["on", "and on", "again"]

    def test_a_later_fork_that_shares_less_takes_nothing_from_an_earlier_one(self, log: Log) -> None:
        """Each keeps what it inherited, whatever the source drops; at the beginning that is nothing."""
        log.create("s", replace(TEXT, keep_events=3), events(*"abcd"))
        log.create("f", fork("s"))
        log.create("g", fork("s", ids(log, "s")[0]))
        assert log.create("h", fork("s", BEGINNING)).total == 0
        log.append("s", events(*"efgh"))
        assert [texts(log, path) for path in "sfgh"] == [list("fgh"), list("bcd"), ["b"], []]
        log.append("h", events("own"))
        assert texts(log, "h") == ["own"]

    # Since

    def test_since_finds_the_first_event_of_a_time(self, log: Log, passes: Callable[[float], None]) -> None:
        """It returns the offset before the events that were appended then or later; their times are the log's."""
        begun = time.time()
        log.create("a", TEXT, events("1", "2"))
        passes(10)
        log.append("a", events("3"))
        log.create("f", fork("a"))
        passes(10)
        log.append("f", events("4"))
        found = {
            path: [
                [event.data for event in log.read(path, log.since(path, begun + late)).events]
                for late in (-5, 5, 15, 30)
            ]
            for path in ("a", "f")
        }
        assert found["a"] == [[b"1", b"2", b"3"], [b"3"], [], []]
        assert found["f"] == [[b"1", b"2", b"3", b"4"], [b"3", b"4"], [b"4"], []]
        assert log.since("nothing", begun) == START

    def test_since_before_what_is_kept_is_told(self, log: Log) -> None:
        """Whoever asks for a time from which events are gone is told how many: their reading begins at START."""
        begun = time.time() - 5
        log.append("a", [Event(b"1"), Event(b"2"), Event(b"3")], create=replace(TEXT, keep_events=1))
        assert log.read("a", log.since("a", begun)).missed == 2

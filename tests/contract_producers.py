"""What every log must do of creating, appending and its producers: a part of the suite in tests/contract_log.py.

The numbers and the order are those of the Durable Streams protocol, 5.1 to 5.3, and of ``stores.base.Log``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from stores.base import START, Append, Appended, Batch, Config, Create, Log, Producer
from stores.errors import (
    KeyReused,
    NewEpoch,
    NoStream,
    SequenceGap,
    SequenceRegression,
    StaleEpoch,
    StoreError,
    StreamClosed,
    StreamExists,
    WrongType,
)
from streaming.events import Event

TEXT = Config("text/plain")
NOTHING = Batch((), 0, START, False, 0)


def events(*texts: str) -> list[Event]:
    return [Event(text.encode(), "note") for text in texts]


def texts(log: Log, path: str) -> list[str]:
    return [event.data.decode() for event in log.read(path, START).events]


def together(works: Sequence[object]) -> None:
    """Run every one of ``works`` in a thread of its own; raise when one of them did."""
    failures: list[BaseException] = []

    def run(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class ProducerContract:
    # Creating

    def test_create_makes_a_stream_once(self, log: Log) -> None:
        """The second create with the same configuration finds the stream, and adds nothing."""
        made = log.create("a", TEXT, events("1", "2"))
        assert (made.created, made.config, made.closed, made.total) == (True, TEXT, False, 2)
        assert made.tail == log.read("a", START).events[-1].id
        assert log.create("a", TEXT, events("3")) == replace(made, created=False)
        assert texts(log, "a") == ["1", "2"]

    def test_an_empty_streams_tail_is_start(self, log: Log) -> None:
        """There is no offset before the first event but START."""
        assert log.create("a", TEXT).tail == START
        assert log.state("a").tail == START
        assert log.read("a", START) == NOTHING

    @pytest.mark.parametrize(
        "other",
        [
            Config("text/html"),
            Config("text/plain", ttl_s=60),
            Config("text/plain", ttl_s=59),
            Config("text/plain", expires_at=4_000_000_000.0),
            Config("text/plain", forked_from="b"),
        ],
    )
    def test_another_configuration_is_a_conflict(self, log: Log, other: Config) -> None:
        """A stream is never made into another one; its events stay."""
        log.create("b", TEXT)
        made = replace(TEXT, ttl_s=60) if other.ttl_s == 59 else TEXT
        log.create("a", made, events("1"))
        with pytest.raises(StreamExists):
            log.create("a", other, events("2"))
        assert texts(log, "a") == ["1"]

    def test_none_of_several_is_there_without_those_before_it(self, log: Log) -> None:
        """Each is made as by a call of its own; where one is refused, those after it are not made."""
        log.create_each([Create("a", TEXT), Create("b", TEXT, events("x", "y"))])
        assert (texts(log, "a"), texts(log, "b")) == ([], ["x", "y"])
        assert not log.create("b", TEXT).created
        with pytest.raises(StreamExists):
            log.create_each([Create("a", Config("text/html")), Create("c", TEXT)])
        assert list(log.paths("")) == ["a", "b"]

    @pytest.mark.parametrize("closed", [True, False])
    def test_another_end_is_a_conflict(self, log: Log, closed: bool) -> None:
        """The protocol's table in 5.1: an open and a closed stream are never the same, whoever closed it."""
        log.create("a", TEXT, closed=closed)
        with pytest.raises(StreamExists):
            log.create("a", TEXT, closed=not closed)
        assert not log.create("a", TEXT, closed=closed).created
        log.create("b", TEXT)
        log.close("b")
        assert log.create("b", TEXT, closed=True).created is False

    @pytest.mark.parametrize(
        "same", [replace(TEXT, keep_events=3, keep_bytes=9, keep_s=5), Config("Text/Plain"), Config("text/plain;a=b")]
    )
    def test_retention_and_the_writing_of_a_type_are_no_other_configuration(self, log: Log, same: Config) -> None:
        """Media types are compared without case and parameters (RFC 9110, 8.3.1); retention is the server's own."""
        log.create("a", TEXT)
        assert not log.create("a", same).created

    def test_a_stream_may_be_made_closed(self, log: Log) -> None:
        """Created and closed in one step: what came with it is all there will be."""
        made = log.create("a", TEXT, events("all"), closed=True)
        assert made.closed
        with pytest.raises(StreamClosed) as refused:
            log.append("a", events("more"))
        assert refused.value.tail == made.tail == log.state("a").tail
        assert log.read("a", START).closed

    # Appending

    def test_an_append_needs_a_stream(self, log: Log) -> None:
        """Without a stream, and without what to make it with, there is nothing to append to."""
        with pytest.raises(NoStream):
            log.append("a", events("1"))
        with pytest.raises(NoStream):
            log.state("a")
        assert log.read("a", START) == NOTHING

    def test_an_append_tells_where_it_ended(self, log: Log) -> None:
        """The offset of its last event, which is the tail then; a close is told."""
        log.create("a", TEXT)
        first = log.append("a", events("1", "2"))
        assert first == Appended(log.state("a").tail, log.state("a").tail)
        last = log.append("a", events("3"), close=True)
        assert (last.offset, last.tail, last.closed) == (log.state("a").tail, log.state("a").tail, True)
        assert first.offset < last.offset
        assert log.state("a").closed

    def test_closing_a_closed_stream_adds_nothing(self, log: Log) -> None:
        """Close-only is idempotent; close with events on a closed stream is a conflict (5.2)."""
        log.create("a", TEXT, events("1"))
        tail = log.append("a", [], close=True).tail
        again = log.append("a", [], close=True)
        assert (again.tail, again.closed) == (tail, True)
        with pytest.raises(StreamClosed):
            log.append("a", events("2"), close=True)
        with pytest.raises(StreamClosed):
            log.append("a", [], close=True, producer=Producer("p", 0, 0))
        assert texts(log, "a") == ["1"]

    def test_a_type_must_be_the_streams_when_given(self, log: Log) -> None:
        """Another type adds nothing; case and parameters do not count."""
        log.create("a", TEXT)
        with pytest.raises(WrongType):
            log.append("a", events("1"), content_type="application/json")
        log.append("a", events("2"), content_type="TEXT/plain; charset=utf-8")
        log.append("a", events("3"))
        assert texts(log, "a") == ["2", "3"]

    def test_a_sequence_must_grow_as_bytes(self, log: Log) -> None:
        """ "9" comes after "10" (5.2: byte-wise lexicographic); appends without one are let be."""
        log.create("a", TEXT)
        for seq in ("10", "9", "a", "z", "é"):
            log.append("a", events(seq), seq=seq)
        log.append("a", events("without"))
        for seq in ("é", "z", "0", "~"):
            with pytest.raises(SequenceRegression):
                log.append("a", events("late"), seq=seq)
        log.append("a", events("ｚ"), seq="ｚ")
        log.append("a", events("𝐳"), seq="𝐳")
        assert texts(log, "a") == ["10", "9", "a", "z", "é", "without", "ｚ", "𝐳"]

    def test_errors_come_in_their_order(self, log: Log) -> None:
        """An append that is wrong in every way is told the first of it; each mended, the next."""
        log.create("a", TEXT)
        log.append("a", events("1"), producer=Producer("p", 1, 0), seq="m", key="k")
        log.create("closed", TEXT, events("1"))
        log.append("closed", events("1"), producer=Producer("p", 1, 0), seq="m", key="k", close=True)
        other = events("other")

        def fails(expected: type[StoreError], path: str, kind: str, producer: Producer | None, seq: str) -> None:
            before = log.read(path, START)
            with pytest.raises(expected):
                log.append(path, other, content_type=kind, producer=producer, seq=seq, key="k")
            assert log.read(path, START) == before

        fails(NoStream, "nothing", "no/type", Producer("p", 0, 9), "a")
        fails(StreamClosed, "closed", "no/type", Producer("p", 0, 9), "a")
        fails(WrongType, "a", "no/type", Producer("p", 0, 9), "a")
        fails(StaleEpoch, "a", "text/plain", Producer("p", 0, 9), "a")
        fails(NewEpoch, "a", "text/plain", Producer("p", 2, 9), "a")
        fails(SequenceGap, "a", "text/plain", Producer("p", 1, 9), "a")
        fails(SequenceRegression, "a", "text/plain", Producer("p", 1, 1), "a")
        fails(KeyReused, "a", "text/plain", Producer("p", 1, 1), "n")
        repeated = log.append("a", other, content_type="no/type", producer=Producer("p", 1, 0), seq="a", key="k")
        assert repeated.duplicate
        # None of the refused has moved what is checked.
        log.append("a", events("2"), producer=Producer("p", 1, 1), seq="n", key="l")
        assert texts(log, "a") == ["1", "2"]

    # Producers (5.2.1)

    def test_a_producers_append_happens_once(self, log: Log) -> None:
        """The same (id, epoch, seq) again adds nothing, whatever it brings, and tells the highest sequence number."""
        log.create("a", TEXT)
        done = [log.append("a", events(text), producer=Producer("p", 0, n)) for n, text in enumerate("abc")]
        assert [(each.seq, each.duplicate) for each in done] == [(0, False), (1, False), (2, False)]
        tail = log.append("a", events("x")).tail
        last = log.append("a", events("other"), producer=Producer("p", 0, 2))
        assert last == Appended(done[2].offset, tail, True, False, 2)
        older = log.append("a", events("a"), producer=Producer("p", 0, 0))
        assert (older.duplicate, older.tail, older.seq) == (True, tail, 2)
        assert texts(log, "a") == ["a", "b", "c", "x"]

    def test_a_sequence_number_that_comes_early_is_a_gap(self, log: Log) -> None:
        """A gap tells what is expected; a new producer begins with 0 in any epoch."""
        log.create("a", TEXT)
        for producer, expected in ((Producer("p", 0, 1), 0), (Producer("p", 7, 3), 0)):
            with pytest.raises(SequenceGap) as gap:
                log.append("a", events("x"), producer=producer)
            assert (gap.value.expected, gap.value.received) == (expected, producer.seq)
        log.append("a", events("1"), producer=Producer("p", 7, 0))
        with pytest.raises(SequenceGap) as gap:
            log.append("a", events("x"), producer=Producer("p", 7, 2))
        assert (gap.value.expected, gap.value.received) == (1, 2)
        assert texts(log, "a") == ["1"]

    def test_a_new_epoch_fences_the_old_one(self, log: Log) -> None:
        """A higher epoch begins at 0 and takes over; the old one is told which epoch has."""
        log.create("a", TEXT)
        log.append("a", events("1"), producer=Producer("p", 0, 0))
        with pytest.raises(NewEpoch):
            log.append("a", events("x"), producer=Producer("p", 3, 1))
        log.append("a", events("2"), producer=Producer("p", 3, 0))
        for seq in (0, 1):
            with pytest.raises(StaleEpoch) as stale:
                log.append("a", events("x"), producer=Producer("p", 0, seq))
            assert stale.value.epoch == 3
        log.append("a", events("3"), producer=Producer("q", 0, 0))
        assert texts(log, "a") == ["1", "2", "3"]

    def test_the_largest_numbers_of_javascript_are_taken(self, log: Log) -> None:
        """Epochs and sequence numbers go up to 2**53 - 1."""
        log.create("a", TEXT)
        log.append("a", events("1"), producer=Producer("p", 2**53 - 1, 0))
        with pytest.raises(SequenceGap) as gap:
            log.append("a", events("x"), producer=Producer("p", 2**53 - 1, 2**53 - 1))
        assert (gap.value.expected, gap.value.received) == (1, 2**53 - 1)
        with pytest.raises(StaleEpoch) as stale:
            log.append("a", events("x"), producer=Producer("p", 2**53 - 2, 0))
        assert stale.value.epoch == 2**53 - 1

    @pytest.mark.parametrize("brought", [events("end"), []], ids=["with events", "without"])
    def test_the_retry_of_a_closing_append_is_a_duplicate(self, log: Log, brought: list[Event]) -> None:
        """Who closed and lost the answer gets it; everything else is told that the stream is closed."""
        log.create("a", TEXT, events("1"))
        closing = log.append("a", brought, producer=Producer("p", 0, 0), close=True)
        again = log.append("a", brought, producer=Producer("p", 0, 0), close=True)
        assert again == replace(closing, duplicate=True)
        for other in (Producer("p", 0, 1), Producer("q", 0, 0), Producer("p", 1, 0)):
            with pytest.raises(StreamClosed):
                log.append("a", brought, producer=other, close=True)
        assert texts(log, "a") == ["1", *[event.data.decode() for event in brought]]

    def test_marks_belong_to_their_stream_and_end_with_it(self, log: Log) -> None:
        """The same producer, sequence and key elsewhere, or after a delete, are new."""
        for path in ("a", "b", "a"):
            if path == "a":
                log.delete("a")
            log.create(path, TEXT)
            done = log.append(path, events(path), producer=Producer("p", 0, 0), seq="m", key="k")
            assert not done.duplicate

    # To many streams in one call

    def test_each_append_of_several_happens_or_not_for_itself(self, log: Log) -> None:
        """What one is refused with is told in its place; a retry adds nothing; a gap says what is missing."""
        for path in ("a", "b", "closed"):
            log.create(path, TEXT, closed=path == "closed")

        def each(number: int, close: bool = False) -> list[StoreError | None]:
            producer = Producer("p", 0, number)
            paths = ("a", "closed", "b", "none")
            return list(log.append_each([Append(path, events(f"{number}"), producer, close) for path in paths]))

        for number in (0, 1, 1, 2):
            told = each(number)
            assert [type(error) if error else None for error in told] == [None, StreamClosed, None, NoStream]
        gap = each(9)[0]
        assert isinstance(gap, SequenceGap)
        assert gap.expected == 3
        assert each(3, close=True)[2] is None
        assert texts(log, "a") == texts(log, "b") == ["0", "1", "2", "3"]
        assert log.state("a").closed
        assert log.append_each([]) == []

    def test_several_appends_meet_what_others_have_changed(self, log: Log) -> None:
        """Between two of them others append, close, delete and make anew: each still finds its stream as it is."""
        for path in ("a", "b", "c", "d"):
            log.create(path, TEXT)

        def each(number: int) -> list[type[StoreError] | None]:
            producer = Producer("p", 0, number)
            told = log.append_each([Append(path, events(f"{number}"), producer) for path in ("a", "b", "c", "d")])
            return [type(error) if error else None for error in told]

        assert each(0) == each(1) == [None] * 4
        log.append("a", events("other"))
        log.close("b")
        log.delete("c")
        log.create("c", TEXT, events("new"))
        log.append("d", events("same"), producer=Producer("p", 0, 2))
        assert each(2) == [None, StreamClosed, SequenceGap, None]
        assert each(3) == [None, StreamClosed, SequenceGap, None]
        assert [texts(log, path) for path in ("a", "b", "c", "d")] == [
            ["0", "1", "other", "2", "3"],
            ["0", "1"],
            ["new"],
            ["0", "1", "same", "3"],
        ]

    def test_several_appends_wake_who_waits(self, log: Log) -> None:
        """A reader of each stream is told as by an append of its own."""
        for path in ("a", "b"):
            log.create(path, TEXT)
        woken: list[bool] = []
        waiting = [
            threading.Thread(target=lambda path=path: woken.append(log.wait(path, START, 30.0))) for path in ("a", "b")
        ]
        for thread in waiting:
            thread.start()
        log.append_each([Append(path, events("x"), Producer("p", 0, 0)) for path in ("a", "b")])
        for thread in waiting:
            thread.join(20.0)
        assert woken == [True, True]

    # Many at once

    def test_many_append_to_one_stream(self, log: Log) -> None:
        """Appends of many callers interleave whole, in each caller's order; none is lost or doubled."""
        log.create("a", TEXT)

        def write(who: int) -> None:
            for n in range(20):
                log.append("a", events(f"{who} {n} x", f"{who} {n} y"), producer=Producer(str(who), 0, n))

        together([lambda who=who: write(who) for who in range(8)])
        whole = texts(log, "a")
        assert len(whole) == 8 * 20 * 2
        assert all(x[:-1] == y[:-1] for x, y in zip(whole[::2], whole[1::2], strict=True))
        for who in range(8):
            mine = [text for text in whole[::2] if text.startswith(f"{who} ")]
            assert mine == [f"{who} {n} x" for n in range(20)]

    def test_many_append_the_same_once(self, log: Log) -> None:
        """Of many callers with the same producer mark, or key, one adds."""
        log.create("a", TEXT)
        together([lambda: log.append("a", events("p"), producer=Producer("p", 0, 0))] * 8)
        together([lambda: log.append("a", events("k"), key="k")] * 8)
        assert texts(log, "a") == ["p", "k"]

    def test_many_append_to_many_streams(self, log: Log) -> None:
        """One caller's refused append undoes nobody else's."""

        def write(path: str) -> None:
            for n in range(15):
                log.append(path, events(str(n)), create=TEXT)
                with pytest.raises(WrongType):
                    log.append(path, events("x"), content_type="text/html")

        together([lambda path=f"many/{who}": write(path) for who in range(8)])
        for path in log.paths("many/"):
            assert texts(log, path) == [str(n) for n in range(15)]
        assert len(log.paths("many/")) == 8

"""What every log must do, as one suite: ``class TestMyLog(LogContract)`` with a fixture ``log`` runs it on a store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from stores.base import START, Batch, Config, Log
from stores.errors import KeyReused, StreamClosed, UnknownOffset
from streaming.events import Event
from tests.contract_forks import ForkContract
from tests.contract_producers import ProducerContract, events

EMPTY = Batch((), 0, "", False, 0)
# A wake-up takes well under a tenth of this on a busy machine.
WAKE_S = 2.0


def add(log: Log, path: str, events: Sequence[Event], *, keep: int = 0, **more: Any) -> str:
    """Append to a stream that is made when it is not there; return the offset."""
    return log.append(path, events, create=Config(keep_events=keep), **more).offset


def texts(batch: Batch) -> list[str]:
    return [event.data.decode() for event in batch.events]


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[list[object]]:
    """Run ``work`` in a thread while the block runs; the list holds what it returned once the block has ended."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    try:
        yield results
    finally:
        thread.join()


class LogContract(ProducerContract, ForkContract):
    # Reading and appending

    def test_a_path_without_a_log_reads_as_empty(self, log: Log) -> None:
        """Nobody need create a log before it is read, and reading creates none."""
        assert log.read("a", START) == EMPTY
        assert log.read("a", START) == EMPTY

    def test_what_was_appended_is_read_in_order(self, log: Log) -> None:
        """Data and type come back as they were given, over several appends."""
        first = add(log, "a", [Event(b"1", "x"), Event(b"2", "")])
        last = add(log, "a", [Event(b"3", "y")])
        batch = log.read("a", START)
        assert [(event.data, event.type) for event in batch.events] == [(b"1", "x"), (b"2", ""), (b"3", "y")]
        assert [batch.events[1].id, batch.events[2].id] == [first, last]
        assert (batch.missed, batch.tail, batch.closed, batch.total) == (0, last, False, 3)

    def test_an_events_own_id_is_replaced_by_its_offset(self, log: Log) -> None:
        """The log gives the ids."""
        offset = add(log, "a", [Event(b"1", id="mine")])
        assert [event.id for event in log.read("a", START).events] == [offset]

    @pytest.mark.parametrize(
        "data", [b"", b"\0\n\r\xff", "日本語 🙂".encode(), b"x" * 2**20], ids=["none", "raw", "text", "MiB"]
    )
    def test_data_is_any_bytes(self, log: Log, data: bytes) -> None:
        """An event's data is not looked at."""
        add(log, "a", [Event(data)])
        assert [event.data for event in log.read("a", START).events] == [data]

    def test_offsets_sort_as_text(self, log: Log) -> None:
        """The order of the offsets is that of the events, past the point where a number gets another digit."""
        for _ in range(3):
            add(log, "a", events(*"0123456789" * 4))
        ids = [event.id for event in log.read("a", START).events]
        assert len(ids) == 120
        assert ids == sorted(set(ids))
        assert all(each > START for each in ids)

    def test_reading_goes_on_after_every_offset(self, log: Log) -> None:
        """From each offset exactly the events after it are read: none lost, none doubled."""
        add(log, "a", events(*"abcdef"))
        whole = log.read("a", START).events
        for at, event in enumerate(whole):
            batch = log.read("a", event.id)
            assert list(batch.events) == list(whole[at + 1 :])
            assert (batch.missed, batch.tail, batch.total) == (0, whole[-1].id, 6)

    def test_a_limit_bounds_a_batch(self, log: Log) -> None:
        """With a limit the first events come, and the batch tells the tail all the same; a limit of 0 only asks."""
        last = add(log, "a", events(*"abc"))
        assert texts(log.read("a", START, limit=2)) == ["a", "b"]
        assert log.read("a", START, limit=2).tail == last
        assert log.read("a", START, limit=0) == Batch((), 0, last, False, 3)

    def test_a_bound_of_bytes_bounds_a_batch(self, log: Log) -> None:
        """What fits exactly comes, one byte less is one event less, and one event always comes."""
        add(log, "a", events("aa", "bbb", "cccc", "", "d"))
        found = {limit: len(log.read("a", START, limit_bytes=limit).events) for limit in (0, 1, 2, 4, 5, 8, 9, 10)}
        assert found == {0: 1, 1: 1, 2: 1, 4: 1, 5: 2, 8: 2, 9: 4, 10: 5}
        second = log.read("a", START).events[1].id
        assert texts(log.read("a", second, limit_bytes=1)) == ["cccc"]
        assert log.read("a", START, limit=0, limit_bytes=0).events == ()

    @pytest.mark.parametrize("other", ["A", "a/", "a_", "a%", "ab", "ä", "a'", "a\\", "á"])
    def test_paths_are_whole_names(self, log: Log, other: str) -> None:
        """A path is compared as it is: no case, pattern, prefix or normal form makes two of them one."""
        add(log, "a", events("of a"))
        add(log, other, events("of the other"))
        assert texts(log.read("a", START)) == ["of a"]
        assert texts(log.read(other, START)) == ["of the other"]
        log.delete(other)
        assert texts(log.read("a", START)) == ["of a"]

    # Offsets

    def test_an_offset_of_another_log_is_unknown(self, log: Log) -> None:
        """Two logs never give out the same offset."""
        add(log, "a", events("1"))
        other = add(log, "b", events("1"))
        with pytest.raises(UnknownOffset):
            log.read("a", other)

    @pytest.mark.parametrize(
        "change",
        [
            lambda offset: "x",
            lambda offset: "0",
            lambda offset: offset + "0",
            lambda offset: offset[:-1],
            lambda offset: offset + "\n",
            lambda offset: " " + offset,
            lambda offset: offset.upper() + "é",
            lambda offset: offset.replace("1", "9", 1),
            lambda offset: offset.replace("1", "١", 1),  # an Arabic-Indic digit one, which int() takes
            lambda offset: "x" * 100_000,
            lambda offset: "\0",
        ],
    )
    def test_what_is_no_offset_is_unknown(self, log: Log, change: Callable[[str], str]) -> None:
        """An offset that this log never gave out raises UnknownOffset, whatever it looks like."""
        offset = add(log, "a", events("1"))
        with pytest.raises(UnknownOffset):
            log.read("a", change(offset))
        with pytest.raises(UnknownOffset):
            log.read("nothing here", change(offset))

    def test_a_deleted_logs_offsets_are_never_given_out_again(self, log: Log) -> None:
        """A reader of what was deleted is not taken to a place in the log that came after it under the same path."""
        old = add(log, "a", events("1", "2"))
        log.delete("a")
        assert log.read("a", START) == EMPTY
        with pytest.raises(UnknownOffset):
            log.read("a", old)
        new = add(log, "a", events("3", "4"))
        assert new != old
        assert texts(log.read("a", START)) == ["3", "4"]
        with pytest.raises(UnknownOffset):
            log.read("a", old)

    def test_deleting_nothing_is_nothing(self, log: Log) -> None:
        """Delete may come twice, and for a path that never was."""
        log.delete("a")
        add(log, "a", events("1"))
        log.delete("a")
        log.delete("a")
        assert log.read("a", START) == EMPTY

    # Closing

    def test_a_closed_log_takes_nothing_more(self, log: Log) -> None:
        """After close an append raises StreamClosed and adds nothing; what was there is still read."""
        last = add(log, "a", events("1"))
        log.close("a")
        log.close("a")
        with pytest.raises(StreamClosed):
            add(log, "a", events("2"))
        batch = log.read("a", START)
        assert texts(batch) == ["1"]
        assert (batch.closed, batch.tail, batch.total) == (True, last, 1)
        assert log.read("a", last).closed

    def test_a_log_may_be_closed_before_it_has_events(self, log: Log) -> None:
        """A log without events has START for its tail, and is closed."""
        log.close("a")
        assert log.read("a", START) == Batch((), 0, START, True, 0)
        with pytest.raises(StreamClosed):
            add(log, "a", events("1"))

    def test_a_deleted_log_is_open_again(self, log: Log) -> None:
        """Delete forgets the closing, too."""
        log.close("a")
        log.delete("a")
        add(log, "a", events("1"))
        assert not log.read("a", START).closed

    # Retention

    def test_keep_drops_the_oldest(self, log: Log) -> None:
        """With ``keep`` so many events stay, and ``missed`` says how many are gone after the offset asked for."""
        offsets = [add(log, "a", events(text), keep=3) for text in "abcdef"]
        assert texts(log.read("a", START)) == ["d", "e", "f"]
        missed = [log.read("a", offset).missed for offset in [START, *offsets]]
        assert missed == [3, 2, 1, 0, 0, 0, 0]
        assert [texts(log.read("a", offset)) for offset in offsets[3:]] == [["e", "f"], ["f"], []]
        assert log.read("a", START).total == 3
        assert log.read("a", offsets[0], limit=0).missed == 2

    def test_keep_bounds_a_single_append(self, log: Log) -> None:
        """An append larger than ``keep`` leaves its own newest events."""
        add(log, "a", events("a"))
        last = add(log, "a", events(*"bcdef"), keep=2)
        batch = log.read("a", START)
        assert texts(batch) == ["e", "f"]
        assert (batch.missed, batch.tail, batch.total) == (4, last, 2)

    def test_without_keep_all_stay(self, log: Log) -> None:
        """A smaller log than ``keep`` loses nothing, and 0 means all."""
        add(log, "a", events(*"ab"), keep=5)
        add(log, "a", events(*"cd"), keep=0)
        assert log.read("a", START).total == 4
        assert log.read("a", START).missed == 0

    # Idempotency

    def test_a_key_adds_once(self, log: Log) -> None:
        """The same key with the same events adds nothing and returns the offset of the first call."""
        first = add(log, "a", events("1", "2"), key="k")
        after = add(log, "a", events("3"))
        assert add(log, "a", events("1", "2"), key="k") == first
        assert texts(log.read("a", START)) == ["1", "2", "3"]
        assert log.read("a", START).tail == after

    @pytest.mark.parametrize(
        "again",
        [events("1"), events("1", "2", "3"), events("2", "1"), [Event(b"1", "other"), Event(b"2", "note")]],
        ids=["fewer", "more", "order", "type"],
    )
    def test_a_key_with_other_events_is_refused(self, log: Log, again: list[Event]) -> None:
        """A key that came before with anything else raises KeyReused and adds nothing."""
        add(log, "a", events("1", "2"), key="k")
        with pytest.raises(KeyReused):
            add(log, "a", again, key="k")
        assert texts(log.read("a", START)) == ["1", "2"]

    def test_an_events_own_id_does_not_make_it_another(self, log: Log) -> None:
        """An id that the log replaces anyway does not count when a retry is compared."""
        first = add(log, "a", [Event(b"1", id="x")], key="k")
        assert add(log, "a", [Event(b"1", id="y")], key="k") == first

    def test_a_key_belongs_to_its_log(self, log: Log) -> None:
        """The same key elsewhere is another key, and so it is after the log was deleted."""
        add(log, "a", events("1"), key="k")
        add(log, "b", events("2"), key="k")
        log.delete("a")
        add(log, "a", events("3"), key="k")
        assert texts(log.read("a", START)) == ["3"]
        assert texts(log.read("b", START)) == ["2"]

    def test_a_retry_is_answered_after_the_end(self, log: Log) -> None:
        """Who repeats its last append because the answer was lost gets it, also when the log was closed meanwhile."""
        first = add(log, "a", events("1"), key="k")
        log.close("a")
        assert add(log, "a", events("1"), key="k") == first

    def test_keys_go_with_their_events(self, log: Log) -> None:
        """Keys do not pile up beside a bounded log: one whose events are gone may come anew."""
        add(log, "a", events("1"), key="k", keep=2)
        add(log, "a", events("2", "3"), keep=2)
        add(log, "a", events("4"), key="k", keep=2)
        assert texts(log.read("a", START)) == ["3", "4"]

    # Waiting

    def test_wait_returns_at_once_when_there_is_something(self, log: Log) -> None:
        """Nothing is waited for that is already there: events after the offset, or the end."""
        first = add(log, "a", events("1"))
        last = add(log, "a", events("2"))
        begun = time.monotonic()
        assert log.wait("a", START, 30)
        assert log.wait("a", first, 30)
        log.close("a")
        assert log.wait("a", last, 30)
        assert time.monotonic() - begun < WAKE_S

    @pytest.mark.parametrize("name", ["a", "nothing here"])
    def test_wait_ends_after_its_time_and_is_idle(self, log: Log, name: str) -> None:
        """With nothing to come, wait returns after its time-out and does not spin until then; an echo may wake it."""
        tail = add(log, "a", events("1")) if name == "a" else START
        begun, busy = time.monotonic(), time.thread_time()
        woken = 0
        while (left := begun + 0.3 - time.monotonic()) > 0:
            woken += log.wait(name, tail, left)
        assert woken <= 2
        assert time.thread_time() - busy < 0.1

    @pytest.mark.parametrize("before", [True, False], ids=["a log", "no log yet"])
    def test_an_append_wakes_who_waits(self, log: Log, before: bool) -> None:
        """Who waits, also for a log that is not there yet, is told of the first append."""
        tail = add(log, "a", events("0")) if before else START
        with meanwhile(lambda: log.wait("a", tail, 30)) as woken:
            begun = time.monotonic()
            add(log, "a", events("1"))
        assert woken == [True]
        assert time.monotonic() - begun < WAKE_S
        assert texts(log.read("a", tail)) == ["1"]

    def test_close_wakes_who_waits(self, log: Log) -> None:
        """The end is something to be told."""
        tail = add(log, "a", events("0"))
        with meanwhile(lambda: log.wait("a", tail, 30)) as woken:
            begun = time.monotonic()
            log.close("a")
        assert woken == [True]
        assert time.monotonic() - begun < WAKE_S

    def test_a_reader_beside_a_writer_sees_each_event_once(self, log: Log) -> None:
        """Read, and wait when there is nothing: the loop that is both replay and live loses and doubles nothing."""

        def follow() -> list[str]:
            seen: list[str] = []
            after = START
            while True:
                batch = log.read("a", after, limit=7)
                seen += texts(batch)
                after = batch.events[-1].id if batch.events else after
                if after == batch.tail and batch.closed:
                    return seen
                log.wait("a", after, 1.0)

        expected = [str(number) for number in range(300)]
        with meanwhile(follow) as seen:
            for number in range(0, 300, 3):
                add(log, "a", events(*expected[number : number + 3]))
            log.close("a")
        assert seen == [expected]

    # Housekeeping

    @pytest.mark.parametrize("prefix", ["up/", "u%/", "u_/", "u\\/", "ü/"])
    def test_expire_takes_a_prefix_as_it_is(self, log: Log, prefix: str) -> None:
        """Only what begins with the very characters is deleted: % and _ are no patterns, and case counts."""
        inside = [prefix + "1", prefix + "2", prefix]
        outside = ["other", "up", "uX/1", "UP/1", "x" + prefix]
        for path in inside + outside:
            add(log, path, events("1"))
        assert log.expire(prefix, 0) == 3
        assert [log.read(path, START).total for path in inside] == [0, 0, 0]
        assert [log.read(path, START).total for path in outside] == [1] * len(outside)

    def test_paths_come_in_order_and_pages(self, log: Log) -> None:
        """Those that begin with the very characters of the prefix, after a path, so many at a time."""
        names = ["a", "a/", "a/1", "a/10", "a/2", "a/🙂", "a0", "b", "ä", "a%", "a_", "A", "a/～"]
        for name in names:
            log.create(name, Config())
        under = sorted(name for name in names if name.startswith("a/"))
        assert list(log.paths("a/")) == under
        assert list(log.paths("")) == sorted(names)
        for at, name in enumerate(under):
            assert list(log.paths("a/", after=name)) == under[at + 1 :]
            assert list(log.paths("a/", after=name, limit=1)) == under[at + 1 : at + 2]
        assert list(log.paths("a/", after="0")) == under
        assert list(log.paths("a/", after="b")) == []
        assert list(log.paths("a/", limit=0)) == []
        log.delete("a/1")
        assert list(log.paths("a/1")) == ["a/10"]

    def test_expire_spares_what_was_touched(self, log: Log) -> None:
        """What is younger than the age stays; closed or open makes no difference."""
        add(log, "a/1", events("1"))
        add(log, "a/2", events("1"))
        log.close("a/2")
        assert log.expire("a/", 3600) == 0
        assert log.expire("a/", 0) == 2

    def test_a_store_that_answers_is_pinged(self, log: Log) -> None:
        """Ping returns when all is well."""
        log.ping()
        add(log, "a", events("1"))
        log.ping()

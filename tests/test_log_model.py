"""Each log against a model that keeps whole copies: any sequence of calls has the same answers and the same errors."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from stores import sqlite_log
from stores.base import BEGINNING, START, Append, Config, Log, Producer
from stores.errors import (
    BadFork,
    NewEpoch,
    NoStream,
    SequenceGap,
    SequenceRegression,
    StaleEpoch,
    StoreError,
    StreamClosed,
    StreamExists,
    StreamGone,
    UnknownOffset,
)
from stores.memory import MemoryLog
from stores.sqlite_log import SQLiteLog
from streaming.events import Event

TEXT = Config("text/plain")
PATHS = st.sampled_from(["a", "b", "c", "d"])
DATA = st.lists(st.binary(max_size=3), max_size=3)


@dataclass
class Stream:
    """``events``: number, data and offset of each that is kept; ``count``: of all that ever were."""

    config: Config = TEXT
    events: list[tuple[int, bytes, str]] = field(default_factory=list)
    count: int = 0
    tail: str = START
    closed: bool = False
    seq: str = ""
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    source: Stream | None = None
    forks: int = 0
    deleted: bool = False


def identity(config: Config) -> Config:
    """What of a configuration makes two of them the same: all but the retention."""
    return replace(config, keep_events=0)


class Machine(RuleBasedStateMachine):
    """Subclasses open ``log``."""

    log: Log

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[str, Stream] = {}
        self.offsets = [START, BEGINNING, "x"]

    def attempt(self, path: str, expected: type[StoreError] | None, work: object) -> object:
        """Do ``work``, which is to raise ``expected``; None when it did."""
        if expected is None:
            return work()  # type: ignore[operator]
        with pytest.raises(expected) as failed:
            work()  # type: ignore[operator]
        assert type(failed.value) is expected
        return None

    def added(self, path: str, stream: Stream, data: list[bytes], keep: int) -> None:
        """Take the offsets of what was added from the log, and hold them to sort after all before."""
        new = self.log.read(path, stream.tail).events[-len(data) :] if data else ()
        for event, each in zip(new, data[-len(new) :] if new else (), strict=True):
            assert (event.data, event.id > stream.tail) == (each, True)
            stream.tail = event.id
            self.offsets.append(event.id)
        first = stream.count + len(data) - len(new) + 1
        stream.events += [(first + n, event.data, event.id) for n, event in enumerate(new)]
        stream.count += len(data)
        if keep:
            stream.events = stream.events[-keep:]

    @rule(path=PATHS, data=DATA, closed=st.booleans(), ttl=st.sampled_from([None, 3600]))
    def create(self, path: str, data: list[bytes], closed: bool, ttl: int | None) -> None:
        stream, config = self.streams.get(path), replace(TEXT, ttl_s=ttl)
        same = stream and not stream.deleted and identity(stream.config) == config and stream.closed == closed
        state = self.attempt(
            path,
            StreamExists if stream and not same else None,
            lambda: self.log.create(path, config, [Event(each) for each in data], closed=closed),
        )
        if stream is None:
            assert state.created  # type: ignore[attr-defined]
            self.streams[path] = made = Stream(config, closed=closed)
            self.added(path, made, data, 0)

    @rule(path=PATHS, source=PATHS, at=st.integers(0, 30), sub=st.integers(0, 4), data=DATA)
    def fork(self, path: str, source: str, at: int, sub: int, data: list[bytes]) -> None:
        held = self.streams.get(source)
        places = [*self.offsets[:3], *[each[2] for each in held.events if held]] if held else self.offsets
        place = places[at % len(places)]
        config = replace(TEXT, forked_from=source, fork_offset=place, fork_sub_offset=sub)
        if path in self.streams:
            if identity(self.streams[path].config) != config:
                self.attempt(path, StreamExists, lambda: self.log.create(path, config))
            return
        shared, part, expected = self.inherited(held, place, sub)
        self.attempt(path, expected, lambda: self.log.create(path, config, [Event(each) for each in data]))
        if held is None or expected:
            return
        held.forks += 1
        made = Stream(config, list(held.events[:shared]), source=held)
        dropped = held.count - len(held.events)
        made.count = dropped + shared if held.events[:shared] or place != BEGINNING else 0
        made.tail = made.events[-1][2] if made.events else held.tail if made.count else START
        if not made.events:
            made.tail = START if place == BEGINNING or not made.count else (place or held.tail)
        self.streams[path] = made
        self.added(path, made, [*([part] if part else []), *data], 0)

    @staticmethod
    def inherited(held: Stream | None, place: str, sub: int) -> tuple[int, bytes, type[StoreError] | None]:
        """Return how many of the source's kept events are shared, the part of the next, or the error."""
        if held is None or held.deleted:
            return 0, b"", StreamGone if held else NoStream
        ids = [each[2] for each in held.events]
        dropped = held.count - len(ids)
        if place == BEGINNING:
            shared, next_there = 0, not dropped
        elif place in ("", *ids):
            shared, next_there = ids.index(place) + 1 if place else len(ids), True
        else:
            return 0, b"", BadFork
        if not sub:
            return shared, b"", None
        if not next_there or shared == len(ids) or sub > len(held.events[shared][1]):
            return 0, b"", BadFork
        data = held.events[shared][1]
        return (shared + 1, b"", None) if sub == len(data) else (shared, data[:sub], None)

    @rule(
        path=PATHS,
        data=DATA,
        producer=st.none() | st.builds(Producer, st.sampled_from("pq"), st.integers(0, 2), st.integers(0, 3)),
        seq=st.sampled_from(["", "", "a", "b", "c"]),
        close=st.booleans() | st.just(False),
        keep=st.sampled_from([None, None, None, 0, 2]),
    )
    def append(
        self, path: str, data: list[bytes], producer: Producer | None, seq: str, close: bool, keep: int | None
    ) -> None:
        stream = self.streams.get(path)
        config = None if keep is None else replace(TEXT, keep_events=keep)
        duplicate, expected = self.admitted(stream, data, producer, seq, close, config)
        done = self.attempt(
            path,
            expected,
            lambda: self.log.append(
                path, [Event(each) for each in data], create=config, producer=producer, seq=seq, close=close
            ),
        )
        if expected:
            return
        assert done.duplicate is duplicate  # type: ignore[attr-defined]
        if duplicate:
            return
        stream = self.streams.setdefault(path, Stream())
        if config:
            stream.config = replace(stream.config, keep_events=keep or 0)
        if producer:
            stream.marks[producer.id] = (producer.epoch, producer.seq)
        stream.seq, stream.closed = seq or stream.seq, stream.closed or close
        self.added(path, stream, data, stream.config.keep_events)
        assert done.tail == stream.tail  # type: ignore[attr-defined]

    @rule(
        data=st.dictionaries(PATHS, DATA, min_size=1),
        close=st.sampled_from([False, False, False, True]),
        ahead=st.sampled_from([1, 1, 1, 1, 0, 2]),
        epoch=st.sampled_from([0, 0, 0, 1]),
    )
    def append_each(self, data: dict[str, list[bytes]], close: bool, ahead: int, epoch: int) -> None:
        appends = []
        for path, new in data.items():
            highest = self.streams.get(path, Stream()).marks.get("p", (epoch, -1))[1]
            producer = Producer("p", epoch, max(highest + ahead, 0))
            appends.append(Append(path, [Event(each) for each in new], producer, close))
        told = self.log.append_each(appends)
        for append, refused in zip(appends, told, strict=True):
            path, stream, new = append.path, self.streams.get(append.path), data[append.path]
            duplicate, expected = self.admitted(stream, new, append.producer, "", close, None)
            assert (type(refused) if refused else None) is expected
            if stream and append.producer and not (duplicate or expected):
                stream.marks["p"] = (epoch, append.producer.seq)
                stream.closed |= close
                self.added(path, stream, new, stream.config.keep_events)

    @staticmethod
    def admitted(
        stream: Stream | None,
        data: list[bytes],
        producer: Producer | None,
        seq: str,
        close: bool,
        config: Config | None,
    ) -> tuple[bool, type[StoreError] | None]:
        """Return whether the append is a duplicate, and the error it is to raise: the protocol's 5.2."""
        if stream is None and config is None:
            return False, NoStream
        if stream and stream.deleted:
            return False, StreamGone
        stream = stream or Stream()
        epoch, highest = stream.marks.get(producer.id, (None, -1)) if producer else (None, -1)
        if producer and producer.epoch == epoch and producer.seq <= highest:
            return True, None
        if stream.closed and (data or not close or producer):
            return False, StreamClosed
        if producer and epoch is not None and producer.epoch < epoch:
            return False, StaleEpoch
        if producer and epoch is not None and producer.epoch > epoch and producer.seq:
            return False, NewEpoch
        if producer and producer.seq != (highest + 1 if producer.epoch == epoch else 0):
            return False, SequenceGap
        return False, SequenceRegression if seq and stream.seq >= seq else None

    @rule(path=PATHS)
    def delete(self, path: str) -> None:
        stream = self.streams.get(path)
        gone = stream is not None and stream.deleted
        deleted = self.attempt(path, StreamGone if gone else None, lambda: self.log.delete(path))
        if gone or stream is None:
            assert not deleted
            return
        assert deleted
        stream.deleted = True
        while stream and stream.deleted and not stream.forks:
            self.streams = {name: each for name, each in self.streams.items() if each is not stream}
            stream = stream.source
            if stream:
                stream.forks -= 1

    @rule(path=PATHS, at=st.integers(0, 200), limit=st.integers(0, 5), limit_bytes=st.integers(0, 9))
    def read(self, path: str, at: int, limit: int, limit_bytes: int) -> None:
        after = self.offsets[at % len(self.offsets)]
        stream = self.streams.get(path)
        if stream and stream.deleted:
            self.attempt(path, StreamGone, lambda: self.log.read(path, after))
            return
        stream = stream or Stream()
        known = {START: 0, stream.tail: stream.count} | {each[2]: each[0] for each in stream.events}
        if after not in known:
            with pytest.raises(UnknownOffset) if not self.dropped(stream, after) else _anything():
                self.log.read(path, after)
            return
        batch = self.log.read(path, after, limit, limit_bytes)
        following = [(data, id) for number, data, id in stream.events if number > known[after]]
        shown: list[tuple[bytes, str]] = []
        for each in following[:limit]:
            if shown and sum(len(data) for data, _ in [*shown, each]) > limit_bytes:
                break
            shown.append(each)
        assert [(event.data, event.id) for event in batch.events] == shown
        first = stream.count - len(stream.events)
        assert batch.missed == max(first - known[after], 0)
        assert (batch.tail, batch.closed, batch.total) == (stream.tail, stream.closed, len(stream.events))

    @staticmethod
    def dropped(stream: Stream, after: str) -> bool:
        """Whether ``after`` may be an offset of an event that is no longer kept, of which the model knows nothing."""
        return bool(stream.count - len(stream.events)) and after[:12].isdigit()

    @invariant()
    def the_paths_are_those(self) -> None:
        there = sorted(path for path, stream in self.streams.items() if not stream.deleted)
        assert list(self.log.paths("")) == there

    def teardown(self) -> None:
        self.log.dispose()


class _anything:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> bool:
        return True


class MemoryMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()


class SQLiteMachine(Machine):
    """Two workers in turn, each of which has staged what the other one knows nothing of."""

    log: SQLiteLog

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "streams.db"
        sqlite_log.prepare(path)
        self.log, self.other = SQLiteLog(path), SQLiteLog(path)

    @rule()
    def another_worker(self) -> None:
        self.log, self.other = self.other, self.log

    @rule()
    def settle(self) -> None:
        self.log._commits.do(self.log._batches.settle)

    def teardown(self) -> None:
        super().teardown()
        self.other.dispose()
        self.folder.cleanup()


@pytest.mark.parametrize(("machine", "examples"), [(MemoryMachine, 150), (SQLiteMachine, 40)])
def test_a_log_is_what_the_model_says(machine: type[Machine], examples: int) -> None:
    """Creating, forking, appending, deleting and reading in any order."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )

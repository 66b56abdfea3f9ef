"""A log in the memory of one process: for tests, and for one worker whose streams may end with it."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

from stores import lifetimes, offsets, producers
from stores.base import BEGINNING, START, Append, Appended, Batch, Config, Create, Producer, State
from stores.bells import Bells
from stores.errors import BadFork, NoStream, StoreError, StreamExists, StreamGone, UnknownOffset
from stores.memory_stream import Stream
from stores.producers import Asked
from streaming.events import Event


class MemoryLog:
    """``stores.base.Log``, kept nowhere. ``clock``: the time in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self._bells = Bells()
        # Greenlets need none; threads that are not gevent's do.
        self._lock = threading.RLock()

    def create(self, path: str, config: Config, events: Sequence[Event] = (), *, closed: bool = False) -> State:
        with self._lock:
            try:
                stream = self._find(path)
            except StreamGone as error:
                raise StreamExists("The stream was deleted, and forks still read from it.") from error
            if stream is None:
                stream = self._make(path, config)
                self._add(stream, events, closed)
                return stream.state(created=True)
            asked = any(lifetimes.same(config, each) for each in (stream.asked, stream.config))
            if not asked or stream.closed != closed:
                raise StreamExists("The stream exists with another configuration.")
            return stream.state()

    def create_each(self, creates: Sequence[Create]) -> None:
        for path, config, events in creates:
            self.create(path, config, events)

    def append(
        self,
        path: str,
        events: Sequence[Event],
        *,
        create: Config | None = None,
        content_type: str = "",
        producer: Producer | None = None,
        seq: str = "",
        key: str = "",
        close: bool = False,
    ) -> Appended:
        asked = Asked(events, content_type, producer, seq, key, close)
        with self._lock:
            stream = self._find(path)
            if stream is None and create is None:
                raise NoStream("There is no stream at this path.")
            standing = stream.standing(asked) if stream else producers.nothing(create or Config())
            if stream and (repeated := producers.duplicate(standing, asked)) is not None:
                offset = offsets.of_number(repeated, stream.chain)
                return Appended(offset, standing.tail, True, stream.closed, standing.highest)
            producers.check(standing, asked)
            stream = stream or self._make(path, create or Config())
            if create:
                stream.config = lifetimes.retaining(stream.config, create)
            stream.mark(asked)
            self._add(stream, events, close)
            tail = stream.state().tail
            return Appended(tail, tail, False, stream.closed, producer.seq if producer else None)

    def append_each(self, appends: Sequence[Append]) -> Sequence[StoreError | None]:
        return [self._refusal(append) for append in appends]

    def state(self, path: str) -> State:
        with self._lock:
            stream = self._find(path)
            if stream is None:
                raise NoStream("There is no stream at this path.")
            stream.retain(self._clock())
            return stream.state()

    def read(self, path: str, after: str, limit: int = 1000, limit_bytes: int = 2**20) -> Batch:
        with self._lock:
            stream = self._find(path)
            if stream is None:
                offsets.to_number(after, ())
                return Batch((), 0, START, False, 0)
            number = offsets.to_number(after, stream.chain)
            if stream.config.ttl_s is not None:
                stream.touched = self._clock()
            stream.retain(self._clock())
            missed = max(stream.first - 1 - number, 0)
            events: list[Event] = []
            for each in range(max(number + 1, stream.first), min(stream.tail, number + missed + limit) + 1):
                event = stream.event(each)[0]
                limit_bytes -= len(event.data)
                if limit_bytes < 0 and events:
                    break
                events.append(event)
            state = stream.state()
            return Batch(tuple(events), missed, state.tail, stream.closed, state.total)

    def since(self, path: str, time_s: float) -> str:
        with self._lock:
            stream = self._find(path)
            if stream is None:
                return START
            stream.retain(self._clock())
            kept = range(stream.first, stream.tail + 1)
            place = bisect_left(kept, time_s, key=lambda number: stream.place(number).time_s)
            # Before the first one that is kept nobody knows when it was: all of it may be what is asked for.
            return offsets.of_number(stream.first + place - 1, stream.chain) if place else START

    def wait(self, path: str, after: str, timeout_s: float) -> bool:
        return self._bells.wait(path, lambda: self._ready(path, after), timeout_s)

    def close(self, path: str) -> None:
        with self._lock:
            self.append(path, (), create=None if self._find(path) else Config(), close=True)

    def delete(self, path: str) -> bool:
        with self._lock:
            stream = self._find(path)
            if stream is not None:
                self._forget(stream)
            return stream is not None

    def paths(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[str]:
        with self._lock:
            now = self._clock()
            found = [
                path
                for path, stream in self._streams.items()
                if path.startswith(prefix) and path > after and not stream.deleted and not stream.expired(now)
            ]
        return sorted(found)[:limit]

    def expire(self, prefix: str = "", untouched_s: float | None = None) -> int:
        with self._lock:
            now = self._clock()
            idle = -1.0 if untouched_s is None else now - untouched_s
            old = [
                stream
                for path, stream in self._streams.items()
                if not stream.deleted and (stream.expired(now) or (path.startswith(prefix) and stream.touched <= idle))
            ]
            for stream in old:
                self._forget(stream)
            for stream in self._streams.values():
                stream.retain(now)
        return len(old)

    def ping(self) -> None: ...

    def waiting(self) -> int:
        return 0  # nothing waits for a list

    def dispose(self) -> None:
        self._bells.ring_all()

    def _refusal(self, append: Append) -> StoreError | None:
        try:
            self.append(append.path, append.events, producer=append.producer, close=append.close)
        except StoreError as error:
            return error
        return None

    def _find(self, path: str) -> Stream | None:
        """Return the stream, None when there is none or its time has come. Raises StreamGone."""
        stream = self._streams.get(path)
        if stream and not stream.deleted and stream.expired(self._clock()):
            self._forget(stream)
            stream = self._streams.get(path)
        if stream and stream.deleted:
            raise StreamGone("This stream was deleted.")
        return stream

    def _make(self, path: str, config: Config) -> Stream:
        """Return the new stream, with what it inherits. Raises NoStream, StreamGone, BadFork, WrongType."""
        now = self._clock()
        stream = Stream(path, config, config, time_s=now) if not config.forked_from else self._fork(path, config)
        stream.touched = now
        self._streams[path] = stream
        return stream

    def _fork(self, path: str, asked: Config) -> Stream:
        source = self._find(asked.forked_from)
        if source is None:
            raise NoStream("There is no stream to fork at this path.")
        source.retain(self._clock())
        try:
            wanted = START if asked.fork_offset == BEGINNING else asked.fork_offset or source.state().tail
            number = offsets.to_number(wanted, source.chain)
        except UnknownOffset as error:
            raise BadFork(str(error)) from error
        config = lifetimes.forked(asked, source.config, wanted or BEGINNING)
        event = lambda n: source.event(n)[0] if n >= source.first else None  # noqa: E731
        base, part = lifetimes.inherited(config, number, source.tail, event)
        end = source.end if base == source.tail else source.place(base + 1).start if base + 1 >= source.first else 0
        stream = Stream(path, config, asked, source, base, min(source.first, base + 1), end, source.time_s)
        stream.add([part] if part else [], self._clock())
        source.forks += 1
        return stream

    def _add(self, stream: Stream, events: Sequence[Event], close: bool) -> None:
        stream.touched = self._clock()
        stream.add(events, stream.touched)
        stream.retain(stream.touched)
        stream.closed |= close
        self._bells.ring(stream.path)

    def _forget(self, stream: Stream) -> None:
        """Delete the stream, and with its last fork a source that was deleted before."""
        stream.deleted = True
        self._bells.ring(stream.path)
        if stream.forks:
            return
        del self._streams[stream.path]
        if source := stream.source:
            source.forks -= 1
            if source.deleted:
                self._forget(source)

    def _ready(self, path: str, after: str) -> bool:
        with self._lock:
            try:
                stream = self._find(path)
            except StreamGone:
                return True
            if stream is None:
                return after != START
            return stream.closed or offsets.of_number(stream.tail, stream.chain) != after

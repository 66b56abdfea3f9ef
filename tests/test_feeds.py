"""A feed: a blocking iterator in a greenlet of its own, read as a source."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import gevent.event
import pytest

from streaming import feeds
from streaming.events import Event
from streaming.feeds import Feed

ITEMS = [Event(b"%d" % n) for n in range(10)]


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "TICK_S", 0.02)


def real(feed: Feed) -> list[Event]:
    return [item for item in feed if item is not None]


def test_a_feed_gives_what_its_iterator_gives() -> None:
    """In order, to the end, which stays the end."""
    feed = Feed(lambda: iter(ITEMS))
    assert real(feed) == ITEMS
    assert next(feed, "end") == "end"
    feed.close()


def test_more_items_than_the_queue_holds() -> None:
    """The bound holds nothing back for good."""
    many = [Event(b"%d" % n) for n in range(1000)]
    assert real(Feed(lambda: iter(many), ahead=3)) == many


def test_a_slow_reader_holds_up_its_producer() -> None:
    """However much could come, at most the queue's bound and one more are made ahead."""
    made = []

    def producer() -> Iterator[Event]:
        for item in ITEMS * 100:
            made.append(item)
            yield item

    feed = Feed(producer, ahead=4)
    next(feed)
    gevent.sleep(0.05)
    assert len(made) <= 6
    feed.close()


def test_a_feed_is_none_before_and_while_it_waits() -> None:
    """At once when there is nothing, so that what was read is written; then at each tick."""
    go = gevent.event.Event()

    def producer() -> Iterator[Event]:
        yield ITEMS[0]
        go.wait()
        yield ITEMS[1]

    feed = Feed(producer)
    gevent.sleep(0)
    assert next(feed) == ITEMS[0]
    begun = time.monotonic()
    assert next(feed) is None
    assert time.monotonic() - begun < 0.015
    assert next(feed) is None
    assert next(feed) is None
    assert 0.03 < time.monotonic() - begun < 1
    go.set()
    assert real(feed) == [ITEMS[1]]


def test_what_the_iterator_raises_is_raised_by_reading() -> None:
    """After the items before it, once; then the feed has ended."""

    def producer() -> Iterator[Event]:
        yield ITEMS[0]
        raise KeyError("mine")

    feed = Feed(producer)
    read: list[Event | None] = []
    with pytest.raises(KeyError, match="mine"):
        read.extend(feed)
    assert [item for item in read if item] == [ITEMS[0]]
    assert next(feed, "end") == "end"


def test_what_making_the_iterator_raises_is_raised_too() -> None:
    """``make`` runs in the producer's greenlet; its failure is no other."""

    def make() -> Iterator[Event]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        real(Feed(make))


def test_a_time_out_in_the_producer_is_told() -> None:
    """gevent.Timeout is no Exception: untold, the reader would wait for ever."""

    def producer() -> Iterator[Event]:
        yield ITEMS[0]
        with gevent.Timeout(0.01):
            gevent.sleep(5)

    with gevent.Timeout(2), pytest.raises(TimeoutError):
        real(Feed(producer))


@pytest.mark.parametrize("where", ["waiting", "full", "fresh"])
def test_close_ends_the_producer(where: str) -> None:
    """Where it waits for its library, or for a place in the queue, or has not begun: its ``finally`` has run."""
    ended = []

    def producer() -> Iterator[Event]:
        try:
            while where == "full":
                yield ITEMS[0]
            gevent.sleep(30)
        finally:
            ended.append(True)

    feed = Feed(producer, ahead=2)
    if where != "fresh":
        gevent.sleep(0.01)
    feed.close()
    assert ended == ([] if where == "fresh" else [True])
    assert next(feed, "end") == "end"
    feed.close()


def test_close_closes_an_iterator_that_is_no_generator() -> None:
    """A library's response object has a ``close`` of its own, which ends its connection."""
    closed = []

    class Answer:
        def __iter__(self) -> Answer:
            return self

        def __next__(self) -> Event:
            gevent.sleep(30)
            raise StopIteration

        def close(self) -> None:
            closed.append(True)

    feed = Feed(Answer)
    gevent.sleep(0.01)
    feed.close()
    assert closed == [True]


def test_an_iterator_is_closed_at_its_end_too() -> None:
    """Once, also when it fails."""
    closed = []

    class Answer:
        def __init__(self, failure: type[Exception]) -> None:
            self.failure = failure

        def __iter__(self) -> Answer:
            return self

        def __next__(self) -> Event:
            raise self.failure

        def close(self) -> None:
            closed.append(self.failure)

    assert real(Feed(lambda: Answer(StopIteration))) == []
    with pytest.raises(KeyError):
        real(Feed(lambda: Answer(KeyError)))
    assert closed == [StopIteration, KeyError]

"""Whether an append happens: the decision that every store takes from a stream as it stands, and how it is retried.

Rules:
- Pure: a store looks up what ``Standing`` says and decides in the very step that appends.
- Who repeats an append because its answer was lost gets that answer, also when the stream has been closed since: a
  duplicate is told before anything else is looked at (Durable Streams protocol, 5.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stores.base import START, Config, Producer
from stores.errors import KeyReused, NewEpoch, SequenceGap, SequenceRegression, StaleEpoch, StreamClosed, WrongType
from streaming.events import Event

Content = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A producer's last append to a stream; ``number``: of its last event."""

    epoch: int
    seq: int
    number: int


@dataclass(frozen=True, slots=True)
class Keyed:
    """The append that came with an idempotency key: the numbers of its first and last event, and what they held."""

    first: int
    last: int
    content: Content


@dataclass(frozen=True, slots=True)
class Standing:
    """A stream as an append finds it. ``seq``: the last writer's sequence; ``mark``, ``keyed``: of those that ask."""

    tail: str
    closed: bool
    content_type: str
    seq: str
    mark: Mark | None = None
    keyed: Keyed | None = None

    @property
    def highest(self) -> int | None:
        """The producer's highest sequence number."""
        return self.mark.seq if self.mark else None


@dataclass(frozen=True, slots=True)
class Asked:
    """What an append brings."""

    events: Sequence[Event]
    content_type: str = ""
    producer: Producer | None = None
    seq: str = ""
    key: str = ""
    close: bool = False


def media_type(content_type: str) -> str:
    """Return the type without its parameters, in lower case: two that are equal in this are the same type."""
    return content_type.partition(";")[0].strip().lower()


def nothing(config: Config) -> Standing:
    """Return how an append finds the stream that it makes itself."""
    return Standing(START, False, config.content_type, "")


def content(events: Sequence[Event]) -> Content:
    """What of ``events`` counts when a retry is compared; the ids are replaced anyway."""
    return [(event.type, bytes(event.data)) for event in events]


def duplicate(standing: Standing, asked: Asked) -> int | None:
    """Return the number of the last event of the earlier append that this one repeats; None when it is new.

    Of a producer's appends only the last one's place is kept; an older one's is told as that.
    """
    mark, producer, keyed = standing.mark, asked.producer, standing.keyed
    if mark and producer and producer.epoch == mark.epoch and producer.seq <= mark.seq:
        return mark.number
    if keyed and keyed.content == content(asked.events):
        return keyed.last
    return None


def check(standing: Standing, asked: Asked) -> None:
    """Return when what is no duplicate may be appended. Raises what ``Log.append`` names, in that order."""
    close_only = asked.close and not asked.events and asked.producer is None
    if standing.closed and not close_only:
        raise StreamClosed(standing.tail)
    if asked.content_type and media_type(asked.content_type) != media_type(standing.content_type):
        raise WrongType(f"This stream's content type is {standing.content_type}.")
    if asked.producer:
        _check_producer(standing.mark, asked.producer)
    if asked.seq and standing.seq and asked.seq.encode() <= standing.seq.encode():
        raise SequenceRegression("The sequence is not greater than the last one.")
    if standing.keyed:
        raise KeyReused("This idempotency key came before with another body.")


def _check_producer(mark: Mark | None, producer: Producer) -> None:
    """The table of the protocol's 5.2.1; a producer that is new may begin in any epoch."""
    if mark and producer.epoch < mark.epoch:
        raise StaleEpoch(mark.epoch)
    if mark and producer.epoch > mark.epoch and producer.seq:
        raise NewEpoch("A producer's new epoch begins with sequence number 0.")
    expected = mark.seq + 1 if mark and producer.epoch == mark.epoch else 0
    if producer.seq != expected:
        raise SequenceGap(expected, producer.seq)

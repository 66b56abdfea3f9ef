"""What a store refuses or fails with: one tree, whose root is ``StoreError``.

Their texts are sentences that a caller may show. ``streaming.durable_errors`` says what each becomes.
"""

from __future__ import annotations


class StoreError(Exception):
    """The root of what a store can say: its text is one sentence that a caller may show."""


class StoreBusy(StoreError):
    """The store did not answer in time; the same call may succeed later."""


class StoreFull(StoreError):
    """No space is left."""


class NoStream(StoreError):
    """There is no stream at this path: never made, deleted, or expired."""


class StreamGone(StoreError):
    """A stream that was deleted while forks still read from it."""


class StreamExists(StoreError):
    """A stream that exists with another configuration."""


class BadFork(StoreError):
    """A fork at a place that its source does not have."""


class WrongType(StoreError):
    """An append whose content type is not the stream's."""


class StreamClosed(StoreError):
    """An append to a stream that was closed at ``tail``."""

    def __init__(self, tail: str) -> None:
        super().__init__("This stream is closed.")
        self.tail = tail


class UnknownOffset(StoreError):
    """An offset that this stream never gave out."""


class KeyReused(StoreError):
    """An idempotency key that came before with other events."""


class StaleEpoch(StoreError):
    """A producer that another one with the same id has replaced, in ``epoch``."""

    def __init__(self, epoch: int) -> None:
        super().__init__("Another producer has taken over this producer id.")
        self.epoch = epoch


class NewEpoch(StoreError):
    """A producer's new epoch that does not begin with sequence number 0."""


class SequenceGap(StoreError):
    """A producer's sequence number that comes too early."""

    def __init__(self, expected: int, received: int) -> None:
        super().__init__(f"The producer's next sequence number is {expected}, and {received} came.")
        self.expected = expected
        self.received = received


class SequenceRegression(StoreError):
    """A writer's ``seq`` that is not greater than the last one."""


class UnknownTable(StoreError):
    """A table that does not exist or may not be read."""


class UnknownColumn(StoreError):
    """A column that its table does not have."""


class BadKey(StoreError):
    """An ``after`` that cannot be a value of the table's key."""


class BadFilter(StoreError):
    """A condition whose value cannot be one of its column; ``column`` and ``operator`` say which."""

    def __init__(self, sentence: str, column: str, operator: str) -> None:
        super().__init__(sentence)
        self.column = column
        self.operator = operator


class NameTaken(StoreError):
    """A file of the name that was asked for exists."""


class NoUpload(StoreError):
    """There is no upload of this id: never made, ended by its client, or expired."""


class PartMissing(StoreError):
    """A part that a final upload is made of has gone, or is no partial upload."""

"""What the Durable Streams protocol says of what a log refuses: status and headers, one row for each error.

NoStream            404
StreamGone          410, and 409 for the source of a fork (4.2)
StreamExists        409  the path is taken
BadFork             400
WrongType           409
StreamClosed        409  Stream-Closed, Stream-Next-Offset
UnknownOffset       400
StaleEpoch          403  Producer-Epoch
NewEpoch            400
SequenceGap         409  Producer-Expected-Seq, Producer-Received-Seq
SequenceRegression  409
StoreFull           507
StoreBusy, others   503  with Retry-After
"""

from __future__ import annotations

from stores.errors import (
    BadFork,
    NewEpoch,
    NoStream,
    SequenceGap,
    SequenceRegression,
    StaleEpoch,
    StoreError,
    StoreFull,
    StreamClosed,
    StreamExists,
    StreamGone,
    UnknownOffset,
    WrongType,
)
from streaming.durable_answers import marks
from streaming.errors import BadRequest, Conflict, DiskFull, Forbidden, Gone, NotFound, Problem, Unavailable

_PROBLEMS: dict[type[StoreError], type[Problem]] = {
    NoStream: NotFound,
    StreamGone: Gone,
    StreamExists: Conflict,
    BadFork: BadRequest,
    WrongType: Conflict,
    StreamClosed: Conflict,
    UnknownOffset: BadRequest,
    StaleEpoch: Forbidden,
    NewEpoch: BadRequest,
    SequenceGap: Conflict,
    SequenceRegression: Conflict,
    StoreFull: DiskFull,
}


def problem(error: StoreError) -> Problem:
    """Return the answer to what was refused."""
    kind = _PROBLEMS.get(type(error))
    if kind is None:
        return Unavailable(str(error), retry_after_s=1)
    parameter = "offset" if isinstance(error, UnknownOffset) else ""
    return kind(str(error), parameter=parameter, headers=_headers(error))


def _headers(error: StoreError) -> dict[str, str]:
    if isinstance(error, StreamClosed):
        return marks(error.tail, closed=True)
    if isinstance(error, StaleEpoch):
        return {"Producer-Epoch": str(error.epoch)}
    if isinstance(error, SequenceGap):
        return {"Producer-Expected-Seq": str(error.expected), "Producer-Received-Seq": str(error.received)}
    return {}

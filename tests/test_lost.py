"""Connections that were lost on their way say nothing in the log; everything else does."""

from __future__ import annotations

import errno
import logging

import pytest

from streaming import lost


def told(error: BaseException | None) -> list[str]:
    """What a log with the filter writes of ``error``, as gunicorn does for a connection that failed."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log = logging.Logger("of this test")  # noqa: LOG001  # one that nobody else finds
    log.addHandler(Lines())
    log.addFilter(lost.is_told)
    try:
        if error:
            raise error
    except BaseException:
        log.exception("Socket error processing request.")
    else:
        log.error("nothing failed")
    return lines


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_a_lost_connection_is_silent(number: int) -> None:
    """As one that its client has closed is."""
    assert told(OSError(number, "lost")) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "a disk"), ValueError("a bug"), None], ids=repr)
def test_all_else_is_told(error: BaseException | None) -> None:
    """A disk that fails in the middle of a file, a mistake of ours."""
    assert len(told(error)) == 1

"""The one range of bytes that a request asks for (RFC 9110, section 14), as a pure function."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})\s*", re.IGNORECASE | re.ASCII)


class Unsatisfiable(Exception):
    """The range begins behind the end: 416."""


def one_range(header: str, if_range: str, etag: str, length: int) -> tuple[int, int] | None:
    """Return the first byte of the range and the one behind its last; None where the whole is to be sent.

    The whole: without a Range, with several or another unit, with one that is no range, and where ``if_range`` is
    given and is not ``etag``, a strong one (13.1.5). Raises Unsatisfiable.
    """
    match = _RANGE.fullmatch(header)
    if match is None or (if_range and if_range != etag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        if int(last) == 0 or not length:
            raise Unsatisfiable
        return max(length - int(last), 0), length
    if last and int(last) < int(first):
        return None
    if int(first) >= length:
        raise Unsatisfiable
    return int(first), min(int(last) + 1, length) if last else length

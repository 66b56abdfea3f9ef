"""What a request for a file gets: its whole, ranges of it, or neither (RFC 9110, sections 13.2.2 and 14).

Rules:
- Pure: the request's header fields come in, a status and the ranges to send come out. Header names are in lower case.
- A Range that is not written as the grammar has it, or of another unit than bytes, is ignored: the whole is sent.
- Ranges that overlap or touch are sent as one; the parts keep the order in which they were asked for (15.3.7.2).
- A request is never answered with more than the whole: not with more bytes, and not with hundreds of parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from streaming.conditions import Validators, precondition, range_applies

# Each costs a part's head and a look into the file; the field itself could ask for a thousand.
MAX_RANGES = 100
# int() refuses more than 4,300 digits, and no file has more than 19 of them.
_HUGE = 10**19
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")


class Span(NamedTuple):
    """The bytes from ``first`` up to, and without, ``end``."""

    first: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.first


class Resolution(NamedTuple):
    """``status``: 200, 206, 304, 412 or 416. ``spans``: what to send; one with 200, one or more with 206."""

    status: int
    spans: tuple[Span, ...] = ()


def resolve(method: str, fields: Mapping[str, str], current: Validators, length: int, now_s: float) -> Resolution:
    """Return what a GET or HEAD of a representation of ``length`` bytes is answered with, in the order of 13.2.2."""
    if (status := precondition(fields, current, now_s)) != 200:
        return Resolution(status)
    whole = Resolution(200, (Span(0, length),))
    if method != "GET" or "range" not in fields or not range_applies(fields, current, now_s):
        return whole
    if (asked := parse_range(fields["range"])) is None:
        return whole
    spans = [span for first, last in asked if (span := _span(first, last, length)) is not None]
    if not spans:
        return Resolution(416)
    # A suffix of nothing is satisfiable (14.1.2), but no Content-Range can say so.
    if length == 0 or (len(spans) > 1 and sum(span.length for span in spans) > length):
        return whole
    return Resolution(206, coalesce(spans))


def parse_range(value: str) -> list[tuple[int | None, int | None]] | None:
    """Return the first and last position of each range; (None, n) for the last n bytes, (n, None) from n on.

    None when the field is to be ignored: an unknown unit, an invalid range, or too many.
    """
    unit, equals, texts = value.partition("=")
    if unit.lower() != "bytes" or not equals:
        return None
    # 5.6.1: empty elements do not count, and blanks may stand around each.
    elements = [text for each in texts.split(",") if (text := each.strip(" \t"))]
    if not 0 < len(elements) <= MAX_RANGES:
        return None
    asked = [_positions(element) for element in elements]
    return None if None in asked else [each for each in asked if each is not None]


def _positions(element: str) -> tuple[int | None, int | None] | None:
    if not (found := _RANGE.fullmatch(element)) or element == "-":
        return None
    first, last = found.groups()
    if first and last and _order(last) < _order(first):
        return None
    return _number(first), _number(last)


def _order(digits: str) -> tuple[int, str]:
    """What sorts numerals of any length as their numbers."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _number(digits: str) -> int | None:
    if not digits:
        return None
    return int(digits) if len(digits) < 20 else min(int(digits.lstrip("0")[:20] or "0"), _HUGE)


def _span(first: int | None, last: int | None, length: int) -> Span | None:
    """Return the bytes that a range means here, None when there are none (14.1.2)."""
    if first is None:
        return Span(max(length - last, 0), length) if last else None
    if first >= length:
        return None
    return Span(first, length if last is None else min(last + 1, length))


def coalesce(spans: list[Span]) -> tuple[Span, ...]:
    """Join what overlaps or touches; each joined span stands where the first of its own was asked for."""
    joined: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda each: (each[1].first, each[0])):
        if joined and span.first <= joined[-1][1].end:
            before, open_span = joined[-1]
            joined[-1] = min(before, place), Span(open_span.first, max(open_span.end, span.end))
        else:
            joined.append((place, span))
    return tuple(span for _, span in sorted(joined, key=lambda each: each[0]))


def content_range(span: Span, length: int) -> str:
    return f"bytes {span.first}-{span.end - 1}/{length}"


def multipart(spans: tuple[Span, ...], length: int, content_type: str, boundary: str) -> tuple[list[bytes | Span], int]:
    """Return a multipart/byteranges body (14.6) as bytes and spans in turn, and its length in bytes."""
    body: list[bytes | Span] = []
    for span in spans:
        head = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range(span, length)}\r\n\r\n"
        body += [head.encode("latin-1"), span, b"\r\n"]
    body.append(f"--{boundary}--\r\n".encode())
    return body, sum(part.length if isinstance(part, Span) else len(part) for part in body)

"""Preconditions of a GET or HEAD (RFC 9110, section 13): entity tags, dates, and the order in which they count.

Rules:
- Pure: header values and the clock come in, a verdict comes out. Header names are in lower case.
- What is not written as the grammar has it matches nothing; a date that is none is ignored (13.1.3, 13.1.4).
- Dates are compared by the second. One of the second that is running is a weak validator: the file may change once
  more in it (8.8.2.2).
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

# 8.8.3: no escapes, a case-sensitive "W/", and obs-text as WSGI shows it, in Latin-1.
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# 5.6.1: a recipient takes empty elements too.
_TAGS = re.compile(rf"[ \t,]*(?:{_TAG}[ \t]*(?:,[ \t,]*|$))+")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
# 5.6.7: the form of today, and the two obsolete ones that a recipient must take.
_DATES = [
    re.compile(pattern)
    for pattern in (
        f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        f"{_DAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
]


class Validators(NamedTuple):
    """Of the current representation: its strong entity tag, quoted, and the second of its last change as it is told."""

    etag: str
    modified_s: int


def precondition(fields: Mapping[str, str], current: Validators, now_s: float) -> int:
    """Return 200 when the request may be answered, 304 or 412 when its conditions say no (13.2.2, steps 1 to 4)."""
    if (match := fields.get("if-match")) is not None:
        holds = match == "*" or current.etag in _strong(match)
    else:
        unmodified = parse_date(fields.get("if-unmodified-since", ""), now_s)
        holds = unmodified is None or current.modified_s <= unmodified
    if not holds:
        return 412
    if (none := fields.get("if-none-match")) is not None:
        # Weak comparison (8.8.3.2): the mark does not count.
        return 304 if none == "*" or current.etag in (tag.removeprefix("W/") for tag in parse_tags(none)) else 200
    modified = parse_date(fields.get("if-modified-since", ""), now_s)
    return 304 if modified is not None and current.modified_s <= modified else 200


def range_applies(fields: Mapping[str, str], current: Validators, now_s: float) -> bool:
    """Whether If-Range, where there is one, lets the Range count: the exact validator, and a strong one (13.1.5)."""
    if (condition := fields.get("if-range")) is None:
        return True
    if '"' in condition[:3]:
        return condition == current.etag
    return parse_date(condition, now_s) == current.modified_s < int(now_s)


def parse_tags(value: str) -> list[str]:
    """Return the entity tags of a list as they are written; none when it is no such list."""
    return re.findall(_TAG, value) if _TAGS.fullmatch(value) else []


def _strong(value: str) -> list[str]:
    return [tag for tag in parse_tags(value) if not tag.startswith("W/")]


def parse_date(value: str, now_s: float) -> int | None:
    """Return the second of an HTTP-date, None when it is none."""
    for pattern in _DATES if value else ():
        if found := pattern.fullmatch(value):
            return _seconds(found.groupdict(), now_s)
    return None


def _seconds(parts: Mapping[str, str], now_s: float) -> int | None:
    year, month, day = int(parts["year"]), _MONTHS.index(parts["month"]) + 1, int(parts["day"])
    hour, minute, second = int(parts["hour"]), int(parts["minute"]), int(parts["second"])
    if len(parts["year"]) == 2:
        year = _full_year(year, now_s)
    # A minute may have a sixty-first second, which time stamps count as the first of the next.
    if year < 1 or hour > 23 or minute > 59 or second > 60 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


def _full_year(year: int, now_s: float) -> int:
    """5.6.7: two digits that seem to lie more than 50 years ahead are of the past."""
    this_year = time.gmtime(now_s).tm_year
    full = this_year - this_year % 100 + year
    return full - 100 if full > this_year + 50 else full

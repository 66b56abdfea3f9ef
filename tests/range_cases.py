"""Requests for a file and what RFC 9110 has them answered with: data, for the resolver, a server and a proxy alike.

Rules:
- Each row names the section that its expectation is read from. Where that leaves a choice (MAY, SHOULD), the row says
  what docs/http.md promises.
- The files: ``ten``, 10,000 bytes, as in the examples of 14.1.2; ``one`` byte; ``empty``. Each was changed last at
  ``CHANGED``, and ``{etag}`` stands for its entity tag, with quotes.
"""

from __future__ import annotations

from dataclasses import dataclass

LENGTHS = {"ten": 10_000, "one": 1, "empty": 0}
CHANGED = 1_700_000_000
SAME = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = "Tue, 14 Nov 2023 22:13:19 GMT"
AFTER = "Tue, 14 Nov 2023 22:13:21 GMT"
FUTURE = "Fri, 01 Jan 2999 00:00:00 GMT"
# The same second in the obsolete forms of 5.6.7.
RFC_850 = "Tuesday, 14-Nov-23 22:13:20 GMT"
ASCTIME = "Tue Nov 14 22:13:20 2023"

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """``answer``: a status, or the ranges of a 206, as "first-last" with commas between the parts.

    ``unforwarded``: nginx answers such a request itself.
    """

    section: str
    what: str
    fields: Fields
    answer: str
    method: str = "GET"
    file: str = "ten"
    unforwarded: bool = False

    @property
    def status(self) -> int:
        return 206 if "-" in self.answer else int(self.answer)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        pairs = [each.split("-") for each in self.answer.split(",") if "-" in each]
        return [(int(first), int(last)) for first, last in pairs]


# Range alone: section, what, the field's value, the answer.
RANGES = [
    ("14.1.2", "the first 500 bytes", "bytes=0-499", "0-499"),
    ("14.1.2", "the second 500 bytes", "bytes=500-999", "500-999"),
    ("14.1.2", "the final 500 bytes, by a suffix", "bytes=-500", "9500-9999"),
    ("14.1.2", "the final 500 bytes, by an open range", "bytes=9500-", "9500-9999"),
    ("14.1.2", "the first and the last byte", "bytes=0-0,-1", "0-0,9999-9999"),
    ("14.1.2", "first, middle and last 1000, blanks as the RFC writes them", "bytes= 0-999, 4500-5499, -1000", "0-999,4500-5499,9000-9999"),
    ("14.1.2", "valid, not canonical: touching", "bytes=500-600,601-999", "500-999"),
    ("14.1.2", "valid, not canonical: overlapping", "bytes=500-700,601-999", "500-999"),
    ("14.1.2", "the first byte", "bytes=0-0", "0-0"),
    ("14.1.2", "the last byte by its position", "bytes=9999-9999", "9999-9999"),
    ("14.1.2", "the last byte by a suffix", "bytes=-1", "9999-9999"),
    ("14.1.2", "everything, by an open range", "bytes=0-", "0-9999"),
    ("14.1.2", "everything, by both positions", "bytes=0-9999", "0-9999"),
    ("14.1.2", "everything, by a suffix", "bytes=-10000", "0-9999"),
    ("14.1.2", "all but the first byte", "bytes=1-", "1-9999"),
    ("14.1.2", "a suffix longer than the file is the whole file", "bytes=-10001", "0-9999"),
    ("14.1.2", "a suffix much longer than the file", "bytes=-20000", "0-9999"),
    ("14.1.2", "a last position at the length is replaced", "bytes=9000-10000", "9000-9999"),
    ("14.1.2", "a last position beyond the length is replaced", "bytes=9999-20000", "9999-9999"),
    ("14.1.2", "a huge last position", "bytes=5-18446744073709551616", "5-9999"),
    ("14.1.2", "a last position of 40 digits", "bytes=5-" + "9" * 40, "5-9999"),
    ("14.1.2", "a last position of 5000 digits", "bytes=5-" + "9" * 5000, "5-9999"),
    ("14.1.2", "a last position beyond 63 bits", "bytes=5-9223372036854775808", "5-9999"),
    ("14.1.2", "a huge suffix", "bytes=-18446744073709551617", "0-9999"),
    ("14.1.2", "a suffix of 5000 digits", "bytes=-" + "9" * 5000, "0-9999"),
    ("14.1.2", "a huge first position is after the end", "bytes=18446744073709551616-", "416"),
    ("14.1.2", "a first position of 5000 digits", "bytes=" + "9" * 5000 + "-", "416"),
    ("14.1.2", "a first position that is 1 after 64 bits", "bytes=18446744073709551617-18446744073709551618", "416"),
    ("14.1.1", "huge numerals are compared: last less than first is invalid", "bytes=" + "9" * 41 + "-" + "9" * 40, "200"),
    ("14.1.2", "leading zeros", "bytes=0000-0499", "0-499"),
    ("14.1.2", "5000 leading zeros", "bytes=" + "0" * 5000 + "1-2", "1-2"),
    ("15.5.17", "after the end", "bytes=10000-", "416"),
    ("15.5.17", "after the end, with a last position", "bytes=10000-10001", "416"),
    ("15.5.17", "a suffix of nothing", "bytes=-0", "416"),
    ("15.5.17", "a suffix of nothing, in zeros", "bytes=-000", "416"),
    ("15.5.17", "several, none of them satisfiable", "bytes=10000-,20000-20001,-0", "416"),
    ("14.2", "one of several is satisfiable", "bytes=0-1,20000-", "0-1"),
    ("14.2", "the unsatisfiable first", "bytes=20000-,0-1", "0-1"),
    ("14.2", "a suffix of nothing among others", "bytes=-0,5-6", "5-6"),
    ("14.2", "two of three are satisfiable", "bytes=0-1,20000-,-1", "0-1,9999-9999"),
    ("14.1", "the unit's name has no case", "Bytes=0-1", "0-1"),
    ("14.1", "the unit's name in capitals", "BYTES=-1", "9999-9999"),
    ("14.2", "an unknown unit", "items=0-1", "200"),
    ("14.2", "a unit that begins as bytes does", "bytess=0-1", "200"),
    ("14.2", "a unit that bytes begins with", "byte=0-1", "200"),
    ("14.2", "an unknown unit with a range after the end", "lines=20000-", "200"),
    ("14.2", "none is a unit of Accept-Ranges only", "none=0-1", "200"),
    ("14.1.1", "last less than first", "bytes=2-1", "200"),
    ("14.1.1", "last less than first, after the end", "bytes=20000-10000", "200"),
    ("14.1.1", "one invalid among valid ones", "bytes=0-1,5-4", "200"),
    ("14.1.1", "no position at all", "bytes=-", "200"),
    ("14.1.1", "no range", "bytes=", "200"),
    ("14.1.1", "no range, only commas", "bytes=,,", "200"),
    ("14.1.1", "no equals sign", "bytes", "200"),
    ("14.1.1", "another sign", "bytes:0-1", "200"),
    ("14.1.1", "a blank before the equals sign", "bytes =0-1", "200"),
    ("14.1.1", "no unit", "=0-1", "200"),
    ("14.1.1", "no dash", "bytes=5", "200"),
    ("14.1.1", "three positions", "bytes=0-1-2", "200"),
    ("14.1.1", "two dashes", "bytes=0--1", "200"),
    ("14.1.1", "a sign before the first position", "bytes=+0-1", "200"),
    ("14.1.1", "letters", "bytes=a-b", "200"),
    ("14.1.1", "hexadecimal", "bytes=0x0-0x1", "200"),
    ("14.1.1", "a fraction", "bytes=0.5-1", "200"),
    ("14.1.1", "an exponent", "bytes=0-1e3", "200"),
    ("14.1.1", "an underscore", "bytes=0-1_0", "200"),
    ("14.1.1", "a blank inside", "bytes=0 -1", "200"),
    ("14.1.1", "a blank inside, after the dash", "bytes=0- 1", "200"),
    ("14.1.1", "a semicolon between", "bytes=0-1;2-3", "200"),
    ("14.1.1", "a blank between", "bytes=0-1 2-3", "200"),
    ("14.1.1", "digits of another script", "bytes=0-\u00b2", "200"),
    ("14.1.1", "an asterisk, as in Content-Range", "bytes=0-1/*", "200"),
    ("14.1.1", "in quotes", 'bytes="0-1"', "200"),
    ("5.6.1", "an empty element first", "bytes=,0-1", "0-1"),
    ("5.6.1", "an empty element last", "bytes=0-1,", "0-1"),
    ("5.6.1", "empty elements between", "bytes=0-1,, ,5-6", "0-1,5-6"),
    ("5.6.1", "empty elements all around one", "bytes= , ,0-1, ,", "0-1"),
    ("5.6.1", "blanks and tabs around the commas", "bytes=0-1 \t,\t 5-6", "0-1,5-6"),
    ("15.3.7.2", "the parts come in the order that was asked for", "bytes=9000-9009,0-9", "9000-9009,0-9"),
    ("15.3.7.2", "the last bytes first", "bytes=-10,0-9", "9990-9999,0-9"),
    ("15.3.7.2", "overlaps are joined, where the first of them was", "bytes=500-599,0-9,550-649", "500-649,0-9"),
    ("15.3.7.2", "one within another", "bytes=0-999,100-199", "0-999"),
    ("15.3.7.2", "the same twice", "bytes=0-9,0-9", "0-9"),
    ("15.3.7.2", "touching ones in reverse", "bytes=10-19,0-9", "0-19"),
    ("15.3.7.2", "three that chain", "bytes=0-9,20-29,8-21", "0-29"),
    ("15.3.7.2", "a gap of one byte is kept", "bytes=0-9,11-19", "0-9,11-19"),
    ("15.3.7.2", "an overlap with a suffix", "bytes=9000-9499,-600", "9000-9999"),
    ("15.3.7.2", "ten single bytes", "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 100, 10)), ",".join(f"{n}-{n}" for n in range(0, 100, 10))),
    ("14.2", "more bytes than the file has", "bytes=0-,0-", "200"),
    ("14.2", "more bytes than the file has, in three", "bytes=0-5000,1000-9000,-5000", "200"),
    ("17.15", "six hundred times the whole", "bytes=" + ",".join(["0-"] * 600), "200"),
    ("17.15", "six hundred single bytes", "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 1200, 2)), "200"),
    ("17.15", "six hundred overlapping ones", "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(600)), "200"),
]  # fmt: skip

# Conditions: section, what, the fields, the answer.
CONDITIONS: list[tuple[str, str, Fields, str]] = [
    ("13.1.1", "If-Match with the tag", (("If-Match", "{etag}"),), "200"),
    ("13.1.1", "If-Match with another tag", (("If-Match", '"other"'),), "412"),
    ("13.1.1", "If-Match with any", (("If-Match", "*"),), "200"),
    ("13.1.1", "If-Match with a list that has it", (("If-Match", '"a", {etag}, "b"'),), "200"),
    ("13.1.1", "If-Match with a list that has it not", (("If-Match", '"a","b"'),), "412"),
    ("13.1.1", "If-Match compares strongly", (("If-Match", "W/{etag}"),), "412"),
    ("13.1.1", "If-Match with a weak and the strong one", (("If-Match", 'W/"a", {etag}'),), "200"),
    ("5.6.1", "If-Match with empty elements", (("If-Match", ", ,{etag},,"),), "200"),
    ("8.8.3", "a tag without its quotes is none", (("If-Match", "other"),), "412"),
    ("8.8.3", "a tag may hold a comma", (("If-Match", '"a,b", {etag}'),), "200"),
    ("8.8.3", "a backslash escapes nothing", (("If-Match", '"a\\", {etag}'),), "200"),
    ("13.1.2", "If-None-Match with the tag", (("If-None-Match", "{etag}"),), "304"),
    ("13.1.2", "If-None-Match with another", (("If-None-Match", '"other"'),), "200"),
    ("13.1.2", "If-None-Match with any", (("If-None-Match", "*"),), "304"),
    ("13.1.2", "If-None-Match with a list that has it", (("If-None-Match", '"a", {etag}'),), "304"),
    ("13.1.2", "If-None-Match with a list that has it not", (("If-None-Match", '"a", "b"'),), "200"),
    ("8.8.3.2", "If-None-Match compares weakly", (("If-None-Match", "W/{etag}"),), "304"),
    ("8.8.3.2", "weakly, in a list", (("If-None-Match", '"x", W/{etag}'),), "304"),
    ("8.8.3", "the mark of a weak tag has its case", (("If-None-Match", "w/{etag}"),), "200"),
    ("8.8.3", "a tag in a comma's company", (("If-None-Match", '"a,b",{etag}'),), "304"),
    ("5.6.1", "If-None-Match with empty elements", (("If-None-Match", ",{etag},"),), "304"),
    ("5.3", "two lines are one list", (("If-None-Match", '"a"'), ("If-None-Match", "{etag}")), "304"),
    ("13.1.2", "an empty tag is another tag", (("If-None-Match", '""'),), "200"),
    ("13.1.3", "If-Modified-Since at the same second", (("If-Modified-Since", SAME),), "304"),
    ("13.1.3", "If-Modified-Since after it", (("If-Modified-Since", AFTER),), "304"),
    ("13.1.3", "If-Modified-Since before it", (("If-Modified-Since", BEFORE),), "200"),
    ("13.1.3", "If-Modified-Since in the future", (("If-Modified-Since", FUTURE),), "304"),
    ("13.1.3", "no date is ignored", (("If-Modified-Since", "yesterday"),), "200"),
    ("13.1.3", "a number is no date", (("If-Modified-Since", "1700000000"),), "200"),
    ("13.1.3", "no day of the calendar", (("If-Modified-Since", "Tue, 30 Feb 2999 22:13:20 GMT"),), "200"),
    ("13.1.3", "no hour of the day", (("If-Modified-Since", "Tue, 14 Nov 2999 24:13:20 GMT"),), "200"),
    ("5.6.7", "a date has its case", (("If-Modified-Since", SAME.lower()),), "200"),
    ("5.6.7", "a date is in GMT", (("If-Modified-Since", SAME.replace("GMT", "UTC")),), "200"),
    ("5.6.7", "a date is in GMT, not at an offset", (("If-Modified-Since", SAME.replace("GMT", "+0000")),), "200"),
    ("5.6.7", "the form of RFC 850", (("If-Modified-Since", RFC_850),), "304"),
    ("5.6.7", "the form of asctime", (("If-Modified-Since", ASCTIME),), "304"),
    ("5.6.7", "a year that seems 50 years ahead is past", (("If-Modified-Since", RFC_850.replace("-23", "-99")),), "200"),
    ("13.1.3", "two dates in two lines are none", (("If-Modified-Since", SAME), ("If-Modified-Since", AFTER)), "200"),
    ("13.1.3", "it is ignored beside If-None-Match", (("If-None-Match", '"x"'), ("If-Modified-Since", SAME)), "200"),
    ("13.1.3", "ignored also where it says modified", (("If-None-Match", "{etag}"), ("If-Modified-Since", BEFORE)), "304"),
    ("13.1.4", "If-Unmodified-Since at the same second", (("If-Unmodified-Since", SAME),), "200"),
    ("13.1.4", "If-Unmodified-Since after it", (("If-Unmodified-Since", AFTER),), "200"),
    ("13.1.4", "If-Unmodified-Since before it", (("If-Unmodified-Since", BEFORE),), "412"),
    ("13.1.4", "no date is ignored", (("If-Unmodified-Since", "once"),), "200"),
    ("13.1.4", "it is ignored beside If-Match", (("If-Match", "{etag}"), ("If-Unmodified-Since", BEFORE)), "200"),
    ("13.1.4", "If-Match decides", (("If-Match", '"x"'), ("If-Unmodified-Since", AFTER)), "412"),
    ("13.2.2", "If-Match comes before If-None-Match", (("If-Match", '"x"'), ("If-None-Match", "{etag}")), "412"),
    ("13.2.2", "both hold", (("If-Match", "{etag}"), ("If-None-Match", '"x"')), "200"),
    ("13.2.2", "If-Match holds, If-None-Match does not", (("If-Match", "{etag}"), ("If-None-Match", "{etag}")), "304"),
    ("13.2.2", "the dates in their order", (("If-Unmodified-Since", BEFORE), ("If-Modified-Since", SAME)), "412"),
    ("13.2.2", "unmodified, and not modified", (("If-Unmodified-Since", SAME), ("If-Modified-Since", SAME)), "304"),
]  # fmt: skip

# A range and conditions: section, what, further fields, the range, the answer.
BOTH: list[tuple[str, str, Fields, str, str]] = [
    ("14.2", "a 304 comes before a range", (("If-None-Match", "{etag}"),), "bytes=0-9", "304"),
    ("14.2", "a 304 comes before a 416", (("If-None-Match", "{etag}"),), "bytes=20000-", "304"),
    ("14.2", "a 304 by date comes before a range", (("If-Modified-Since", SAME),), "bytes=0-9", "304"),
    ("14.2", "a 412 comes before a range", (("If-Match", '"x"'),), "bytes=0-9", "412"),
    ("14.2", "a 412 comes before a 416", (("If-Match", '"x"'),), "bytes=20000-", "412"),
    ("14.2", "a 412 by date comes before a range", (("If-Unmodified-Since", BEFORE),), "bytes=0-9", "412"),
    ("14.2", "a range where If-Match holds", (("If-Match", "{etag}"),), "bytes=0-9", "0-9"),
    ("14.2", "a range where If-None-Match holds", (("If-None-Match", '"x"'),), "bytes=0-9", "0-9"),
    ("14.2", "a range where the dates hold", (("If-Unmodified-Since", SAME), ("If-Modified-Since", BEFORE)), "bytes=0-9", "0-9"),
    ("14.2", "a 416 where If-Match holds", (("If-Match", "{etag}"),), "bytes=20000-", "416"),
    ("13.1.5", "If-Range with the tag", (("If-Range", "{etag}"),), "bytes=0-9", "0-9"),
    ("13.1.5", "If-Range with another tag", (("If-Range", '"x"'),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range compares strongly", (("If-Range", "W/{etag}"),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range with the exact date", (("If-Range", SAME),), "bytes=0-9", "0-9"),
    ("13.1.5", "If-Range with a later date", (("If-Range", AFTER),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range with an earlier date", (("If-Range", BEFORE),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range takes no list", (("If-Range", '{etag}, "x"'),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range takes no asterisk", (("If-Range", "*"),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range that is neither", (("If-Range", "x"),), "bytes=0-9", "200"),
    ("13.1.5", "If-Range with the date in the form of RFC 850", (("If-Range", RFC_850),), "bytes=0-9", "0-9"),
    ("13.1.5", "a failed If-Range ignores a range after the end", (("If-Range", '"x"'),), "bytes=20000-", "200"),
    ("13.1.5", "If-Range that holds, and a range after the end", (("If-Range", "{etag}"),), "bytes=20000-", "416"),
    ("13.1.5", "If-Range and several ranges", (("If-Range", "{etag}"),), "bytes=0-0,-1", "0-0,9999-9999"),
    ("13.2.2", "If-None-Match comes before If-Range", (("If-None-Match", "{etag}"), ("If-Range", '"x"')), "bytes=0-9", "304"),
    ("13.2.2", "If-Match comes before If-Range", (("If-Match", '"x"'), ("If-Range", "{etag}")), "bytes=0-9", "412"),
    ("13.2.2", "If-Match and If-Range hold", (("If-Match", "{etag}"), ("If-Range", "{etag}")), "bytes=0-9", "0-9"),
    ("14.2", "two lines of Range are no range", (("Range", "bytes=0-1"),), "bytes=5-6", "200"),
]  # fmt: skip

OTHERS = [
    Case("13.1.5", "If-Range without a Range is ignored", (("If-Range", '"x"'),), "200"),
    Case("9.3.2", "HEAD has no body", (), "200", "HEAD"),
    Case("14.2", "a range is for GET only", (("Range", "bytes=0-9"),), "200", "HEAD"),
    Case("14.2", "HEAD with a range after the end", (("Range", "bytes=20000-"),), "200", "HEAD"),
    Case("14.2", "HEAD with several ranges", (("Range", "bytes=0-0,-1"),), "200", "HEAD"),
    Case("13.1.2", "HEAD with the tag in If-None-Match", (("If-None-Match", "{etag}"),), "304", "HEAD"),
    Case("13.1.3", "HEAD with If-Modified-Since", (("If-Modified-Since", SAME),), "304", "HEAD"),
    Case("13.1.1", "HEAD with another tag in If-Match", (("If-Match", '"x"'),), "412", "HEAD"),
    Case("13.1.4", "HEAD with If-Unmodified-Since", (("If-Unmodified-Since", BEFORE),), "412", "HEAD"),
    Case("14.2", "an empty file", (), "200", file="empty"),
    Case("14.1.2", "a suffix of an empty file is satisfiable, and no range", (("Range", "bytes=-1"),), "200", file="empty"),
    Case("14.1.2", "an open range of an empty file is not", (("Range", "bytes=0-"),), "416", file="empty"),
    Case("14.1.2", "the first byte of an empty file", (("Range", "bytes=0-0"),), "416", file="empty"),
    Case("13.1.2", "an empty file has a tag", (("If-None-Match", "{etag}"),), "304", file="empty"),
    Case("14.1.2", "the only byte", (("Range", "bytes=0-0"),), "0-0", file="one"),
    Case("14.1.2", "the only byte by a suffix", (("Range", "bytes=-1"),), "0-0", file="one"),
    Case("14.1.2", "the only byte by a long suffix", (("Range", "bytes=-500"),), "0-0", file="one"),
    Case("14.1.2", "after the only byte", (("Range", "bytes=1-"),), "416", file="one"),
    Case("14.2", "the only byte twice is more than the file", (("Range", "bytes=0-0,-1"),), "200", file="one"),
]  # fmt: skip

# Of these nginx takes one line only, and answers 400 itself.
_ONCE = {"If-Modified-Since", "If-None-Match"}


def _unforwarded(fields: Fields) -> bool:
    names = [name for name, _ in fields]
    return any(names.count(name) > 1 for name in _ONCE)


CASES = [
    *(Case(section, what, (("Range", value),), answer) for section, what, value, answer in RANGES),
    *(
        Case(section, what, fields, answer, unforwarded=_unforwarded(fields))
        for section, what, fields, answer in CONDITIONS
    ),
    *(Case(section, what, (*fields, ("Range", value)), answer) for section, what, fields, value, answer in BOTH),
    *OTHERS,
]

"""The resolver alone: each row of tests/range_cases.py, and what must hold of every other request."""

from __future__ import annotations

import email
import email.policy
import email.utils
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming.conditions import Validators, parse_date, parse_tags, range_applies
from streaming.ranges import MAX_RANGES, Span, multipart, parse_range, resolve
from tests.range_cases import CASES, CHANGED, LENGTHS, Case

ETAG = '"17979cfe362a0000-2710-1a2b3c"'
NOW_S = 1_795_000_000.0
CURRENT = Validators(ETAG, CHANGED)


def folded(case: Case) -> dict[str, str]:
    """The fields as WSGI has them: lines of one name joined (RFC 9110, 5.3)."""
    fields: dict[str, str] = {}
    for name, value in case.fields:
        before = fields.get(name.lower())
        value = value.replace("{etag}", ETAG)
        fields[name.lower()] = value if before is None else f"{before},{value}"
    return fields


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.what}")
def test_a_row_of_the_table(case: Case) -> None:
    """Status and ranges are those that the RFC's section has."""
    length = LENGTHS[case.file]
    found = resolve(case.method, folded(case), CURRENT, length, NOW_S)
    assert found.status == case.status
    if case.status == 206:
        assert [(span.first, span.end - 1) for span in found.spans] == case.ranges
    else:
        assert found.spans == ((Span(0, length),) if case.status == 200 else ())


def test_the_table_is_large_enough() -> None:
    """At least the 127 requests that the peers were measured with, none of them twice."""
    assert len(CASES) >= 127
    assert len({(case.section, case.what) for case in CASES}) == len(CASES)
    assert len({(case.method, case.file, case.fields) for case in CASES}) == len(CASES)


def test_a_date_of_the_running_second_is_weak() -> None:
    """The file may change once more in it, so that If-Range with it does not hold (RFC 9110, 8.8.2.2 and 13.1.5)."""
    fields = {"if-range": email.utils.formatdate(CHANGED, usegmt=True)}
    assert not range_applies(fields, CURRENT, CHANGED + 0.9)
    assert range_applies(fields, CURRENT, CHANGED + 1.0)


@pytest.mark.parametrize("count", [MAX_RANGES, MAX_RANGES + 1])
def test_there_is_a_bound_to_ranges(count: int) -> None:
    """As many as the bound are answered one by one; with one more the whole is (RFC 9110, 17.15)."""
    asked = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2 * count, 2))
    found = resolve("GET", {"range": asked}, CURRENT, 10_000, NOW_S)
    assert (found.status, len(found.spans)) == ((206, count) if count <= MAX_RANGES else (200, 1))


# Hypothesis over the rest

lengths = st.integers(0, 60)
positions = st.integers(0, 70)
specs = st.one_of(
    st.tuples(positions, positions).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    positions.map(lambda first: f"{first}-"),
    positions.map(lambda count: f"-{count}"),
)


def bytes_of(spec: str, length: int) -> set[int]:
    """The positions that a range-spec asks for, read from 14.1.2 one by one."""
    first, last = spec.split("-")
    if not first:
        return {position for position in range(length) if position >= length - int(last)}
    return {position for position in range(length) if position >= int(first) and (not last or position <= int(last))}


@given(lengths, st.lists(specs, min_size=1, max_size=8))
@example(0, ["-1"])
@example(10, ["0-", "0-"])
def test_what_is_sent_is_what_was_asked_for(length: int, asked: list[str]) -> None:
    """The parts hold exactly the bytes asked for, each once; or the whole is sent, when that is no more."""
    found = resolve("GET", {"range": "bytes=" + ",".join(asked)}, CURRENT, length, NOW_S)
    wanted = set().union(*(bytes_of(spec, length) for spec in asked))
    sent = [position for span in found.spans for position in range(span.first, span.end)]
    if found.status == 206:
        assert sorted(sent) == sorted(wanted)
        assert all(span.length > 0 for span in found.spans)
        # What overlaps or touches is one part.
        spans = sorted(found.spans, key=lambda span: span.first)
        assert all(a.end < b.first for a, b in pairwise(spans))
    elif found.status == 200:
        assert sent == list(range(length))
        assert length == 0 or sum(len(bytes_of(spec, length)) for spec in asked) > length
    else:
        assert (found.status, wanted) == (416, set())


@given(lengths, st.lists(specs, min_size=2, max_size=6))
def test_the_parts_keep_their_order(length: int, asked: list[str]) -> None:
    """Each part stands where the first of what it holds was asked for (RFC 9110, 15.3.7.2)."""
    found = resolve("GET", {"range": "bytes=" + ",".join(asked)}, CURRENT, length, NOW_S)
    if found.status == 206:
        wanted = [bytes_of(spec, length) for spec in asked]
        places = [
            next(place for place, each in enumerate(wanted) if each and span.first <= min(each) < span.end)
            for span in found.spans
        ]
        assert places == sorted(places)


@given(st.binary(min_size=1, max_size=200), st.lists(st.tuples(positions, positions), min_size=2, max_size=5))
def test_a_multipart_body_comes_apart_again(content: bytes, pairs: list[tuple[int, int]]) -> None:
    """The standard library's parser finds the parts, byte for byte, and the length is that of the body."""
    length = len(content)
    spans = tuple(Span(min(pair), min(max(pair) + 1, length)) for pair in pairs if min(pair) < length)
    parts, announced = multipart(spans, length, "text/plain; charset=utf-8", "f00d")
    body = b"".join(content[part.first : part.end] if isinstance(part, Span) else part for part in parts)
    assert len(body) == announced
    if not spans:
        return
    head = b"Content-Type: multipart/byteranges; boundary=f00d\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    # The parser takes line ends for its own: the bytes themselves are cut out by hand (RFC 2046, 5.1.1).
    pieces = body.split(b"--f00d")[1:]
    assert pieces.pop() == b"--\r\n"
    found = [piece.split(b"\r\n\r\n", 1)[1][:-2] for piece in pieces]
    assert found == [content[span.first : span.end] for span in spans]
    told = [part["Content-Range"] for part in message.iter_parts()]
    assert told == [f"bytes {span.first}-{span.end - 1}/{length}" for span in spans]
    assert {part.get_content_type() for part in message.iter_parts()} == {"text/plain"}


FIELDS = ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]
garbage = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=60)
grammar = st.text(st.sampled_from('bytes=0123-,* "W/\t'), max_size=30)


@given(st.dictionaries(st.sampled_from(FIELDS), garbage | grammar), lengths, st.sampled_from(["GET", "HEAD"]))
def test_no_request_is_too_strange(fields: dict[str, str], length: int, method: str) -> None:
    """Whatever the fields hold there is an answer, and what it sends lies within the file."""
    found = resolve(method, fields, CURRENT, length, NOW_S)
    assert found.status in {200, 206, 304, 412, 416}
    assert all(0 <= span.first <= span.end <= length for span in found.spans)
    assert bool(found.spans) == (found.status in {200, 206})
    assert method == "GET" or found.status not in {206, 416}


@given(st.integers(0, 253_402_300_799))
def test_a_date_is_read_in_each_of_its_forms(seconds: int) -> None:
    """As the standard library writes it, and in the two obsolete forms (RFC 9110, 5.6.7)."""
    moment = time.gmtime(seconds)
    assert parse_date(email.utils.formatdate(seconds, usegmt=True), NOW_S) == seconds
    assert parse_date(time.asctime(moment), NOW_S) == seconds
    year = time.gmtime(NOW_S).tm_year
    if year - 49 <= moment.tm_year <= year + 50:
        assert parse_date(time.strftime("%A, %d-%b-%y %H:%M:%S GMT", moment), NOW_S) == seconds


tags = st.tuples(st.sampled_from(["", "W/"]), st.text(st.sampled_from("!#$,;'\\*a0~\xe9"), max_size=5)).map(
    lambda pair: f'{pair[0]}"{pair[1]}"'
)


@given(st.lists(tags, min_size=1, max_size=5), st.sampled_from([",", ", ", " ,\t", ",,", " , , "]))
def test_a_list_of_tags_is_read_as_it_was_written(written: list[str], between: str) -> None:
    """Commas within a tag are its own, empty elements are none."""
    assert parse_tags(between.join(written)) == written
    assert parse_tags(f", {between.join(written)} ,") == written
    assert parse_tags(" ".join([*written, '"'])) == []


def test_a_long_field_is_read_in_no_time() -> None:
    """Fields as long as the server takes them cost no more than their length: no pattern runs away (CWE-1333)."""
    began = time.process_time()
    for text in ('"a" ' * 2000, ", " * 4000, 'W/"' * 2700, '"",' * 2700 + "x", "bytes=" + "0-0, " * 1600 + "x"):
        parse_tags(text)
        parse_range(text)
        parse_date(text, NOW_S)
    assert time.process_time() - began < 1.0

"""CSV and NDJSON beside Python's csv and json: any cuts, any values, and what is neither."""

from __future__ import annotations

import csv
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streaming.delimited import FIELDS, CSVToNDJSON, NDJSONToCSV
from streaming.whole_records import RECORD_BYTES
from tests.pieces import CUTS, cut, fed, outcome, same

TEXTS = st.text(st.one_of(st.sampled_from('a,"\n\r;\t é🙂'), st.characters(exclude_categories=["Cs"])), max_size=8)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(TEXTS, min_size=width, max_size=width, unique=True),
        st.lists(st.lists(TEXTS.filter(bool), min_size=width, max_size=width), max_size=5),
    )
)


def written(rows: list[list[str]], end: str, quoting: int) -> str:
    """CSV as Python's writer has it, which before 3.13 forgets to quote a CR when lines end with LF."""
    if any("\r" in field for row in rows for field in row):
        quoting = csv.QUOTE_ALL if end == "\n" else quoting
    out = io.StringIO()
    csv.writer(out, lineterminator=end, quoting=quoting).writerows(rows)
    return out.getvalue()


def objects(ndjson: bytes | str) -> list[dict[str, Any]]:
    assert isinstance(ndjson, bytes), ndjson
    assert ndjson == b"" or ndjson.endswith(b"\n")
    return [json.loads(line) for line in ndjson.decode().split("\n")[:-1]]


# CSV to NDJSON


@given(
    table=TABLES,
    end=st.sampled_from(["\r\n", "\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    last=st.booleans(),
    cuts=CUTS,
)
def test_any_table_that_python_writes(
    table: tuple[list[str], list[list[str]]], end: str, quoting: int, last: bool, cuts: list[int]
) -> None:
    """Every field as it was, with the header's names, whatever its line ends and quotes and at any cuts."""
    names, rows = table
    assume(not names[0].startswith("\ufeff"))  # it would be a byte order mark
    text = written([names, *rows], end, quoting)
    text = text if last else text.removesuffix(end)
    expected = [dict(zip(names, row, strict=True)) for row in rows]
    assert objects(same(CSVToNDJSON, text.encode(), cuts)) == expected
    assert [list(each) for each in objects(fed(CSVToNDJSON(), [text.encode()]))] == [names] * len(rows)


# RFC 4180, section 2, rule by rule, and what lies at its edges.
CASES = {
    "aaa,bbb,ccc\r\nzzz,yyy,xxx\r\n": [{"aaa": "zzz", "bbb": "yyy", "ccc": "xxx"}],  # 1
    "aaa,bbb\r\nzzz,yyy": [{"aaa": "zzz", "bbb": "yyy"}],  # 2
    "a, b\r\n 1 , 2\r\n": [{"a": " 1 ", " b": " 2"}],  # 4: spaces are part of a field
    '"aaa","bbb"\r\n"zzz",yyy\r\n': [{"aaa": "zzz", "bbb": "yyy"}],  # 5
    '"aaa","b\r\nbb"\r\n"z,z",y\r\n': [{"aaa": "z,z", "b\r\nbb": "y"}],  # 6
    'a\r\n"b""bb"\r\n': [{"a": 'b"bb'}],  # 7
    'a,b\r\n,""\r\n': [{"a": None, "b": ""}],  # NULL and the empty string
    'a\n\n""\nx\n': [{"a": None}, {"a": ""}, {"a": "x"}],  # an empty line of a single column
    "a,b\n\n1,2\n\n\n": [{"a": "1", "b": "2"}],  # and of several
    "\n\na,b\n1,2\n": [{"a": "1", "b": "2"}],
    "\ufeffa,b\n1,2\n": [{"a": "1", "b": "2"}],  # a BOM, as spreadsheets write it
    '\ufeff"a",b\n1,\ufeff\n': [{"a": "1", "b": "\ufeff"}],
    ",x\n1,2\n": [{"": "1", "x": "2"}],  # an index without a name, as pandas writes it
    "a,b\n": [],
    "": [],
    "a": [],
    "n\n00123\n1e3\nnull\ntrue\n": [{"n": "00123"}, {"n": "1e3"}, {"n": "null"}, {"n": "true"}],  # text, all of it
    'a\n"\\\x01\u2028"\n': [{"a": "\\\x01\u2028"}],
}


@pytest.mark.parametrize("text", CASES, ids=ascii)
def test_the_rules_of_rfc_4180(text: str) -> None:
    """At every cut."""
    for at in range(len(text.encode()) + 1):
        assert objects(same(CSVToNDJSON, text.encode(), [at])) == CASES[text]


NO_CSV = {
    'a,b\n1,2\n3,"4"x\n': "Record 3 is no CSV: its field 2",
    'a,b\n1,5" disk\n': "Record 2 ends within a quoted field",
    'a,b\n1,5" disk\n2,3" disk\n': "Record 2 is no CSV: its field 2",
    'a,b\n 1,"2" \n': "Record 2 is no CSV: its field 2",
    "a,b\n1\r,2\n": "Record 2 is no CSV: its field 1",
    "a,b\n1\r2,3\n": "Record 2 is no CSV: its field 1",
    "a,b\n1\n": "Record 2 has not as many fields",
    "a,b\n1,2,3\n": "Record 2 has not as many fields",
    'a,b\n"1","2","3"\n': "Record 2 has not as many fields",
    'a,b\n"1\n2",3\n4\n': "Record 3 has not as many fields",
    "a,a\n1,2\n": "Two columns have the same name",
    'a,b\n1,"2\n3,4\n': "Record 2 ends within a quoted field",
    "a,b\n1,2\n\xff": "",
}


@pytest.mark.parametrize("text", NO_CSV, ids=ascii)
def test_what_is_no_csv_is_named(text: str) -> None:
    """By its record and why, at every cut; nothing is guessed."""
    data, sentence = text.encode("latin-1"), NO_CSV[text] or "Byte 8 of the body is not UTF-8"
    for at in range(len(data) + 1):
        assert sentence in str(same(CSVToNDJSON, data, [at]))


def test_what_comes_before_a_failure_is_there() -> None:
    """The records before the one that cannot be are given, whole and in their order."""
    codec, came = CSVToNDJSON(), []
    with pytest.raises(ValueError, match="Record 4"):
        came.extend(codec.decode(b"a,b\n1,2\n3,4\n5\n6,7\n"))
    assert objects(b"".join(came)) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    codec, came = CSVToNDJSON(), []
    with pytest.raises(ValueError, match="Byte 10"):
        came.extend(codec.decode(b"a,b\n1,2\n3,\xff\n"))
    assert objects(b"".join(came)) == [{"a": "1", "b": "2"}]


@given(st.text(st.sampled_from('ab,"\n\r é'), max_size=40), CUTS)
def test_any_text_is_read_as_python_reads_it_or_refused(text: str, cuts: list[int]) -> None:
    """At any cuts; what we take has the fields that csv.reader finds, which takes more than RFC 4180 allows."""
    found = same(CSVToNDJSON, text.encode(), cuts)
    if isinstance(found, bytes) and text.strip("\r\n"):
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        names, *rest = rows[next(place for place, row in enumerate(rows) if row) :]
        expected = [row or [""] for row in rest if row or len(names) == 1]
        assert [[value or "" for value in each.values()] for each in objects(found)] == expected


# NDJSON to CSV

KEYS = st.one_of(TEXTS, st.sampled_from(["id", "name"]))
SCALARS = st.one_of(
    TEXTS.filter(bool), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.just(None)
)


def cell(value: Any) -> str:
    """What stands in CSV for a value: text as it is, the rest as JSON writes it."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


@given(
    names=st.lists(KEYS, min_size=2, max_size=4, unique=True),
    rows=st.lists(st.lists(SCALARS, min_size=4, max_size=4), min_size=1, max_size=5),
    escaped=st.booleans(),
    cuts=CUTS,
)
def test_any_objects(names: list[str], rows: list[list[Any]], escaped: bool, cuts: list[int]) -> None:
    """Byte for byte what csv.writer makes of the same values, at any cuts; the empty string, which it takes for
    nothing, apart."""
    lines = [json.dumps(dict(zip(names, row, strict=False)), ensure_ascii=escaped) + "\n" for row in rows]
    expected = written([names, *([cell(v) for v in row[: len(names)]] for row in rows)], "\r\n", csv.QUOTE_MINIMAL)
    assume("" not in names and not names[0].startswith("\ufeff"))  # csv.writer does not quote these
    assert same(NDJSONToCSV, "".join(lines).encode(), cuts) == expected.encode()


VALUES = {
    "null": b"",
    '""': b'""',
    '"a,b"': b'"a,b"',
    '"say \\"hi\\""': b'"say ""hi"""',
    '"two\\nlines"': b'"two\nlines"',
    '"\\u00e9\\ud83d\\ude42"': "é🙂".encode(),
    "true": b"true",
    "12345678901234567890123": b"12345678901234567890123",
    "0.10": b"0.10",
    "1.000000000000000000001": b"1.000000000000000000001",
    "1E400": b"1E400",
    "-0": b"-0",
    "[1, 2]": b'"[1, 2]"',
    '{"x":"y"}': b'"{""x"":""y""}"',
    "[]": b"[]",
    '"null"': b"null",
    '" a "': b" a ",
}


@pytest.mark.parametrize("value", VALUES)
def test_each_value(value: str) -> None:
    """Exact: no digit is lost, and NULL, the empty string and the word are three things."""
    line = f'{{"id": 1, "v": {value}}}\n'.encode()
    assert same(NDJSONToCSV, line, [5, 12]) == b"id,v\r\n1," + VALUES[value] + b"\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":1,"b":2}\n{"b":3,"a":4}\n', "a,b\r\n1,2\r\n4,3\r\n"),
        ('{"a":1,"b":2}\n{"b":3}\n{}\n', "a,b\r\n1,2\r\n,3\r\n,\r\n"),
        ('\n\r\n{"a":1}\r\n \n{"a":2}', "a\r\n1\r\n2\r\n"),  # heartbeats, CRLF, no last LF
        ('\ufeff{"a":1}\n', "a\r\n1\r\n"),
        ('{"a,b":1,"":2}\n', '"a,b",""\r\n1,2\r\n'),
        ('{"\ufeffa":1,"\ufeffb":2}\n', '"\ufeffa",\ufeffb\r\n1,2\r\n'),
        ("", ""),
        ("\n\n", ""),
        (' {"a" : 1} \n', "a\r\n1\r\n"),
    ],
)
def test_lines_and_headers(text: str, expected: str) -> None:
    """Keys in any order, or missing; empty lines are no rows."""
    for at in range(len(text.encode()) + 1):
        assert same(NDJSONToCSV, text.encode(), [at]) == expected.encode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a":1}\n{"a":1,"b":2}\n', "Line 2 has a key that the first one has not: 'b'"),
        ("[1]\n", "Line 1 is no JSON object"),
        ('{"a":1}\n{"a":01}\n', "Line 2 is no JSON object"),
        ('{"a":1}\n\n{"a":NaN}\n', "Line 3 is no JSON object"),
        ('{"a":1}{"a":2}\n', "Line 1 is no JSON object"),
        ('{"a":1\n}\n', "Line 1 is no JSON object"),
        ('{"a":"\\ud800"}\n', "Line 1 is no JSON object"),
        ('{"a":' + "[" * 9000 + "]" * 9000 + "}\n", "Line 1 is no JSON object"),
        ('{"a":1', "Line 1 is no JSON object"),
        ("{}\n", "must have from 1 to 16384 keys, and has 0"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_ndjson_is_named(text: str, sentence: str) -> None:
    """By its line and why, at any cuts."""
    assert sentence in str(same(NDJSONToCSV, text.encode(), [1, 4, 8, 9]))


def test_bytes_that_are_no_utf_8() -> None:
    """In a string, where JSON's own reader would look last."""
    assert same(NDJSONToCSV, b'{"a":"\xc3\xa9"}\n{"a":"\xff"}\n', [7]) == "Byte 17 of the body is not UTF-8."
    assert same(NDJSONToCSV, b'"\n\x9f\n') == "Line 1 is no JSON object."


def test_a_quote_in_a_line_hides_none_before_a_wrong_byte() -> None:
    """What comes before a byte that is not UTF-8 is there; in NDJSON a quote with a backslash opens nothing."""
    made: list[bytes] = []
    with pytest.raises(ValueError, match="Byte 27 of the body"):
        made.extend(NDJSONToCSV().decode(b'{"a":"\\""}\n{"a":"b"}\n{"a":"\xff"}\n'))
    assert b"".join(made) == b'a\r\n""""\r\nb\r\n'


# There and back


@given(
    names=st.lists(TEXTS, min_size=1, max_size=3, unique=True),
    rows=st.lists(st.lists(st.one_of(TEXTS, st.none()), min_size=3, max_size=3), min_size=1, max_size=5),
    cuts=CUTS,
)
def test_there_and_back(names: list[str], rows: list[list[str | None]], cuts: list[int]) -> None:
    """NDJSON of texts and NULLs is the same after it has been CSV."""
    lines = [dict(zip(names, row, strict=False)) for row in rows]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert objects(same(CSVToNDJSON, fed(NDJSONToCSV(), cut(data, cuts)), cuts)) == lines


def test_decimals_come_through() -> None:
    """What a database's NUMERIC has: all digits are there after both ways."""
    digits = str(Decimal(10) ** 40 + Decimal("0.1234567890123456789012345678901234567890"))
    found = fed(CSVToNDJSON(), [fed(NDJSONToCSV(), [f'{{"n":{digits}}}\n'.encode()])])
    assert json.loads(found)["n"] == digits


# Bounds


@pytest.mark.parametrize(
    ("make", "head", "number"),
    [(CSVToNDJSON, b"a\n", 2), (CSVToNDJSON, b'a\n"', 2), (CSVToNDJSON, b"", 1), (NDJSONToCSV, b'{"a":"', 1)],
)
def test_a_record_without_end_is_refused(make: Any, head: bytes, number: int) -> None:
    """At a MiB, and nothing more than that is ever held; in whatever pieces it comes."""
    sentence = f"Record {number} has more than {RECORD_BYTES} bytes."
    for size in (2**16, 3 * 2**20):
        codec = make()
        pieces = [head, *([b"x" * size] * (4 * 2**20 // size))]
        assert outcome(codec, pieces) == sentence
    tracemalloc.start()
    assert outcome(make(), [head, *([b"x" * 2**16] * 64)]) == sentence
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 2**20


def test_a_record_of_the_bound_is_taken() -> None:
    """A MiB is a record, also of characters of several bytes; one byte more is none."""
    field = "é" * (RECORD_BYTES // 2)
    for pieces in ([f"a\n{field}\n".encode()], cut(f"a\n{field}\n".encode(), range(0, RECORD_BYTES, 9999))):
        assert objects(fed(CSVToNDJSON(), pieces)) == [{"a": field}]
    for pieces in ([f"a\n{field}x\n".encode()], cut(f"a\n{field}x\n".encode(), range(0, RECORD_BYTES, 9999))):
        assert "Record 2 has more" in str(outcome(CSVToNDJSON(), pieces))


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (CSVToNDJSON, b",".join(b"%d" % n for n in range(FIELDS + 1)) + b"\n"),
        (NDJSONToCSV, b"{" + b",".join(b'"%d":1' % n for n in range(FIELDS + 1)) + b"}\n"),
    ],
)
def test_there_are_not_more_columns_than_fields(make: Any, data: bytes) -> None:
    """As spreadsheets have it."""
    assert "16384" in str(outcome(make(), [data]))


def test_commas_of_a_text_are_no_fields() -> None:
    """A polygon of a hundred thousand points is one field."""
    text = ",".join(["1 2"] * 100_000)
    assert objects(same(CSVToNDJSON, f'id,shape\n1,"{text}"\n'.encode(), [7, 99_999])) == [{"id": "1", "shape": text}]


def test_a_step_gives_little() -> None:
    """A name of a MiB, and rows of two bytes: each repeats it, and no more than one is made before it is taken."""
    codec = CSVToNDJSON()
    list(codec.decode(b"n" * (RECORD_BYTES - 1) + b"\n"))
    steps = codec.decode(b"x\n" * 10_000)
    for _ in range(3):
        assert len(next(steps)) < RECORD_BYTES + 2**16
    steps.close()


# What could be slow, each a MiB: 32 KiB of it is one step.
SLOW = [
    (CSVToNDJSON, b"a\n" + b'"' + b'""' * 2**19 + b'"\n'),
    (CSVToNDJSON, b"a\n" + b'"' + b"\n" * (2**20 - 4) + b'"\n'),
    (CSVToNDJSON, b"a,b\n" + b"\n" * 2**20),
    (CSVToNDJSON, b"a\n" + b'"x' + b'","' * 2**17),
    (CSVToNDJSON, b"a\n" + b"," * (2**20 - 4) + b"\n"),
    (CSVToNDJSON, b"a\n" + b'"",' * 2**18 + b"\n"),
    (NDJSONToCSV, b"{" + b'"a":1,' * 2**17 + b'"a":1}\n'),
    (NDJSONToCSV, b'{"a":"' + b"\\n" * 2**18 + b'"}\n'),
    (NDJSONToCSV, b'{"a":1}\n' + b"{}\n" * 2**18),
]


@pytest.mark.parametrize("index", range(len(SLOW)))
def test_no_record_is_slow(index: int) -> None:
    """The longest step, ten times what it takes on a machine that does nothing else."""
    make, data = SLOW[index]
    codec, longest = make(), 0.0
    steps = (step for piece in cut(data, range(0, len(data), 2**18)) for step in codec.decode(piece))
    while True:
        begun = time.thread_time()
        try:
            if next(steps, None) is None:
                break
        except ValueError:
            break
        finally:
            longest = max(longest, time.thread_time() - begun)
    assert longest < 0.15


PLAIN = st.one_of(
    st.sampled_from(["", "%s", ":", "1", "a b"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)


def one_by_one(make: Callable[[], Any], data: bytes) -> bytes | str:
    """The outcome where no block is made at once."""
    with patch.object(make, "_plain", lambda self, block: None):
        return outcome(make(), [data])


@given(st.lists(PLAIN, min_size=1, max_size=3, unique=True), st.booleans(), st.data())
def test_a_plain_block_is_made_as_each_of_its_records(names: list[str], spaced: bool, drawn: st.DataObject) -> None:
    """Many records at once or one by one: the same bytes both ways, whatever the names and the values are."""
    values = st.lists(PLAIN, min_size=len(names), max_size=len(names))
    rows = [["a"] * len(names), *drawn.draw(st.lists(values, max_size=4))]
    separators = (", ", ": ") if spaced else (",", ":")
    objects = [
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, separators=separators) for row in rows
    ]
    body = "".join(f"{each}\n" for each in objects).encode()
    table = outcome(NDJSONToCSV(), [body])
    assert table == one_by_one(NDJSONToCSV, body)
    assert isinstance(table, bytes)
    assert outcome(CSVToNDJSON(), [table]) == one_by_one(CSVToNDJSON, table)


@pytest.mark.parametrize(
    ("make", "head", "record"),
    [
        (CSVToNDJSON, b"id,name\r\n", b"7,River\r\n"),
        (NDJSONToCSV, b'{"id":1,"name":"a"}\n', b'{"id": 7, "name": null}\n'),
    ],
)
def test_most_blocks_are_plain(make: Any, head: bytes, record: bytes) -> None:
    """Or nothing was gained: records as exports have them are made at once."""
    codec = make()
    fed(codec, [head])
    with patch.object(make, "_line", side_effect=AssertionError("one by one")):
        assert fed(codec, [record * 5000]).count(b"River" if make is CSVToNDJSON else b"7,\r\n") == 5000

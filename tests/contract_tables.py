"""What every ``Tables`` must do, whichever database it reads: a test module runs it as

    class TestSQLite(TablesContract):
        @pytest.fixture
        def database(self, tmp_path) -> Iterator[Database]: ...

The expected bytes are written by hand from RFC 4180, RFC 8259, RFC 4648 and PostgreSQL's rules of COPY … (FORMAT csv).
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.errors import BadKey, UnknownColumn, UnknownTable
from stores.tables import Query, Rows, Tables
from streaming.events import Event

Value = int | float | str | bytes | None


@dataclass(frozen=True)
class Column:
    """``kind`` stands for the database's own type of such values."""

    name: str
    kind: Literal["integer", "real", "text", "blob"]


class Database(Protocol):
    """A fresh database of the kind under test."""

    def create(self, name: str, columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> None:
        """Make a table anew and fill it; its first column is the primary key."""
        ...

    def execute(self, *statements: str) -> None:
        """Run standard SQL in one transaction of a connection of its own."""
        ...

    def tables(self, *allowed: str) -> Tables: ...


ID = Column("id", "integer")
LINE_END: dict[Rows, bytes] = {"csv": b"\r\n", "ndjson": b"\n"}


def read(tables: Tables, query: Query, form: Rows) -> bytes:
    """The whole export, without a last line end."""
    return LINE_END[form].join(event.data for event in tables.rows(query, form) if event is not None)


def blocks(tables: Tables, query: Query, form: Rows = "ndjson") -> Iterator[Event]:
    return (event for event in tables.rows(query, form) if event is not None)


def parsed_csv(data: bytes) -> list[list[str | None]]:
    """Parse RFC 4180 strictly; a field without quotes and without text is None, as COPY has it."""
    field = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\Z)')
    text, at = data.decode("utf-8"), 0
    records: list[list[str | None]] = [[]]
    while True:
        match = field.match(text, at)
        assert match, f"no field at {text[at : at + 40]!r}"
        inner, plain, end = match.groups()
        records[-1].append(inner.replace('""', '"') if inner is not None else plain or None)
        at = match.end()
        if not end:
            return records
        if end == "\r\n":
            records.append([])


def parsed_ndjson(data: bytes) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in data.decode("utf-8").split("\n") if data]


def from_csv(text: str | None, like: Value) -> Value:
    """Read a field as the type of the value it should be."""
    if text is None or like is None:
        return text
    return base64.b64decode(text, validate=True) if isinstance(like, bytes) else type(like)(text)


def from_json(value: Any, like: Value) -> Value:
    if isinstance(like, bytes):
        return base64.b64decode(value, validate=True)
    return float(value) if isinstance(like, float) else value


INTEGERS = st.integers(-(2**63), 2**63 - 1)
REALS = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
AMOUNTS = st.integers(-(10**12), 10**12).map(lambda cents: cents / 100)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.text('",\r\n\\. a')
ROW = st.tuples(
    st.none() | INTEGERS,
    st.none() | REALS.filter(lambda value: value != 0 or str(value) == "0.0") | AMOUNTS,
    st.none() | TEXTS,
    st.none() | st.binary(),
)
WIDE = (ID, Column("n", "integer"), Column("r", "real"), Column("t", "text"), Column("b", "blob"))
_EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CSV_CASES: list[tuple[Column, Value, bytes]] = [
    (Column("v", "text"), None, b""),
    (Column("v", "text"), "", b'""'),
    (Column("v", "text"), "plain", b"plain"),
    (Column("v", "text"), "a,b", b'"a,b"'),
    (Column("v", "text"), 'say "hi"', b'"say ""hi"""'),
    (Column("v", "text"), '"', b'""""'),
    (Column("v", "text"), "a\nb", b'"a\nb"'),
    (Column("v", "text"), "a\rb", b'"a\rb"'),
    (Column("v", "text"), "\r\n", b'"\r\n"'),
    (Column("v", "text"), " kept ", b" kept "),
    (Column("v", "text"), "\ttab", b"\ttab"),
    (Column("v", "text"), "\\.", b"\\."),
    (Column("v", "text"), "\\N", b"\\N"),
    (Column("v", "text"), "NULL", b"NULL"),
    (Column("v", "text"), "=1+1", b"=1+1"),
    (Column("v", "text"), "é\u2028字", b"\xc3\xa9\xe2\x80\xa8\xe5\xad\x97"),
    (Column("v", "integer"), 9223372036854775807, b"9223372036854775807"),
    (Column("v", "integer"), -9223372036854775808, b"-9223372036854775808"),
    (Column("v", "real"), 0.1, b"0.1"),
    (Column("v", "real"), 0.1 + 0.2, b"0.30000000000000004"),
    (Column("v", "real"), 1234567.25, b"1234567.25"),
    (Column("v", "real"), float("inf"), b"Infinity"),
    (Column("v", "real"), float("-inf"), b"-Infinity"),
    (Column("v", "blob"), b"\x00\xff", b"AP8="),
    (Column("v", "blob"), b"", b'""'),
]
JSON_CASES: list[tuple[Column, Value, bytes]] = [
    (Column("v", "text"), None, b"null"),
    (Column("v", "text"), "", b'""'),
    (Column("v", "text"), 'a"b', b'"a\\"b"'),
    (Column("v", "text"), "a\\b", b'"a\\\\b"'),
    (Column("v", "text"), "</é😀\u2028", '"</é😀\u2028"'.encode()),
    (Column("v", "text"), "12", b'"12"'),
    (Column("v", "text"), '{"a":1}', b'"{\\"a\\":1}"'),
    (Column("v", "integer"), 9007199254740993, b"9007199254740993"),
    (Column("v", "integer"), -9223372036854775808, b"-9223372036854775808"),
    (Column("v", "real"), 0.1, b"0.1"),
    (Column("v", "real"), 0.1 + 0.2, b"0.30000000000000004"),
    (Column("v", "real"), float("inf"), b"null"),
    (Column("v", "real"), float("-inf"), b"null"),
    (Column("v", "blob"), b"\x00\xff", b'"AP8="'),
    (Column("v", "blob"), b"", b'""'),
]
MANY = 2500  # rows: several blocks in either form


class TablesContract:
    """The tests; ``database`` is the subclass's."""

    @pytest.fixture
    def database(self) -> Iterator[Database]:
        raise NotImplementedError

    @pytest.fixture
    def numbers(self, database: Database) -> Tables:
        """A table of the numbers from 1, each with its square as text."""
        columns = (ID, Column("square", "text"), Column("padding", "text"))
        database.create("numbers", columns, [(n, str(n * n), "x" * 100) for n in range(1, MANY + 1)])
        return database.tables("numbers")

    def test_only_allowed_tables_that_exist_are_described(self, database: Database) -> None:
        """A table is shown when it exists and is allowed, with its columns in order and its key."""
        database.create("shown", (ID, Column("b", "text"), Column("a", "text")), [])
        database.create("hidden", (ID,), [])
        tables = database.tables("shown", "missing").tables()
        assert list(tables) == ["shown"]
        assert (tables["shown"].name, tables["shown"].columns, tables["shown"].key) == ("shown", ("id", "b", "a"), "id")

    @pytest.mark.parametrize("name", ["hidden", "missing", "", 'numbers" --', "numbers; DROP TABLE numbers"])
    def test_other_tables_are_unknown(self, database: Database, numbers: Tables, name: str) -> None:
        """A table that is not allowed is as unknown as one that does not exist."""
        database.create("hidden", (ID,), [])
        with pytest.raises(UnknownTable, match=r"^[A-Z].*\.$"):
            numbers.select(name)

    @pytest.mark.parametrize("columns", [["nope"], ["id", ""], ["id) --"], ["id", "id"]])
    def test_columns_are_checked(self, numbers: Tables, columns: list[str]) -> None:
        """A column that the table does not have, or that is asked for twice, is refused with a sentence naming it."""
        with pytest.raises(UnknownColumn) as caught:
            numbers.select("numbers", columns)
        assert columns[-1] in str(caught.value)

    @pytest.mark.parametrize("after", ["", "abc", "1.5", "0x10", "1 OR 1=1", "99999999999999999999", "\udcff"])
    def test_an_integer_key_takes_an_integer(self, numbers: Tables, after: str) -> None:
        """What is no 64-bit integer cannot be the key of such a table."""
        with pytest.raises(BadKey):
            numbers.select("numbers", after=after)

    def test_columns_come_as_asked(self, numbers: Tables) -> None:
        """The columns asked for come in that order; none asked for means all."""
        assert numbers.select("numbers").columns == ("id", "square", "padding")
        query = numbers.select("numbers", ["square", "id"], limit=2)
        assert read(numbers, query, "ndjson") == b'{"square":"1","id":1}\n{"square":"4","id":2}'
        assert read(numbers, query, "csv") == b"1,1\r\n4,2"

    @pytest.mark.parametrize(("column", "value", "field"), CSV_CASES)
    def test_a_csv_field(self, database: Database, column: Column, value: Value, field: bytes) -> None:
        """A value is quoted when RFC 4180 and COPY quote it, and only then."""
        database.create("cases", (ID, column), [(1, value)])
        tables = database.tables("cases")
        assert read(tables, tables.select("cases"), "csv") == b"1," + field

    def test_a_csv_field_alone_on_its_line(self, database: Database) -> None:
        """Alone on its line, backslash and full stop is quoted, as COPY does: it would end COPY's data."""
        database.create("cases", (ID, Column("v", "text")), [(1, "\\."), (2, None), (3, ""), (4, "\\..")])
        tables = database.tables("cases")
        assert read(tables, tables.select("cases", ["v"]), "csv") == b'"\\."\r\n\r\n""\r\n\\..'

    @pytest.mark.parametrize(("column", "value", "text"), JSON_CASES)
    def test_a_json_value(self, database: Database, column: Column, value: Value, text: bytes) -> None:
        """A value is compact JSON (RFC 8259) in UTF-8; nothing is escaped that need not be; blobs are base64."""
        database.create("cases", (ID, column), [(1, value)])
        tables = database.tables("cases")
        assert read(tables, tables.select("cases"), "ndjson") == b'{"id":1,"v":' + text + b"}"

    @_EXAMPLES
    @given(rows=st.lists(ROW, min_size=1, max_size=70))
    def test_values_survive_the_round_trip(self, database: Database, rows: list[tuple[Value, ...]]) -> None:
        """A strict reader of either format gets every value back, to the last bit."""
        database.create("wide", WIDE, [(at, *row) for at, row in enumerate(rows)])
        tables = database.tables("wide")
        query = tables.select("wide", [each.name for each in WIDE[1:]])
        records = parsed_csv(read(tables, query, "csv"))
        assert [tuple(map(from_csv, record, row)) for record, row in zip(records, rows, strict=True)] == rows
        objects = parsed_ndjson(read(tables, query, "ndjson"))
        assert all(list(each) == list(query.columns) for each in objects)
        assert [tuple(map(from_json, each.values(), row)) for each, row in zip(objects, rows, strict=True)] == rows
        tables.dispose()  # each example opens a connection of its own

    @pytest.mark.parametrize("name", ['say "hi"', "it's", "a,b", "select", "Ünïcode 字", "%s ? :x", "back`tick", "[b]"])
    def test_any_name_is_only_a_name(self, database: Database, name: str) -> None:
        """Tables and columns may be called whatever the database allows."""
        database.create(name, (ID, Column(name, "text")), [(1, "x")])
        tables = database.tables(name)
        assert parsed_ndjson(read(tables, tables.select(name), "ndjson")) == [{"id": 1, name: "x"}]
        assert read(tables, tables.select(name, [name]), "csv") == b"x"

    def test_reads_at_once_have_all_their_rows(self, numbers: Tables) -> None:
        """They take turns, beside one that nobody reads on, and each gives what it gives alone."""
        query = numbers.select("numbers")
        alone = read(numbers, query, "csv")
        with contextlib.closing(blocks(numbers, query, "csv")) as left:  # type: ignore[type-var]
            next(left)
            readers = [gevent.spawn(read, numbers, query, "csv") for _ in range(3)]
            gevent.joinall(readers, timeout=60, raise_error=True)
        assert [reader.value == alone for reader in readers] == [True] * 3

    @pytest.mark.parametrize("form", ["csv", "ndjson"])
    def test_blocks_are_whole_lines_in_key_order(self, numbers: Tables, form: Rows) -> None:
        """Every row comes once, in key order; each block has at most some 64 KiB and its last key as id."""
        got = list(blocks(numbers, numbers.select("numbers", ["id", "padding"]), form))
        assert all(event.data and len(event.data) < 96 * 1024 for event in got)
        assert not any(event.data.endswith((b"\r", b"\n")) for event in got)
        lines = [event.data.split(LINE_END[form]) for event in got]
        keys = [int(re.search(rb"\d+", line)[0]) for block in lines for line in block]  # type: ignore[index]
        assert keys == list(range(1, MANY + 1))
        assert [int(event.id) for event in got] == [int(re.search(rb"\d+", block[-1])[0]) for block in lines]  # type: ignore[index]

    def test_the_first_block_is_small(self, numbers: Tables) -> None:
        """The first block holds few rows, so that the first byte leaves early."""
        first = next(blocks(numbers, numbers.select("numbers")))
        assert first.data.count(b"\n") < 100

    def test_a_source_says_that_it_waits(self, numbers: Tables) -> None:
        """The first thing it yields is None: the database has only begun."""
        with contextlib.closing(numbers.rows(numbers.select("numbers"), "csv")) as rows:  # type: ignore[type-var]
            assert next(rows) is None

    @pytest.mark.parametrize("form", ["csv", "ndjson"])
    def test_every_block_can_be_continued(self, numbers: Tables, form: Rows) -> None:
        """What came up to a block, and what comes after its id, is the whole export, byte for byte."""
        whole = list(blocks(numbers, numbers.select("numbers"), form))
        end = LINE_END[form]
        everything = end.join(event.data for event in whole)
        for at, event in enumerate(whole[:-1]):
            rest = read(numbers, numbers.select("numbers", after=event.id), form)
            assert end.join([*(each.data for each in whole[: at + 1]), rest]) == everything
        assert list(blocks(numbers, numbers.select("numbers", after=whole[-1].id), form)) == []

    @pytest.mark.parametrize("limit", [0, 1, 49, 50, 51, MANY - 1, MANY, MANY + 1, 10**9])
    def test_a_limit_is_exact(self, numbers: Tables, limit: int) -> None:
        """No more rows than the limit, and no fewer unless the table ends."""
        query = numbers.select("numbers", ["id"], after="3", limit=limit)
        data = read(numbers, query, "csv")
        assert data.split(b"\r\n")[-1] == (str(min(limit + 3, MANY)).encode() if limit else b"")

    def test_an_empty_table_has_no_blocks(self, database: Database) -> None:
        """An export of nothing is nothing, not an empty line."""
        database.create("empty", (ID,), [])
        tables = database.tables("empty")
        assert list(blocks(tables, tables.select("empty"), "csv")) == []

    def test_a_text_key_pages_too(self, database: Database) -> None:
        """Rows keyed by text come once each, and any block can be continued."""
        keys = [f"{prefix}-{n}'\"" for n in range(150) for prefix in ("Ä", "a", "B", "字", "10", "9")]
        database.create("named", (Column("name", "text"),), [(key,) for key in keys])
        tables = database.tables("named")
        whole = list(blocks(tables, tables.select("named")))
        names = [each["name"] for each in parsed_ndjson(b"\n".join(event.data for event in whole))]
        assert sorted(names) == sorted(keys)
        rest = parsed_ndjson(read(tables, tables.select("named", after=whole[0].id), "ndjson"))
        assert [each["name"] for each in rest] == names[whole[0].data.count(b"\n") + 1 :]

    def test_an_export_is_one_moment(self, database: Database) -> None:
        """Transfers between accounts during an export do not change the sum it shows."""
        columns = (ID, Column("balance", "integer"), Column("padding", "text"))
        database.create("accounts", columns, [(n, 100, "x" * 100) for n in range(1, MANY + 1)])
        tables = database.tables("accounts")
        data = []
        for at, event in enumerate(blocks(tables, tables.select("accounts"))):
            data.append(event.data)
            database.execute(
                f"UPDATE accounts SET balance = balance + 10 WHERE id = {at + 1}",
                f"UPDATE accounts SET balance = balance - 10 WHERE id = {MANY - at}",
            )
        assert len(data) > 3
        assert sum(each["balance"] for each in parsed_ndjson(b"\n".join(data))) == 100 * MANY

    def test_closing_ends_an_export_anywhere(self, numbers: Tables) -> None:
        """An iterator may be closed before its start, before the first row and between blocks; the store goes on."""
        for steps in (0, 1, 2, 4):
            rows = numbers.rows(numbers.select("numbers"), "ndjson")
            for _ in range(steps):
                next(rows)
            rows.close()  # type: ignore[attr-defined]
        assert read(numbers, numbers.select("numbers", ["id"], limit=1), "csv") == b"1"

    def test_a_living_store_answers(self, numbers: Tables) -> None:
        """ping returns when the database is there."""
        numbers.ping()

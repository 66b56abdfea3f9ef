"""What every ``Tables`` must do with conditions, order and moments: run beside ``contract_tables`` in the same way.

class TestSQLiteQueries(QueriesContract):
    @pytest.fixture
    def database(self, tmp_path) -> Iterator[Database]: ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.errors import BadFilter, UnknownColumn
from stores.tables import Filter, Operator, Rows, Tables
from tests.contract_tables import ID, LINE_END, Column, Database, Value, read

COLUMNS = (ID, Column("name", "text"), Column("price", "real"), Column("code", "blob"))
ROWS: list[tuple[Value, ...]] = [
    (1, "Anna", 1.5, b"\x00"),
    (2, "anna", -2.0, b"\xff"),
    (3, "50% off", 0.1, None),
    (4, "a_b", None, b""),
    (5, None, 7.0, b"ab"),
    (6, "", 1e20, b"abc"),
    (7, "Ö", 0.25, b"abc"),
    (8, "=1+1", -0.5, b"abc"),
]
FILTERS: list[tuple[str, Operator, tuple[str, ...], list[int]]] = [
    ("id", "eq", ("3",), [3]),
    ("id", "ne", ("3",), [1, 2, 4, 5, 6, 7, 8]),
    ("id", "gt", ("5",), [6, 7, 8]),
    ("id", "ge", ("5",), [5, 6, 7, 8]),
    ("id", "lt", ("3",), [1, 2]),
    ("id", "le", ("3",), [1, 2, 3]),
    ("id", "in", ("8", "1", "99"), [1, 8]),
    ("id", "eq", ("-1",), []),
    ("name", "eq", ("Anna",), [1]),
    ("name", "eq", ("",), [6]),
    ("name", "ne", ("Anna",), [2, 3, 4, 6, 7, 8]),
    ("name", "in", ("a_b", "Ö"), [4, 7]),
    ("name", "like", ("%nna",), [1, 2]),
    ("name", "like", ("A%",), [1]),
    ("name", "like", ("a_b",), [4]),
    ("name", "like", (r"a\_b",), [4]),
    ("name", "like", (r"%\%%",), [3]),
    ("name", "like", ("_",), [7]),
    ("name", "null", (), [5]),
    ("name", "notnull", (), [1, 2, 3, 4, 6, 7, 8]),
    ("price", "eq", ("0.1",), [3]),
    ("price", "gt", ("1",), [1, 5, 6]),
    ("price", "le", ("-5e-1",), [2, 8]),
    ("price", "in", ("7", "1.5"), [1, 5]),
    ("price", "null", (), [4]),
    ("code", "eq", ("AA==",), [1]),
    ("code", "eq", ("YWI=",), [5]),
]
UNFIT: list[tuple[str, Operator, tuple[str, ...]]] = [
    ("id", "eq", ("",)),
    ("id", "eq", ("abc",)),
    ("id", "gt", ("1.5",)),
    ("id", "in", ("1", "x")),
    ("id", "eq", ("0x10",)),
    ("id", "eq", ("1 OR 1=1",)),
    ("id", "eq", ("99999999999999999999",)),
    ("id", "like", ("1%",)),
    ("price", "eq", ("much",)),
    ("price", "lt", ("1_0",)),
    ("name", "like", ("ends with \\",)),
    ("name", "eq", ("\udcff",)),
]
GUARDED: list[tuple[str, bytes]] = [
    ("=1+1", b"'=1+1"),
    ("+1-555-0100", b"'+1-555-0100"),
    ("-2+3", b"'-2+3"),
    ("@SUM(1)", b"'@SUM(1)"),
    ("\ttab", b"'\ttab"),
    ("\rline", b'"\'\rline"'),
    ('=HYPERLINK("a,b")', b'"\'=HYPERLINK(""a,b"")"'),
    ("-5", b"-5"),
    ("+3.25", b"+3.25"),
    ("-1e5", b"-1e5"),
    ("-.5", b"-.5"),
    ("a=b", b"a=b"),
    ("'quoted", b"'quoted"),
    ("", b'""'),
]
MANY = 1500
_EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ids(tables: Tables, *filters: Filter, **options: object) -> list[int]:
    query = tables.select("things", ["id"], filters=filters, **options)  # type: ignore[arg-type]
    return [int(line) for line in read(tables, query, "csv").split(b"\r\n") if line]


class QueriesContract:
    """The tests; ``database`` is the subclass's."""

    @pytest.fixture
    def database(self) -> Iterator[Database]:
        raise NotImplementedError

    @pytest.fixture
    def things(self, database: Database) -> Tables:
        database.create("things", COLUMNS, ROWS)
        return database.tables("things")

    @pytest.mark.parametrize(("column", "operator", "values", "expected"), FILTERS)
    def test_a_condition(
        self, things: Tables, column: str, operator: Operator, values: tuple[str, ...], expected: list[int]
    ) -> None:
        """A condition is SQL's own: NULL meets none but its own, and text is compared in its case."""
        assert ids(things, Filter(column, operator, values)) == expected

    def test_conditions_hold_together(self, things: Tables) -> None:
        """Several conditions must all be met, also of one column, together with after and limit."""
        between = (Filter("id", "gt", ("1",)), Filter("id", "lt", ("8",)), Filter("name", "notnull"))
        assert ids(things, *between) == [2, 3, 4, 6, 7]
        assert ids(things, *between, after="2", limit=2) == [3, 4]
        assert ids(things, *between, descending=True, after="6") == [4, 3, 2]

    @pytest.mark.parametrize(("column", "operator", "values"), UNFIT)
    def test_an_unfit_value_is_refused(
        self, things: Tables, column: str, operator: Operator, values: tuple[str, ...]
    ) -> None:
        """What cannot be a value of its column is refused in a sentence, before anything is read."""
        with pytest.raises(BadFilter, match=r"^The column \w+ .*\.$") as caught:
            things.select("things", filters=[Filter(column, operator, values)])
        assert (caught.value.column, caught.value.operator) == (column, operator)

    @_EXAMPLES
    @given(name=st.text(max_size=20).filter(lambda name: name not in {each.name for each in COLUMNS}))
    def test_only_names_of_the_schema_are_names(self, things: Tables, name: str) -> None:
        """A condition on anything else is refused, whatever it holds."""
        with pytest.raises(UnknownColumn):
            things.select("things", filters=[Filter(name, "eq", ("1",))])

    @_EXAMPLES
    @given(
        value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
        | st.sampled_from(["' OR '1'='1", "'; DROP TABLE things; --", "$1", "%s", "?", ":x", "\\", "{}", "Anna' --"]),
        operator=st.sampled_from(["eq", "ne", "gt", "le", "in"]),
    )
    def test_a_value_is_only_a_value(self, things: Tables, value: str, operator: Operator) -> None:
        """Any text is compared as the text it is, and does nothing else."""
        names = [(row[0], row[1]) for row in ROWS if isinstance(row[1], str)]
        compared = {
            "eq": lambda name: name == value,
            "ne": lambda name: name != value,
            "gt": lambda name: name.encode() > value.encode(),
            "le": lambda name: name.encode() <= value.encode(),
            "in": lambda name: name == value,
        }
        assert ids(things, Filter("name", operator, (value,))) == [id for id, name in names if compared[operator](name)]

    @_EXAMPLES
    @given(pattern=st.text("ab%_A", max_size=6))
    def test_a_pattern_is_a_pattern(self, things: Tables, pattern: str) -> None:
        """Percent and underscore mean what the standard says, in every engine the same."""
        import re

        translated = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
        expected = [row[0] for row in ROWS if isinstance(row[1], str) and re.fullmatch(f"(?s){translated}", row[1])]
        assert ids(things, Filter("name", "like", (pattern,))) == expected

    @pytest.mark.parametrize(("text", "field"), GUARDED)
    def test_the_guard_against_formulas(self, database: Database, text: str, field: bytes) -> None:
        """A text that begins like a formula gets an apostrophe, unless it is a number; only when asked, only in CSV."""
        database.create("things", (ID, Column("v", "text"), Column("n", "integer")), [(1, text, -5)])
        tables = database.tables("things")
        guarded = tables.select("things", guarded=True)
        assert read(tables, guarded, "csv") == b"1," + field + b",-5"
        assert json.loads(read(tables, guarded, "ndjson"))["v"] == text

    def test_a_guarded_key_continues(self, database: Database) -> None:
        """A block's id is the key itself, without the apostrophe."""
        database.create("things", (Column("k", "text"),), [(f"-k{n}",) for n in range(3)])
        tables = database.tables("things")
        (block,) = [each for each in tables.rows(tables.select("things", guarded=True), "csv") if each is not None]
        assert (block.data, block.first, block.id) == (b"'-k0\r\n'-k1\r\n'-k2", "-k0", "-k2")

    @pytest.mark.parametrize("form", ["csv", "ndjson"])
    @pytest.mark.parametrize("columns", [["id", "pad"], ["pad"]])
    def test_against_the_order_every_block_can_be_continued(
        self, database: Database, form: Rows, columns: list[str]
    ) -> None:
        """Descending, the rows come once each in reverse, and go on behind any block, whether or not the key shows."""
        rows = [(n, f"{n}".rjust(120, "x")) for n in range(1, MANY + 1)]
        database.create("things", (ID, Column("pad", "text")), rows)
        tables = database.tables("things")
        end = LINE_END[form]
        forward = read(tables, tables.select("things", columns), form).split(end)
        whole = [each for each in tables.rows(tables.select("things", columns, descending=True), form) if each]
        lines = end.join(block.data for block in whole).split(end)
        assert lines == forward[::-1]
        assert sum(block.rows for block in whole) == MANY == len(lines)
        assert (whole[0].first, whole[-1].id) == (str(MANY), "1")
        for at, block in enumerate(whole[:-1]):
            rest = read(tables, tables.select("things", columns, after=block.id, descending=True), form)
            assert rest.split(end) == lines[sum(each.rows for each in whole[: at + 1]) :]

    def test_a_snapshot_is_one_moment(self, database: Database, things: Tables) -> None:
        """What is read through one snapshot, however often, is what was there when it was taken."""
        query = things.select("things", ["id", "name"])
        snapshot = things.snapshot()
        try:
            before = [each.data for each in snapshot.rows(query, "csv", last=False) if each]
            database.execute("UPDATE things SET name = 'new'", "DELETE FROM things WHERE id > 4")
            assert [each.data for each in snapshot.rows(query, "csv") if each] == before
        finally:
            snapshot.close()
        assert read(things, query, "csv") == b"1,new\r\n2,new\r\n3,new\r\n4,new"

    def test_a_moment_has_a_name(self, database: Database, things: Tables) -> None:
        """The same moment has the same name; a commit makes another one."""
        names = []
        for _ in range(2):
            snapshot = things.snapshot()
            names.append(snapshot.name)
            snapshot.close()
        assert names[0] == names[1] != ""
        database.execute("UPDATE things SET name = 'new' WHERE id = 1")
        snapshot = things.snapshot()
        snapshot.close()
        assert snapshot.name != names[0]

    def test_a_snapshot_can_be_closed_anywhere(self, things: Tables) -> None:
        """Unread, in the middle of a read, or twice: nothing is left, and the store goes on."""
        query = things.select("things")
        for steps in (0, 1, 2):
            snapshot = things.snapshot()
            rows = snapshot.rows(query, "csv", last=False)
            for _ in range(steps):
                next(rows)
            rows.close()  # type: ignore[attr-defined]
            snapshot.close()
            snapshot.close()
        assert ids(things, Filter("id", "eq", ("1",))) == [1]

    def test_tables_are_described(self, things: Tables) -> None:
        """Each column has its type, and the table about its number of rows, or nobody knows."""
        table = things.tables()["things"]
        assert table.types == ("integer", "text", "real", "blob")
        assert table.ordered
        assert table.estimate is None or table.estimate == len(ROWS)

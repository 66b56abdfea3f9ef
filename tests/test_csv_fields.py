"""CSV out of fields that stand apart by control characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.csv_fields import FIELD, NULL, ROW, csv

Row = tuple[str | None, ...]
# Whatever a text may hold, and often what needs quotes; a separator is another test's.
TEXT = st.text(st.sampled_from(',"\r\n a\x00é') | st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda text: "\x1e" not in text and "\x1f" not in text
)


def field(value: str | None) -> str:
    """RFC 4180, section 2, rules 5 to 7; NULL is the empty field and "" the empty text, as in PostgreSQL's COPY."""
    if value is None:
        return ""
    return '"' + value.replace('"', '""') + '"' if not value or set(value) & set(',"\r\n') else value


def apart(rows: list[Row]) -> bytes:
    return ROW.join(FIELD.join(NULL if each is None else each.encode() for each in row) for row in rows)


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.tuples(*[st.none() | TEXT] * n), min_size=1, max_size=6)))
def test_quotes_stand_where_the_rfc_wants_them(rows: list[Row]) -> None:
    """Fields, NULL and empty texts of any number of columns."""
    expected = "\r\n".join(",".join(map(field, row)) for row in rows).encode()
    assert csv(apart(rows), len(rows), len(rows[0])) == expected


@pytest.mark.parametrize(
    "row",
    {
        "a field's separator": (b"a" + FIELD, b"b"),
        "a row's separator": (b"a", ROW),
        "what is between a row's separator": (b"a", b"\x1e"),
        "no UTF-8": (b"a", b"\xff"),
        "NULL in a text": (b"a" + NULL, b"b"),
    }.values(),
)
def test_what_cannot_be_told_apart_is_not_taken(row: tuple[bytes, bytes]) -> None:
    """Then the rows must be read in another way."""
    assert csv(ROW.join([b"1" + FIELD + b"2", FIELD.join(row)]), 2, 2) is None

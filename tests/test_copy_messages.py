"""Rows out of PostgreSQL's COPY messages, however they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stores.copy_messages import ended, length, take

# No text of PostgreSQL holds NUL; all else may stand in a row, also what looks like a message.
ROW = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40).map(str.encode) | (
    st.sampled_from([b"", b"\nd", b"d\n", b"\n", b"x" * 65_530, b"\nd" * 40_000, b"y" * (0x0A6400 - 5)])
)


def message(row: bytes, kind: bytes = b"d") -> bytes:
    """A message as PostgreSQL's documentation has it: its type, the length with these four bytes, the content."""
    return kind + (len(row) + 4).to_bytes(4) + row


@given(st.lists(ROW, min_size=1, max_size=6), st.data())
def test_rows_are_what_was_sent(rows: list[bytes], draws: st.DataObject) -> None:
    """Whatever stands in the rows and wherever the bytes are cut, the whole rows come out, in order."""
    lines = [row + b"\n" for row in rows]
    data = b"".join(map(message, lines))
    cut = draws.draw(st.integers(0, len(data)))
    whole, size = 0, 0
    while whole < len(lines) and size + len(message(lines[whole])) <= cut:
        size += len(message(lines[whole]))
        whole += 1
    seen: list[bytes] = []
    rest = data[:cut]
    while rest and (taken := take(rest, b"\r\n")) is not None:
        count = len(seen)
        seen += lines[count : count + taken.rows]
        assert taken.lines == b"\r\n".join(line[:-1] for line in seen[count:])
        assert (taken.first, taken.last) == (seen[count], seen[-1])
        rest = rest[taken.end :]
    assert len(seen) == whole
    assert len(rest) == cut - size


def test_other_messages_end_the_rows() -> None:
    """A notice between two rows is not taken for one; nor is the end of the copy."""
    notice = message(b"SNOTICE\0Mhello\nd\0\0", b"N")
    data = message(b"1,a\n") + message(b"2,b\n") + notice + message(b"3,c\n") + message(b"", b"c")
    taken = take(data, b"\n")
    assert taken is not None
    assert (taken.lines, taken.rows) == (b"1,a\n2,b", 2)
    rest = data[taken.end :]
    assert rest.startswith(notice)
    rest = rest[length(rest) :]
    taken = take(rest, b"\n")
    assert taken is not None
    assert (taken.lines, rest[taken.end :]) == (b"3,c", message(b"", b"c"))


def test_part_of_a_row_is_none() -> None:
    """Nothing is taken of a row before its last byte is there."""
    data = message(b"1,a\n")
    assert [take(data[:cut], b"\n") for cut in range(1, len(data))] == [None] * (len(data) - 1)


def test_the_end_of_an_answer_is_seen() -> None:
    """Once the server says that it is ready for a query, nothing follows: its last rows wait for nothing."""
    rows = message(b"1,Z\n") + message(b"2,b\n")
    end = message(b"", b"c") + message(b"COPY 2\0", b"C") + message(b"I", b"Z")
    assert ended(rows + end)
    assert not any(ended((rows + end)[:cut]) for cut in range(len(rows + end)))

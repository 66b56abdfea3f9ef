"""The sample database: the same everywhere, whole or not there, and full of what breaks exports."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from stores.seed import make_sample_database
from stores.sqlite_tables import SQLiteTables
from tests.contract_tables import parsed_csv, parsed_ndjson, read

ROWS = 2500


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    return _rows(_made(tmp_path_factory.mktemp("seed") / "app.db"))


def _made(path: Path) -> Path:
    make_sample_database(path, ROWS)
    return path


def _rows(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM users ORDER BY id").fetchall()


def _digest(rows: list[tuple[object, ...]]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def test_the_rows_are_the_same_on_every_machine(users: list[tuple[object, ...]], tmp_path: Path) -> None:
    """Made twice, the content is the same; more rows begin with the same ones."""
    again = _rows(_made(tmp_path / "again.db"))
    assert _digest(again) == _digest(users)
    make_sample_database(tmp_path / "more.db", ROWS + 10)
    assert _rows(tmp_path / "more.db")[:ROWS] == users


def test_every_ingredient_is_there(users: list[tuple[object, ...]]) -> None:
    """Among the rows is everything that breaks a careless export."""
    texts = [value for row in users for value in row[1:] if isinstance(value, str)]
    everything = "".join(set(texts))
    for character in ',"\n\r\t\\;\u2028\u0085\ufeff\u0301':
        assert character in everything
    for script in ["LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "CJK", "HIRAGANA", "HANGUL", "THAI"]:
        assert any(unicodedata.name(each, "").startswith(script) for each in set(everything)), script
    assert any(ord(each) > 0xFFFF for each in everything)
    assert {"", "\\.", "NULL", ",", '"'} <= set(texts)
    assert any(text.startswith("=") for text in texts)
    assert any(len(text) > 10_000 for text in texts)
    assert any(None in row for row in users)


def test_columns_hold_what_they_say(users: list[tuple[object, ...]]) -> None:
    """Ids count from 1, addresses are unique and of example domains, times are ISO 8601 in UTC and in order."""
    assert [row[0] for row in users] == list(range(1, ROWS + 1))
    emails = [str(row[2]) for row in users]
    assert len(set(emails)) == ROWS
    assert {email.partition("@")[2] for email in emails} == {"example.com", "example.net", "example.org"}
    times = [str(row[6]) for row in users]
    assert times == sorted(times)
    assert all(datetime.fromisoformat(each).utcoffset() is not None and each.endswith("Z") for each in times)
    assert {type(row[4]) for row in users} == {float, type(None)}


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    """A file that is there already is not touched."""
    path = tmp_path / "app.db"
    path.write_bytes(b"somebody's")
    make_sample_database(path)
    assert path.read_bytes() == b"somebody's"


def test_two_starts_at_once_make_one_database(tmp_path: Path) -> None:
    """All find a whole database, its folder made, and nothing else is left beside it."""
    path = tmp_path / "instance" / "app.db"
    with ThreadPoolExecutor(4) as pool:
        assert [len(_rows(each)) for each in pool.map(_made, [path] * 4)] == [ROWS] * 4
    assert [each.name for each in path.parent.iterdir()] == ["app.db"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """When the rows cannot be written, neither a database nor a temporary file stays."""
    with pytest.raises(TypeError):
        make_sample_database(tmp_path / "app.db", "many")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_it_comes_out_as_it_went_in(users: list[tuple[object, ...]], tmp_path: Path) -> None:
    """Exported as CSV and as NDJSON, the sample is the sample."""
    tables = SQLiteTables(_made(tmp_path / "app.db"), ["users"])
    query = tables.select("users")
    assert [tuple(row.values()) for row in parsed_ndjson(read(tables, query, "ndjson"))] == users
    expected = [[None if value is None else str(value) for value in row] for row in users]
    assert parsed_csv(read(tables, query, "csv")) == expected

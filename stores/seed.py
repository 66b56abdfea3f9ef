"""The sample database of a fresh machine: one table of users with everything in it that breaks a careless export.

Rules:
- The same rows on every machine and every day: no clock, no random numbers; row n follows from n alone.
- Nobody can meet half a database: it is written beside its place and put there whole. The first of two starts wins.
- In WAL mode, so that whoever writes to it is not held up by an export.
- The addresses are of domains that RFC 2606 keeps for examples.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

_SCHEMA = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE,
    city TEXT,
    balance REAL,
    note TEXT,
    created_at TEXT NOT NULL
)
"""

# One row a script: given names, family names, cities. Names are written in the order of their language.
_PEOPLE: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "{0} {1}",
        ("Anna", "James", "Maria", "Noah"),
        ("Smith", "O'Brien", "Garcia", "van Dijk"),
        ("London", "Paris, TX"),
    ),
    ("{1}, {0}", ("Zoë", "Jürgen", "Søren", "Łucja"), ("Müller", "Ångström", "Çelik", "Žižka"), ("Köln", "São Paulo")),
    ('{0} "Ace" {1}', ("Ruby", "Miles"), ("Jones", "D'Arcy"), ('"The Hague"', "St. John's")),
    ("{0} {1}", ("Ольга", "Иван", "Зоя"), ("Иванова", "Петров", "Щукин"), ("Москва", "Київ")),
    ("{0} {1}", ("Ελένη", "Γιώργος"), ("Παπαδοπούλου", "Νικολάου"), ("Αθήνα", "Πάτρα")),
    ("{0} {1}", ("محمد", "ليلى"), ("العربي", "حداد"), ("القاهرة", "دمشق")),
    ("{0} {1}", ("נועה", "דוד"), ("כהן", "לוי"), ("ירושלים", "חיפה")),
    ("{0} {1}", ("अनीता", "राज"), ("शर्मा", "कुमार"), ("दिल्ली", "मुंबई")),
    ("{1}{0}", ("伟", "秀英"), ("王", "李"), ("北京", "上海")),
    ("{1} {0}", ("さくら", "健"), ("佐藤", "鈴木"), ("東京", "大阪")),
    ("{1}{0}", ("서연", "민준"), ("김", "이"), ("서울", "부산")),
    ("{0} {1}", ("สมชาย", "มาลี"), ("ใจดี", "ศรีสุข"), ("กรุงเทพฯ", "เชียงใหม่")),
    ("{0} 🎉 {1}", ("Mia", "Leo"), ("👩‍👩‍👧 Family", "🇪🇺"), ("🌍", "🏝️ Island")),
    ("{0} {1}", ("Jose\u0301", "Zoe\u0308"), ("Nu\u0303nez", "A\u030angstro\u0308m"), ("Co\u0301rdoba", "Z̸a̶l̵g̴o̷")),
)

_NOTES: tuple[str | None, ...] = (
    None,
    "",
    "Pays on time.",
    "Prefers tea, not coffee; calls back.",
    'Said: "Never again!"',
    "First line\nSecond line",
    "From Windows\r\nwith two lines",
    "An old Mac wrote\rthis",
    '=HYPERLINK("http://example.com","Click")',
    "+1-555-0100",
    "@SUM(1+1)*cmd",
    "-2+3",
    "\tTabs\tand a \\ backslash",
    "\\.",
    "NULL",
    " leading and trailing space ",
    "line\u2028separator and next\u0085line",
    "zero\u200bwidth, \ufeffBOM inside",
    "Order \u202eoverridden\u202c, once",
    '"',
    ",",
    "naïve café – “quoted” … 100 % ✓",
    "'; DROP TABLE users; --",
)
_LONG_EVERY = 1999  # a prime, so that long notes meet every kind of name
_LONG = 'All work and no play, "they said",\nmakes a very long note. Καὶ τὰ λοιπά… 長い。 ' * 200
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def make_sample_database(path: str | os.PathLike[str], rows: int = 100_000) -> None:
    """Make a SQLite database with ``rows`` users at ``path``, and its folder, unless there is something already.

    Raises OSError and sqlite3.Error; nothing is left at ``path`` then.
    """
    place = Path(path)
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
    os.close(descriptor)
    try:
        _write(name, rows)
        _put(name, place)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def users(rows: int) -> Iterator[tuple[object, ...]]:
    """Yield the first ``rows`` users in the order of the table's columns."""
    created = _FIRST
    for n in range(1, rows + 1):
        # 14 kinds of people and 23 notes have no common divisor, so each note meets each kind of name.
        order, given, family, cities = _PEOPLE[n * 5 % len(_PEOPLE)]
        name = order.format(given[n // 3 % len(given)], family[n // 7 % len(family)])
        city = None if n % 11 == 0 else "" if n % 13 == 0 else cities[n // 2 % len(cities)]
        balance = None if n % 17 == 0 else (n * 7919 % 2_000_003 - 500_000) / 100
        note = _LONG if n % _LONG_EVERY == 0 else _NOTES[n * 7 % len(_NOTES)]
        created += timedelta(seconds=n * 31 % 900, milliseconds=n % 1000)
        yield n, name, f"user{n}@example.{('com', 'net', 'org')[n % 3]}", city, balance, note, _instant(created)


def _instant(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z."""
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _write(name: str, rows: int) -> None:
    with closing(sqlite3.connect(name, isolation_level=None)) as connection:
        # One sync at the end is enough: until then nobody knows the file.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("BEGIN")
        connection.execute(_SCHEMA)
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?)", users(rows))
        connection.execute("COMMIT")
        # Kept in the file itself; closing the only connection leaves no -wal beside it.
        connection.execute("PRAGMA journal_mode = WAL")
    descriptor = os.open(name, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(name: str, place: Path) -> None:
    try:
        # A link never replaces a database that another start has put there, and may have open, meanwhile.
        os.link(name, place)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        os.replace(name, place)

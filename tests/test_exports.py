"""What /api/export promises: formats, conditions, receipts, lengths and codings, with the clients that read them.

Rules:
- The expected rows are the table's own, read by the database's driver; formats are parsed by other people's readers.
- A client of another language or project that is not installed is skipped, with its name.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow as pa
import pytest
import requests
from flask.testing import FlaskClient

from streaming.compression import Gzip, Zstd, zstd
from streaming.content_codings import coding
from tests.clients import Answer
from tests.cutting_proxy import CuttingProxy
from tests.harness import LiveServer, RawClient, eventually, free_port, listens, parse_events
from tests.postgres_server import PostgresServer, programs

ROWS = 100_000


@pytest.fixture(scope="session")
def rows(sample_database: str) -> list[tuple[Any, ...]]:
    """The table, from its own driver."""
    with contextlib.closing(sqlite3.connect(sample_database.removeprefix("sqlite:///"))) as database:
        return database.execute("SELECT id, name, email, city, balance, note, created_at FROM users").fetchall()


COLUMNS = ("id", "name", "email", "city", "balance", "note", "created_at")


def get(server: LiveServer, target: str, *headers: tuple[str, str]) -> Answer:
    with RawClient(server.port, timeout_s=30) as client:
        return client.request("GET", target, headers).read_to_end()


def receipt(server: LiveServer, answer: Answer) -> dict[str, Any]:
    """As it stands when the export has ended: a client that knows the length has all a moment before that."""

    def told() -> Any:
        status, body = server.get(answer.header("export-receipt"))
        assert status == 200
        found = json.loads(body)
        return found if found["state"] in ("complete", "failed") else None

    found: dict[str, Any] = eventually(told)
    return found


# Formats


def test_the_list_of_what_can_be_exported(client: FlaskClient) -> None:
    """Without a parameter: tables with their columns, types, key and about how many rows; and the formats."""
    told = client.get("/api/export").json
    assert told["formats"] == ["csv", "ndjson", "json", "json-seq", "arrow"]
    (table,) = told["tables"]
    assert (table["name"], table["key"], table["unique"], table["rows"]) == ("users", "id", True, ROWS)
    assert {column["name"]: column["type"] for column in table["columns"]} == {
        "id": "integer", "name": "text", "email": "text", "city": "text", "balance": "real", "note": "text",
        "created_at": "text",
    }  # fmt: skip
    assert client.get(table["url"] + "?limit=1").status_code == 200
    assert client.get(table["schema"]).status_code == 200


@pytest.mark.parametrize(
    ("target", "accept", "type", "file"),
    [
        ("/api/export?table=users", "", "text/csv", "users.csv"),
        ("/api/export?table=users", "*/*", "text/csv", "users.csv"),
        ("/api/export?table=users", "application/json", "application/json", "users.json"),
        ("/api/export?table=users", "text/csv;q=0.5, application/x-ndjson", "application/x-ndjson", "users.ndjson"),
        ("/api/export?table=users", "application/jsonl", "application/x-ndjson", "users.ndjson"),
        ("/api/export?table=users&format=json-seq", "text/csv", "application/json-seq", "users.json-seq"),
        ("/api/export/users.json?table=", "text/csv", "application/json", ""),
        ("/api/export/users.jsonl?limit=1", "text/csv", "application/x-ndjson", "users.ndjson"),
        ("/api/export/users.CSV?limit=1", "application/json", "text/csv", "users.csv"),
        ("/api/export/users.csv?format=json", "text/csv", "application/json", "users.json"),
        ("/api/export?table=users&filename=people.json", "text/csv", "application/json", "people.json"),
        ("/api/export?table=users&filename=people.txt", "", "text/csv", "people.txt"),
        ("/api/export/users.arrows?limit=1", "", "application/vnd.apache.arrow.stream", "users.arrows"),
    ],
)
def test_a_format_is_chosen(client: FlaskClient, target: str, accept: str, type: str, file: str) -> None:
    """format= before the file's ending before Accept; each with its content type, its file name and its Vary."""
    answer = client.head(target + ("&limit=1" if "limit" not in target else ""), headers={"Accept": accept})
    if not file:
        assert answer.status_code == 400  # the path has the table: naming it again is no parameter
        return
    assert answer.status_code == 200
    assert answer.content_type.partition(";")[0] == type
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{file}"'
    negotiated = "?table" in target and "format=" not in target and "people.json" not in target
    assert answer.headers["Vary"] == ("Accept, Accept-Encoding" if negotiated else "Accept-Encoding")


def test_what_cannot_be_had_is_said(client: FlaskClient) -> None:
    """No acceptable format is a 406, an ending of no format a 404, an option of another format a 400."""
    assert client.get("/api/export?table=users", headers={"Accept": "image/png"}).status_code == 406
    assert client.get("/api/export/users.xlsx").status_code == 404
    assert client.get("/api/export/users.json?excel=1").json["parameter"] == "excel"
    assert client.get("/api/export/users.arrows?length=exact").json["parameter"] == "length"
    assert client.get("/api/export/nothing.csv").status_code == 404
    assert client.get("/api/export/no-such-receipt").status_code == 404


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("id.gt=abc", "id.gt"),
        ("nothing.eq=1", "nothing.eq"),
        ("name.like=%25%5C", "name.like"),
        ("city.is=maybe", "city.is"),
        ("city.is.null=2", "city.is.null"),
        ("id.between=1", "id.between"),
        ("id.in=" + ",".join(["1"] * 1001), "id.in"),
        ("columns=nothing&id.gt=1", "columns"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(client: FlaskClient, query: str, parameter: str) -> None:
    """A 400 names the parameter as it was given."""
    for path in ("/api/export/users.csv", "/api/stream-json", "/api/stream-safe"):
        answer = client.get(f"{path}?{query}{'' if 'csv' in path else '&table=users'}")
        assert (answer.status_code, answer.json["parameter"]) == (400, parameter)


def test_conditions_over_http(server: LiveServer, rows: list[tuple[Any, ...]]) -> None:
    """Conditions, order, columns and limit together give the rows that they say, in each route."""
    query = "columns=id,city&id.gt=100&id.le=90000&city.is.null=&email.like=%25.org&order=desc&limit=500"
    expected = [
        {"id": row[0], "city": None}
        for row in reversed(rows)
        if 100 < row[0] <= 90000 and row[3] is None and row[2].endswith(".org")
    ][:500]
    for path in ("/api/export/users.ndjson?", "/api/stream-json?table=users&", "/api/stream-safe?table=users&"):
        assert [json.loads(line) for line in get(server, path + query).body.splitlines()] == expected
    assert json.loads(get(server, f"/api/export/users.json?{query}").body) == expected
    sequence = bytes(get(server, f"/api/export/users.json-seq?{query}").body)
    assert sequence.startswith(b"\x1e")
    assert [json.loads(text) for text in sequence.split(b"\x1e")[1:]] == expected


def test_nothing_is_still_a_file(server: LiveServer) -> None:
    """Without rows each format is whole: a header, an empty array, an empty stream."""
    query = "?columns=id,name&limit=0"
    assert bytes(get(server, "/api/export/users.csv" + query).body) == b"id,name\r\n"
    assert bytes(get(server, "/api/export/users.ndjson" + query).body) == b""
    assert json.loads(get(server, "/api/export/users.json" + query).body) == []
    assert pa.ipc.open_stream(bytes(get(server, "/api/export/users.arrows" + query).body)).read_all().num_rows == 0


def test_for_spreadsheets(server: LiveServer, rows: list[tuple[Any, ...]]) -> None:
    """excel=1: a byte order mark, and an apostrophe before what would run as a formula; numbers stay numbers."""
    body = bytes(get(server, "/api/export/users.csv?excel=1&columns=note,balance&limit=2000").body)
    assert body.startswith(b"\xef\xbb\xbfnote,balance\r\n")
    table = pandas.read_csv(io.BytesIO(body), keep_default_na=False, lineterminator="\n", encoding="utf-8-sig")
    for note, row in zip(table["note"], rows, strict=False):
        text = row[5] or ""
        # pandas takes the CR of the line's end for text, but only behind the last field.
        assert note == ("'" if text.startswith(("=", "+", "-", "@", "\t")) else "") + text
    assert b",-4920.81\r\n" in body


def test_the_schema_is_csv_on_the_web(client: FlaskClient) -> None:
    """The described-by link leads to the metadata that CSV on the Web looks for beside the file."""
    answer = client.head("/api/export/users.csv?columns=id,note")
    link = answer.headers["Link"]
    assert link.endswith('>; rel="describedby"; type="application/csvm+json"')
    schema = client.get(link[1 : link.index(">")])
    assert schema.content_type == "application/csvm+json"
    assert schema.json["@context"] == "http://www.w3.org/ns/csvw"
    assert schema.json["tableSchema"]["primaryKey"] == "id"
    columns = [(each["titles"], each["datatype"]) for each in schema.json["tableSchema"]["columns"]]
    assert columns == [("id", "integer"), ("note", "string")]


# Receipts


def test_a_receipt_says_what_was_sent(server: LiveServer) -> None:
    """Rows, bytes, first and last key, and the SHA-256 of what the client has."""
    answer = get(server, "/api/export/users.ndjson?columns=id,name&after=10&limit=3000&order=asc")
    told = receipt(server, answer)
    assert told["complete"] is True
    assert (told["rows"], told["first"], told["last"]) == (3000, "11", "3010")
    assert (told["bytes"], told["sha256"]) == (len(answer.body), hashlib.sha256(answer.body).hexdigest())
    assert (told["table"], told["format"], told["columns"]) == ("users", "ndjson", ["id", "name"])
    assert told["snapshot"] == answer.header("export-snapshot") != ""


@pytest.mark.parametrize("coded", ["gzip", "zstd"])
def test_a_receipt_is_of_the_content_before_its_coding(server: LiveServer, coded: str) -> None:
    """Who decompresses can compare."""
    answer = get(server, "/api/export/users.csv?limit=2000", ("Accept-Encoding", coded))
    content = gzip.decompress(answer.body) if coded == "gzip" else _unzstd(bytes(answer.body))
    assert receipt(server, answer)["sha256"] == hashlib.sha256(content).hexdigest()


def test_progress_can_be_followed(server: LiveServer) -> None:
    """Events of the id that the client chose: at the beginning the estimate, at the end the receipt; then 204."""
    with RawClient(server.port) as watcher:
        watcher.request("GET", "/api/export/my-own", [("Accept", "text/event-stream")]).read_head()
        answer = get(server, "/api/export/users.csv?id=my-own&limit=20000")
        assert answer.header("export-receipt") == "/api/export/my-own"
        events = parse_events(bytes(watcher.read_to_end().body))
    assert events[0].type == "progress"
    assert json.loads(events[0].data)["estimate"] == 20000
    assert events[-1].type == "complete"
    assert json.loads(events[-1].data)["rows"] == 20000
    last = [("Accept", "text/event-stream"), ("Last-Event-ID", events[-1].id)]
    assert get(server, "/api/export/my-own", *last).status == 204
    assert get(server, "/api/export/users.csv?id=my-own&limit=1").status == 409


def test_a_client_that_leaves_has_no_complete_receipt(server: LiveServer) -> None:
    """The receipt of what was cut says so, and how far it came."""
    with RawClient(server.port, receive_buffer_bytes=4096) as client:
        answer = client.request("GET", "/api/export/users.csv").read_body_until(b"\r\n100,")
        path = answer.header("export-receipt")
        client.reset()
    told = eventually(lambda: _ended(server, path), 5.0)
    assert (told["complete"], told["state"]) == (False, "failed")
    assert 0 < told["rows"] < ROWS
    assert "sha256" not in told


def _ended(server: LiveServer, path: str) -> dict[str, Any] | None:
    told = json.loads(server.get(path)[1])
    return told if told["state"] != "progress" else None


# Codings


def _unzstd(data: bytes) -> bytes:
    return zstd.decompress(data)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("gzip;q=0", ""),
        ("zstd;q=0, gzip;q=0.1", "gzip"),
        ("*", ""),
        ("identity", ""),
        ("identity, gzip;q=0.5", ""),
        ("x-gzip", "gzip"),
        ("br", ""),
        ("GZIP", "gzip"),
        ("gzip;q=much", ""),
    ],
)
def test_a_coding_is_negotiated(accept: str, expected: str) -> None:
    """RFC 9110, 12.5.3: what is liked best of what we have, and nothing that was not asked for."""
    assert coding(accept) == expected


@pytest.mark.parametrize(("name", "make", "unmake"), [("gzip", Gzip, gzip.decompress), ("zstd", Zstd, _unzstd)])
def test_a_compressor_is_incremental(name: str, make: Callable[[], Any], unmake: Callable[[bytes], bytes]) -> None:
    """Whole, byte by byte and with syncs in between: it decompresses to what was put in."""
    data = bytes(range(256)) * 40
    whole = make()
    assert unmake(whole.encode(data) + whole.flush()) == data
    piecewise = make()
    out = b"".join(
        piecewise.encode(data[at : at + 1]) + (piecewise.sync() if at % 97 == 0 else b"") for at in range(4000)
    )
    assert unmake(out + piecewise.flush()) == data[:4000]


def test_the_first_block_can_be_read_at_once(server: LiveServer) -> None:
    """What is compressed is not held back: the header line can be read from the first bytes alone."""
    with RawClient(server.port, receive_buffer_bytes=4096) as client:
        answer = client.request("GET", "/api/export/users.csv", [("Accept-Encoding", "gzip")]).read_until(
            lambda answer: len(answer.body) > 200
        )
        import zlib

        assert zlib.decompressobj(31).decompress(answer.body[:60]).startswith(b"id,name,email")
        assert answer.header("content-encoding") == "gzip"


# Lengths and ranges

EXACT = "/api/export/users.csv?length=exact&limit=30000"


@pytest.fixture(scope="module")
def whole(server: LiveServer) -> Answer:
    return get(server, EXACT)


@pytest.mark.parametrize("format", ["csv", "ndjson", "json", "json-seq"])
def test_a_known_length_is_the_same_file(server: LiveServer, format: str) -> None:
    """length=exact changes nothing but that the length, the digest and the ETag are known before."""
    path = f"/api/export/users.{format}?limit=3000"
    plain, exact = get(server, path), get(server, path + "&length=exact")
    assert exact.body == plain.body
    assert int(exact.header("content-length")) == len(plain.body)
    assert "transfer-encoding" not in dict(exact.headers)
    digest = base64.b64encode(hashlib.sha256(plain.body).digest()).decode()
    assert exact.header("repr-digest") == f"sha-256=:{digest}:"
    assert receipt(server, exact)["sha256"] == hashlib.sha256(plain.body).hexdigest()


@pytest.mark.parametrize("format", ["csv", "ndjson", "json", "json-seq"])
@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-", 0, None),
        ("bytes=1-1", 1, 2),
        ("bytes=0-0", 0, 1),
        ("bytes=1500001-", 1_500_001, None),
        ("bytes=1500001-1600000", 1_500_001, 1_600_001),
        ("bytes=-1", -1, None),
        ("bytes=-100000", -100_000, None),
        ("bytes=5-99999999999", 5, None),
    ],
)
def test_a_range_is_those_bytes(server: LiveServer, format: str, asked: str, begin: int, end: int | None) -> None:
    """206 with exactly the bytes of the whole, from the database (RFC 9110, 14 and 15.3.7)."""
    target = f"/api/export/users.{format}?length=exact&limit=30000"
    data = bytes(get(server, target).body)
    part = get(server, target, ("Range", asked))
    first = begin % len(data)
    last = (len(data) if end is None else end) - 1
    assert part.status == 206
    assert part.header("content-range") == f"bytes {first}-{last}/{len(data)}"
    assert bytes(part.body) == data[first : last + 1]


@pytest.mark.slow
def test_conditions_on_the_content(server: LiveServer, whole: Answer) -> None:
    """If-Range with another ETag sends the whole, If-None-Match with this one nothing, a range behind the end 416."""
    etag, length = whole.header("etag"), len(whole.body)
    resumed = get(server, EXACT, ("Range", "bytes=7-"), ("If-Range", etag))
    assert (resumed.status, len(resumed.body)) == (206, length - 7)
    assert get(server, EXACT, ("Range", "bytes=7-"), ("If-Range", '"another"')).status == 200
    assert get(server, EXACT, ("If-None-Match", etag)).status == 304
    beyond = get(server, EXACT, ("Range", f"bytes={length}-"))
    assert (beyond.status, beyond.header("content-range")) == (416, f"bytes */{length}")
    for ignored in ("bytes=5-2", "items=0-1", "bytes=0-0,2-3", "bytes=a-b"):
        assert get(server, EXACT, ("Range", ignored)).status == 200
    with RawClient(server.port) as client:
        head = client.request("HEAD", EXACT).read_to_end()
    assert (head.header("etag"), head.header("content-length"), head.body) == (etag, str(length), b"")


@pytest.mark.slow
def test_the_etag_changes_with_the_data(live_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    """Any change of any byte changes the ETag, and undone it is the same; a range of the old data is not continued."""
    path = tmp_path / "changing.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 50) for n in range(2000)])
        server = live_server(DATABASE_URL=f"sqlite:///{path}", EXPORT_TABLES="t")
        target = "/api/export/t.csv?length=exact"
        etags = [get(server, target).header("etag")]
        for statement in (
            "UPDATE t SET v = 'y' || substr(v, 2) WHERE id = 1000",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t VALUES (1, 'new')",
            "UPDATE t SET v = 'x' || substr(v, 2) WHERE id = 1000",
        ):
            database.execute(statement)
            resumed = get(server, target, ("Range", "bytes=100-"), ("If-Range", etags[-1]))
            assert resumed.status == 200
            etags.append(resumed.header("etag"))
        assert len(set(etags)) == len(etags)
        database.execute("UPDATE t SET v = ? WHERE id = 1", ("x" * 50,))
        assert get(server, target).header("etag") == etags[0]


def test_ranges_are_those_of_files(server: LiveServer) -> None:
    """RFC 9110, 13 and 14: what is no range, or several, gets the whole; a condition on the tag holds or not."""
    target = "/api/export/users.csv?length=exact&limit=20"
    whole = get(server, target)
    tag, body = whole.header("etag"), bytes(whole.body)
    for header in ("bytes=5-4", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=0-1;"):
        answer = get(server, target, ("Range", header))
        assert (answer.status, bytes(answer.body)) == (200, body), header
    for header, part in (("bytes=3-5", body[3:6]), ("bytes=-3", body[-3:]), ("bytes=1-4,2-6", body[1:7])):
        answer = get(server, target, ("Range", header))
        assert (answer.status, bytes(answer.body)) == (206, part), header
    for condition, status in ((tag, 206), ('"other"', 200), (f"W/{tag}", 200), ("Mon, 01 Jan 2024 00:00:00 GMT", 200)):
        assert get(server, target, ("Range", "bytes=3-5"), ("If-Range", condition)).status == status, condition
    for name, value, status in (
        ("If-Match", '"other"', 412),
        ("If-Match", tag, 200),
        ("If-None-Match", f"W/{tag}", 304),
    ):
        assert get(server, target, (name, value)).status == status, (name, value)


# Real clients


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} here")
    return found


def interrupted(server: LiveServer, target: str, size: int, path: Path) -> None:
    """The first ``size`` bytes of the file, as a lost connection leaves them."""
    with RawClient(server.port, receive_buffer_bytes=8192) as client:
        answer = client.request("GET", target).read_until(lambda answer: len(answer.body) >= size)
        client.reset()
    path.write_bytes(answer.body[:size])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "command"),
    [
        ("csv", "curl -sf -C - -o {file} {url}"),
        ("json", "curl -sf -C - -o {file} {url}"),
        ("ndjson", "wget -q -c -O {file} {url}"),
    ],
)
def test_an_interrupted_transfer_continues(server: LiveServer, tmp_path: Path, ending: str, command: str) -> None:
    """curl and wget go on where they were, several times, and have the same SHA-256 as who got it at once."""
    need(command.split()[0])
    target = f"/api/export/users.{ending}?length=exact&limit=50000"
    digest = hashlib.sha256(get(server, target).body).hexdigest()
    file = tmp_path / "users"
    for size in (1_000_003, 5_000_001):
        interrupted(server, target, size, file)
        arguments = [part.format(file=file, url=server.url + target) for part in command.split()]
        subprocess.run(arguments, check=True, timeout=60)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    assert " 206 " in server.log_text()


def test_pandas_reads_them(server: LiveServer, rows: list[tuple[Any, ...]]) -> None:
    """pandas, from the address: CSV as a table, NDJSON as lines, JSON as an array; the same values."""
    query = "?limit=3000&columns=id,name,balance"
    csv = pandas.read_csv(f"{server.url}/api/export/users.csv{query}")
    lines = pandas.read_json(f"{server.url}/api/export/users.ndjson{query}", lines=True)
    array = pandas.read_json(f"{server.url}/api/export/users.json{query}")
    for table in (csv, lines, array):
        assert list(table["id"]) == [row[0] for row in rows[:3000]]
        assert list(table["name"]) == [row[1] for row in rows[:3000]]
        assert [None if pandas.isna(each) else each for each in table["balance"]] == [row[4] for row in rows[:3000]]


@pytest.mark.may_leak(reason="polars starts its threads at the first read, and keeps them")
def test_polars_reads_them(server: LiveServer, rows: list[tuple[Any, ...]]) -> None:
    """polars: NULL and the empty string apart, texts with line ends whole."""
    body = bytes(get(server, "/api/export/users.csv?limit=5000").body)
    table = polars.read_csv(body)
    assert table.height == 5000
    assert table["note"].to_list() == [row[5] for row in rows[:5000]]
    lines = polars.read_ndjson(bytes(get(server, "/api/export/users.ndjson?limit=5000").body))
    assert lines.rows() == rows[:5000]


@pytest.mark.slow
@pytest.mark.may_leak(reason="polars starts its threads at the first scan, and keeps them")
def test_polars_scans_by_range(server: LiveServer) -> None:
    """polars' scan of an address asks for the length and for ranges, and gets them from the database."""
    url = f"{server.url}/api/export/users.csv?length=exact&columns=id,balance"
    before = server.log_text().count(" 206 ")
    found = polars.scan_csv(url).select(polars.col("id").sum(), polars.len().alias("n")).collect()
    assert server.log_text().count(" 206 ") > before
    assert found.row(0) == (ROWS * (ROWS + 1) // 2, ROWS)


@pytest.mark.slow
def test_duckdb_reads_them(server: LiveServer, rows: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """DuckDB's sniffer finds the dialect by itself, and every row in it; NDJSON too."""
    for ending, reader in (("csv", "read_csv"), ("ndjson", "read_json")):
        path = tmp_path / f"users.{ending}"
        path.write_bytes(get(server, f"/api/export/users.{ending}").body)
        with duckdb.connect() as connection:
            found = connection.execute(f"SELECT count(*), sum(id), count(city) FROM {reader}('{path}')").fetchone()
        cities = sum(row[3] not in ((None, "") if ending == "csv" else (None,)) for row in rows)
        assert found is not None
        assert found[:2] == (ROWS, ROWS * (ROWS + 1) // 2)
        assert found[2] in (cities, sum(row[3] is not None for row in rows))


@pytest.mark.slow
@pytest.mark.may_leak(reason="DuckDB starts its threads at the first query, and keeps them")
def test_duckdb_continues(server: LiveServer) -> None:
    """DuckDB reads an address; where its connection is cut it asks again, by range, and misses no row."""
    wheel = pytest.importorskip("duckdb_extension_httpfs", reason="there is no httpfs for this machine")
    extension = next(Path(wheel.__path__[0]).glob("extensions/*/httpfs.duckdb_extension"))
    with (
        CuttingProxy(server.port, answer_cuts=(1_000_003, 2_000_001)) as proxy,
        duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection,
    ):
        connection.execute(f"LOAD '{extension}'")
        url = f"http://127.0.0.1:{proxy.port}/api/export/users.csv?length=exact&columns=id,email"
        found = connection.execute(f"SELECT count(*), sum(id), count(DISTINCT id) FROM read_csv('{url}')").fetchone()
        assert proxy.cut == 2
    assert found == (ROWS, ROWS * (ROWS + 1) // 2, ROWS)


def test_jq_reads_them(server: LiveServer) -> None:
    """jq: lines, an array, and a text sequence with --seq."""
    jq = need("jq")
    for ending, arguments in (
        ("ndjson", ["-s", "map(.id) | add"]),
        ("json", ["map(.id) | add"]),
        ("json-seq", ["--seq", "-n", "[inputs.id] | add"]),
    ):
        body = bytes(get(server, f"/api/export/users.{ending}?limit=1000").body)
        done = subprocess.run([jq, *arguments], input=body, capture_output=True, timeout=30, check=True)
        assert done.stdout.strip(b"\x1e\n") == b"500500", ending


def test_arrow_reads_it(server: LiveServer, rows: list[tuple[Any, ...]]) -> None:
    """pyarrow and polars read the stream as it comes: types, NULL, the empty string, every row."""
    with urllib.request.urlopen(f"{server.url}/api/export/users.arrows?limit=20000", timeout=30) as answer:
        table = pa.ipc.open_stream(answer).read_all()
    assert table.schema.field("id").type == pa.int64()
    assert table.schema.field("balance").type == pa.float64()
    assert [tuple(row.values()) for row in table.to_pylist()] == rows[:20000]


def test_requests_decompresses(server: LiveServer, rows: list[tuple[Any, ...]]) -> None:
    """requests asks for gzip on its own, and reads the rows as they come."""
    with requests.get(f"{server.url}/api/export/users.ndjson?limit=5000", stream=True, timeout=30) as answer:
        assert answer.headers["Content-Encoding"] in ("gzip", "zstd")
        assert [json.loads(line)["id"] for line in answer.iter_lines()] == [row[0] for row in rows[:5000]]


# Failures


@pytest.mark.parametrize("coded", ["", "gzip"])
@pytest.mark.parametrize("format", ["csv", "ndjson", "json", "json-seq", "arrow"])
def test_a_failure_is_visible(broken: LiveServer, format: str, coded: str) -> None:
    """In the middle the database fails: the format that can say it does, every connection is cut, the receipt tells."""
    answer = get(broken, f"/api/export?table=failing&format={format}", ("Accept-Encoding", coded or "identity"))
    assert (answer.status, answer.end) == (200, "cut")
    if format in ("ndjson", "json-seq") and not coded:
        assert json.loads(bytes(answer.body).splitlines()[-1].strip(b"\x1e")) == {"error": "Stream failed"}
    told = receipt(broken, answer)
    assert (told["complete"], told["error"]) == (False, "The database could not answer.")


def test_a_failure_before_the_length_is_a_status(broken: LiveServer) -> None:
    """With length=exact the failure comes before the first byte: a 503, not a file."""
    assert get(broken, "/api/export/failing.csv?length=exact").status == 503


def test_stream_safe_of_a_table_ends_clean(broken: LiveServer) -> None:
    """A failure of the database, or one that was asked for, is the last line, and the end is clean."""
    answer = get(broken, "/api/stream-safe?table=failing")
    assert answer.end == "clean"
    *lines, last = answer.body.splitlines()
    assert json.loads(last) == {"error": "Stream failed"}
    assert [json.loads(line)["id"] for line in lines] == list(range(1, len(lines) + 1))
    injected = get(broken, "/api/stream-safe?table=numbers&fail_after=60")
    assert injected.end == "clean"
    assert [json.loads(line) for line in injected.body.splitlines()] == [
        *({"id": n} for n in range(1, 61)),
        {"error": "Stream failed"},
    ]
    assert get(broken, "/api/stream-safe?table=numbers&fail_after=20000").body.count(b"\n") == 20000


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose tables include one that fails in its middle."""
    folder = tmp_path_factory.mktemp("broken")
    path = folder / "broken.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(
            """
            CREATE TABLE numbers (id INTEGER PRIMARY KEY);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                INSERT INTO numbers SELECT i FROM n;
            CREATE VIEW failing AS
                SELECT id, CASE WHEN id = 19000 THEN json('{') ELSE 'a text of some length' END AS text FROM numbers;
            """
        )
    server = LiveServer(folder, {"EXPORT_TABLES": "numbers,failing", "DATABASE_URL": f"sqlite:///{path}"})
    try:
        yield server.start()
    finally:
        server.stop()


# PostgreSQL behind the server

needs_postgres = pytest.mark.skipif(programs() is None, reason="there is no PostgreSQL for this machine")


@pytest.fixture(scope="module")
def elephant(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose tables are in PostgreSQL."""
    postgres.execute("CREATE DATABASE served")
    with postgres.connect("served") as connection:
        connection.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance bigint, pad text)")
        connection.execute("INSERT INTO accounts SELECT n, 100, repeat('x', 100) FROM generate_series(1, 50000) AS n")
        connection.execute("CREATE VIEW endless AS SELECT count(*) AS id FROM generate_series(1, 1000000000000) AS n")
        connection.execute("CREATE VIEW failing AS SELECT id, 1 / (id - 40000) AS v FROM accounts")
        connection.execute("ANALYZE")
    environment = {
        "EXPORT_TABLES": "accounts,endless,failing",
        "DATABASE_URL": postgres.url("served"),
        "SEND_TIMEOUT_S": 2,
    }
    server = LiveServer(tmp_path_factory.mktemp("elephant"), environment)
    try:
        yield server.start()
    finally:
        server.stop()
        postgres.execute("DROP DATABASE served WITH (FORCE)")


@needs_postgres
def test_postgres_answers_like_sqlite(elephant: LiveServer) -> None:
    """The list, an export with its receipt, a range: the routes know no difference."""
    tables = {each["name"]: each for each in json.loads(elephant.get("/api/export")[1])["tables"]}
    assert (tables["accounts"]["key"], tables["accounts"]["rows"]) == ("id", 50000)
    assert tables["endless"]["unique"] is False
    exact = get(elephant, "/api/export/accounts.csv?length=exact")
    assert receipt(elephant, exact)["sha256"] == hashlib.sha256(exact.body).hexdigest()
    part = get(elephant, "/api/export/accounts.csv?length=exact", ("Range", "bytes=3000001-"))
    assert (part.status, part.body) == (206, exact.body[3000001:])
    assert get(elephant, "/api/export/failing.csv").end == "cut"
    assert get(elephant, "/api/export/accounts.csv?id.eq=x").status == 400


@needs_postgres
def test_a_client_that_leaves_ends_the_query_in_postgres(elephant: LiveServer, postgres: PostgresServer) -> None:
    """Before the first row the query runs; the client goes, and soon nothing runs any more."""
    for _ in range(3):
        with RawClient(elephant.port) as client:
            client.request("GET", "/api/export/endless.csv").read_body_until(b"id\r\n")
            eventually(lambda: postgres.backends() == 1, 5.0)
            client.reset()
        began = time.monotonic()
        eventually(lambda: postgres.backends() == 0, 5.0)
        assert time.monotonic() - began < 2.0  # 50 ms are promised; the bound leaves room for a busy machine


@needs_postgres
def test_transfers_keep_their_sum(elephant: LiveServer, postgres: PostgresServer) -> None:
    """Money moves between accounts while exports run; each export shows the whole of it."""
    url = "/api/export/accounts.ndjson?columns=id,balance"
    with postgres.connect("served") as connection, RawClient(elephant.port, receive_buffer_bytes=4096) as client:
        client.request("GET", url).read_until(lambda answer: len(answer.body) > 10_000)
        for n in range(1, 200):
            with connection.transaction():
                connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", (n, n))
                connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (n, 50001 - n))
        answer = client.read_to_end(30)
    accounts = [json.loads(line) for line in answer.body.splitlines()]
    assert [each["id"] for each in accounts] == list(range(1, 50001))
    assert sum(each["balance"] for each in accounts) == 100 * 50000
    assert {each["balance"] for each in accounts} == {100}


@needs_postgres
def test_a_killed_backend_cuts_the_export(elephant: LiveServer, postgres: PostgresServer) -> None:
    """The connection to the client is cut, the receipt says why, and the next export works."""
    with RawClient(elephant.port, receive_buffer_bytes=4096) as client:
        answer = client.request("GET", "/api/export/accounts.csv").read_until(lambda answer: len(answer.body) > 10_000)
        postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'")
        assert client.read_to_end(30).end == "cut"
    assert "closed the connection" in receipt(elephant, answer)["error"]
    assert get(elephant, "/api/export/accounts.csv?limit=1").end == "clean"


@pytest.fixture
def nginx(elephant: LiveServer, tmp_path: Path) -> Iterator[int]:
    """nginx in front, as docs/operations.md sets it up; its port."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("there is no nginx here")
    port = free_port()
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; location / {{\n"
        f'proxy_pass http://127.0.0.1:{elephant.port}; proxy_http_version 1.1; proxy_set_header Connection "";\n'
        "proxy_buffering off; }}}\n"
    )
    process = subprocess.Popen([program, "-c", str(config), "-e", str(tmp_path / "error.log")], cwd=tmp_path)
    try:
        eventually(lambda: listens(port), 10.0, "nginx listens")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@needs_postgres
def test_a_client_that_leaves_nginx_ends_the_query_too(nginx: int, postgres: PostgresServer) -> None:
    """Through the proxy a client that leaves before the first row ends its query as well."""
    with RawClient(nginx) as client:
        client.request("GET", "/api/export/endless.csv").read_body_until(b"id\r\n")
        eventually(lambda: postgres.backends() == 1, 5.0)
        client.close()
    began = time.monotonic()
    eventually(lambda: postgres.backends() == 0, 5.0)
    assert time.monotonic() - began < 2.0  # some milliseconds; the bound leaves room for a busy machine


@needs_postgres
def test_a_failure_is_visible_through_nginx(nginx: int) -> None:
    """What is cut behind the proxy is cut in front of it."""
    with RawClient(nginx) as client:
        answer = client.request("GET", "/api/export/failing.csv").read_to_end(30)
    assert (answer.status, answer.end) == (200, "cut")


@needs_postgres
@pytest.mark.slow
def test_a_reader_without_progress_gives_its_snapshot_back(elephant: LiveServer, postgres: PostgresServer) -> None:
    """Whoever reads nothing for SEND_TIMEOUT_S is cut: no transaction stays open behind a client that sleeps."""
    with RawClient(elephant.port, receive_buffer_bytes=4096) as client:
        answer = client.request("GET", "/api/export/accounts.csv").read_until(lambda answer: len(answer.body) > 1000)
        eventually(lambda: postgres.backends() == 1, 5.0)
        eventually(lambda: postgres.backends() == 0, 20.0, "the transaction has ended")
        assert receipt(elephant, answer)["state"] == "failed"


@pytest.mark.slow
def test_a_damaged_disk_is_visible(live_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    """Pages of the file that cannot be read end the export in a cut, and the receipt says what it was."""
    path = tmp_path / "damaged.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(20000)])
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 65536)
    server = live_server(DATABASE_URL=f"sqlite:///{path}", EXPORT_TABLES="t")
    answer = get(server, "/api/export/t.csv")
    assert (answer.status, answer.end) == (200, "cut")
    told = receipt(server, answer)
    assert (told["complete"], told["error"]) == (False, "The database file is damaged.")
    assert 0 < told["rows"] < 20000

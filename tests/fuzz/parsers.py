"""All that reads bytes or text from outside, as functions of bytes: what one of them raises is a finding.

Rules:
- A parser may refuse, with the errors that it names; any other exception is a finding, and so is one of the assertions
  here: a codec's outcome must not depend on where its input was cut.
- Everything here is pure, or is made once: an input replays by itself (``python -m tests.fuzz --replay NAME HEX``).
- ``seeds`` are what it takes, or nearly: from them the fuzzers learn its words.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask
import jwt
import msgspec

from blueprints import access as access_blueprint
from blueprints import events as events_blueprint
from blueprints import forms as forms_blueprint
from llm import chunked, chunks, messages, refusals, sse
from settings import Settings
from stores import copy_messages, csv_fields, offsets
from stores.errors import UnknownOffset
from stores.seed import make_sample_database
from stores.sqlite_tables import SQLiteTables
from streaming import (
    accounts,
    chat_answers,
    conditions,
    content_codings,
    cursors,
    digests,
    durable,
    durable_framings,
    file_names,
    grants,
    media_types,
    origins,
    positions,
    publishing,
    queries,
    ranges,
    static_tokens,
    tus,
    upload_draft,
    url_tokens,
)
from streaming.chat_framings import ChatText, DataStream, UIMessageStream
from streaming.chat_parts import Parts
from streaming.completion_framings import CompletionChunks
from streaming.conditions import Validators
from streaming.errors import BadRequest, Problem, StreamFailed, TooLarge
from streaming.multipart import FormFile
from streaming.pipeline import TRANSFORMS, Limits, Pipeline
from streaming.signed_tokens import SignedTokens
from streaming.slowness import Slowest
from tests import pieces
from tests.clients import parse_events

NOW_S = 1_790_000_000.0
_KEY = "k" * 32
_TOKENS = SignedTokens(_KEY, None, "", "", 3600.0, lambda: NOW_S)
Feed = Callable[[bytes], None]


@dataclass(frozen=True)
class Parser:
    feed: Feed
    seeds: tuple[bytes, ...]


def _of_text(parse: Callable[[str], object], *refusals: type[Exception]) -> Feed:
    """As WSGI hands headers over: in Latin-1."""

    def feed(data: bytes) -> None:
        with contextlib.suppress(*refusals):
            parse(data.decode("latin-1"))

    return feed


def _of_headers(names: Sequence[str], parse: Callable[[dict[str, str]], object], *refusals: type[Exception]) -> Feed:
    """A line for each name, an empty one for a header that is not there."""

    def feed(data: bytes) -> None:
        lines = data.decode("latin-1").split("\n")
        with contextlib.suppress(*refusals):
            parse({name: line for name, line in zip(names, lines, strict=False) if line})

    return feed


def _cuts(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2]) for at in range(0, min(len(data), 8), 2)]


def _of_codec(make: Callable[[], Any]) -> Feed:
    def feed(data: bytes) -> None:
        pieces.same(make, data[:4096], _cuts(data))

    return feed


def _in_every_way(outcome: Callable[[list[bytes]], object], *refusals: type[Exception]) -> Feed:
    """The outcome of the whole, of single bytes and of some pieces, which must be one."""

    def told(cut: list[bytes]) -> object:
        try:
            return outcome(cut)
        except refusals as error:
            return type(error)

    def feed(data: bytes) -> None:
        data = data[:4096]
        found = [told(cut) for cut in ([data], pieces.singly(data), pieces.cut(data, _cuts(data)))]
        assert found[1:] == found[:1] * 2, found

    return feed


def _range(fields: dict[str, str]) -> None:
    current = Validators('"abc"', int(NOW_S) - 1000)
    for method in ("GET", "HEAD"):
        found = ranges.resolve(method, fields, current, 1000, NOW_S)
        assert all(0 <= span.first < span.end <= 1000 for span in found.spans), found
    conditions.precondition(fields, current, NOW_S)


def _sse(cut: list[bytes]) -> object:
    decoder = sse.Decoder()
    told = [message for piece in cut for message in decoder.decode(piece)]
    return told + decoder.flush()


def _as_a_browser(data: bytes) -> None:
    parse_events(data)


def _chunked(cut: list[bytes]) -> object:
    decoder, body = chunked.Chunked(), b""
    for piece in cut:
        if not decoder.ended:
            body += decoder.decode(piece)
    return body, decoder.ended


def _form(data: bytes) -> None:
    """What is taken is the same in every way. Werkzeug may refuse a part without a body (not an empty one) by a cut."""
    data = data[:4096]
    for fields_bytes, required in ((0, True), (1024, False)):
        taken = []
        for cut in ([data], pieces.singly(data), pieces.cut(data, _cuts(data))):
            form = FormFile(cut, b"xyz", fields_bytes, required)
            with contextlib.suppress(BadRequest, TooLarge):
                taken.append((b"".join(form), form.filename, form.fields))
        assert taken[1:] == taken[:1] * (len(taken) - 1), taken


def _fields(data: bytes) -> None:
    """A form as browsers send it without files: no value has a CRLF, and all of it is text."""
    form = "application/x-www-form-urlencoded"
    environ = {"CONTENT_TYPE": form, "wsgi.input": io.BytesIO(data), "CONTENT_LENGTH": str(len(data))}
    with _flask().test_request_context(method="POST", environ_overrides=environ), contextlib.suppress(Problem):
        for name, values in forms_blueprint._fields().items():
            assert not any("\r\n" in value for value in values), values
            "".join((name, *values)).encode()


def _chunk(data: bytes) -> None:
    """What a model says, on its way through the parts of an answer into each encoding."""
    parts = Parts("", "a-model", 0, 0)
    with contextlib.suppress(StreamFailed):
        events = list(chunks.events(chunks.read(sse.Message(data))))
        told = [*parts.begin(), *(part for event in events for part in parts.add(event))]
        for framing in (ChatText(), DataStream(), UIMessageStream("abcdef", 0), CompletionChunks(with_usage=True)):
            for part in told:
                framing.encode(part)


def _login(data: bytes) -> None:
    environ = {"CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(data), "CONTENT_LENGTH": str(len(data))}
    with _flask().test_request_context(method="POST", environ_overrides=environ), contextlib.suppress(Problem):
        access_blueprint._token()


def _question(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        json.dumps(messages.read(data).messages)


def _json_messages(data: bytes) -> None:
    """What is taken is what Python reads, and comes back as one array."""
    with contextlib.suppress(BadRequest, TooLarge, RecursionError):
        taken = durable.events(data, durable.JSON)
        value = json.loads(data) if data else []
        assert json.loads(durable_framings.body(taken, durable.JSON)) == (
            value if isinstance(value, list) else [value]
        ), taken


def _path(data: bytes) -> None:
    with contextlib.suppress(Problem):
        path = durable.stream_path(data)
        assert path.encode() == data
        assert not {"", ".", ".."} & set(path.split("/"))


def _copy(data: bytes) -> None:
    """Rows as PostgreSQL frames them: what is taken are whole ones."""
    framed = b"".join(b"d" + (4 + len(row) + 1).to_bytes(4) + row + b"\n" for row in data.split(b"|"))
    taken = copy_messages.take(framed[: len(framed) - len(data) % 7], b"\r\n")
    assert taken is None or 0 < taken.end <= len(framed)
    copy_messages.take(data, b"\n")


def _csv_fields(data: bytes) -> None:
    columns = 2 + len(data) % 3
    rows = data.count(csv_fields.ROW) + 1
    csv_fields.csv(data, rows, columns)


def _claims(data: bytes) -> None:
    """A token that is signed well, and says anything."""
    with contextlib.suppress(Problem):
        _TOKENS.caller(jwt.api_jws.PyJWS().encode(data, _KEY, "HS256"), False)


def _pipeline(data: bytes) -> None:
    """Transforms after each other: no bomb, and nothing but the errors that a route can tell."""
    names = sorted(TRANSFORMS)
    pipeline = Pipeline([names[each % len(names)] for each in data[:3] or b"\0"], Limits(2**22, 200))
    with contextlib.suppress(ValueError, TooLarge):
        for made in pipeline.decode(data[3:4096]):
            assert len(made) < 2**23
        list(pipeline.flush())


@functools.cache
def _tables() -> SQLiteTables:
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "app.db"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    make_sample_database(path, 20)
    return SQLiteTables(path, ["users"], 4)


@functools.cache
def _flask() -> flask.Flask:
    app = flask.Flask("fuzz")
    app.extensions |= {"settings": Settings(), "slowest": Slowest.of(Settings())}
    return app


def _quoted(query: bytes) -> str:
    """gunicorn itself refuses a request line that is not ASCII."""
    return urllib.parse.quote(query, safe="".join(map(chr, range(128))))


def _query(data: bytes) -> None:
    """The parameters of an export."""
    environ = {"QUERY_STRING": _quoted(data)}
    with _flask().test_request_context(environ_overrides=environ), contextlib.suppress(Problem):
        asked = cursors.Parameters(*queries.NAMES)
        queries.read_query(asked, _tables())


def _cursors(data: bytes) -> None:
    """The parameters and headers that say where to go on."""
    query, _, header = data.partition(b"\n")
    environ = {"QUERY_STRING": _quoted(query), "HTTP_LAST_EVENT_ID": header.decode("latin-1")}
    with _flask().test_request_context(environ_overrides=environ):
        cursors.last_event_id()
        chat_answers.place("run-0123456789")
        for read in (
            lambda: cursors.Parameters("a", "b", lists=("c",)).integer("a", 1, 0, 100),
            lambda: cursors.Parameters("a", "b", lists=("c",)).number("b", 1.0, 0.0, 60.0),
            lambda: cursors.Parameters("a", "b", lists=("c",)).texts("c", "x", *publishing.NAME, most=16),
            lambda: cursors.Parameters("a", "b", lists=("c",)).flag("a"),
        ):
            with contextlib.suppress(Problem):
                read()


def _notification(data: bytes) -> None:
    kind, _, body = data.partition(b"\n")
    environ = {"CONTENT_TYPE": kind.decode("latin-1")}
    with _flask().test_request_context(environ_overrides=environ), contextlib.suppress(Problem):
        msgspec.json.encode(events_blueprint._notification(body))


def _account(fields: dict[str, str]) -> None:
    accounts.request_id(fields)
    accounts._resumes(fields)


def _host(text: str) -> None:
    origins.is_loopback(origins.host_name(text))
    origins.is_trusted(text, (".example.org", "a.example"))


def _name(text: str) -> None:
    plain = file_names.plain(text)
    assert file_names.plain(plain) == plain
    assert not {"/", "\0"} & set(plain), plain
    media_types.content_type(plain)


def _draft(headers: dict[str, str]) -> None:
    asked = upload_draft.asked(headers)
    for read in (
        lambda: upload_draft.creating(asked),
        lambda: upload_draft.appending(asked, headers.get("Content-Type", "")),
        lambda: upload_draft.length(asked, 0, 10, True, None),
        lambda: upload_draft.interim(asked, {}),
    ):
        with contextlib.suppress(Problem):
            read()


def _tus(headers: dict[str, str]) -> None:
    for read in (
        lambda: tus.check_version(headers),
        lambda: tus.creation(headers, 10**9, "http://h/api/uploads/", True),
        lambda: tus.append(headers),
        lambda: tus.checksum(headers),
    ):
        with contextlib.suppress(Problem):
            read()


_DURABLE = ("Content-Type", "Stream-TTL", "Stream-Expires-At", "Stream-Forked-From", "Stream-Fork-Offset")
_PRODUCER = ("Producer-Id", "Producer-Epoch", "Producer-Seq")
_TUS = ("Tus-Resumable", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat", "Upload-Offset")
_DRAFT = ("Upload-Draft-Interop-Version", "Upload-Complete", "Upload-Offset", "Upload-Length", "Content-Type")
_FORM = b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\nabc\r\n--xyz--\r\n'
_FIELDS = (
    b'--xyz\r\nContent-Disposition: form-data; name="to"\r\n\r\nupper\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="text"\r\n\r\na\r\n\xc3\x9f\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--xyz--\r\n'
)
_PARTS = (
    b'{"id":"c","trigger":"submit-message","messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"a"}]}]}'
)
_DELTA = (
    b'{"choices":[{"index":0,"delta":{"content":"a","tool_calls":[{"index":0}]},"finish_reason":null}],"usage":null}'
)

PARSERS: dict[str, Parser] = {
    "range": Parser(
        _of_headers(("range", "if-range", "if-match", "if-none-match", "if-modified-since"), _range),
        (b'bytes=0-1,-5,7-\n"abc"\n*\nW/"abc", "d"\nSun, 06 Nov 1994 08:49:37 GMT',),
    ),
    "server-sent events": Parser(_in_every_way(_sse, ValueError), (b"event: a\r\ndata: b\rdata\n\nid: 1\n: c\n\n",)),
    "server-sent events, as a browser": Parser(_as_a_browser, (b"\xef\xbb\xbfid: 1\nretry: 5\ndata: b\n\n",)),
    "chunked": Parser(_in_every_way(_chunked, ValueError), (b"4;a=b\r\nabcd\r\n0\r\nA: b\r\n\r\n",)),
    "form": Parser(_form, (_FORM, _FIELDS)),
    "fields of a form": Parser(_fields, (b"id=a&said=x%0D%0Ay&said=&message=%C3%9F+%25", b"a;b=%ff&=")),
    "chunk of a model": Parser(_chunk, (_DELTA, b'{"error":{"message":"a"}}')),
    "login": Parser(_login, (b'{"token":"a","x":[1]}',)),
    "question": Parser(_question, (_PARTS, b'{"messages":[{"role":"user","content":"a"}],"stream":true}')),
    "JSON mode": Parser(_json_messages, (b'[1, {"a": [null, "\\u00e9"]}, "b", 1e5]', b'{"a":-0.5}')),
    "stream path": Parser(_path, ("a/b-ß/c".encode(), b"_/x", b"held/../x")),
    "creation of a stream": Parser(
        _of_headers(_DURABLE, durable.creation, Problem),
        (b"text/plain; charset=utf-8\n60\n2026-11-26T01:02:03.5+01:00\n/v1/stream/a%20b\n-1",),
    ),
    "producer": Parser(_of_headers(_PRODUCER, durable.producer, Problem), (b"p\n0\n9007199254740991",)),
    "place in a stream": Parser(_of_text(durable.place, Problem), (b"-1", b"now", b"000000000042-k3v9ab")),
    "offset": Parser(
        _of_text(lambda text: offsets.to_number(text, [offsets.Segment(1, "k3v9ab", 0, 50)]), UnknownOffset),
        (b"000000000042-k3v9ab",),
    ),
    "cursor of topics": Parser(
        _of_text(lambda text: positions.read(text, ["a", "b"])), (b"a:000000000042-k3v9ab,b:1-x.complete",)
    ),
    "moment": Parser(
        _of_text(lambda text: positions.moment(text, NOW_S), ValueError),
        (b"2026-11-26T01:02:03Z", b"90s", b"1790000000", b"PT1H30M"),
    ),
    "digests": Parser(
        _of_text(lambda text: digests.parse(text, "Repr-Digest"), Problem), (b"sha-256=:AAEC:, md5=:A=:",)
    ),
    "wanted digests": Parser(_of_text(lambda text: digests.wanted(text, "Want"), Problem), (b"sha-256=10, sha-512=0",)),
    "tus": Parser(
        _of_headers(_TUS, _tus), (b"1.0.0\n100\n1\nfilename YQ==,b\nfinal;/api/uploads/a http://h/api/uploads/b\n5",)
    ),
    "upload draft": Parser(_of_headers(_DRAFT, _draft, Problem), (b"8\n?1\n5\n100\napplication/partial-upload",)),
    "accepted codings": Parser(_of_text(content_codings.coding), (b"gzip;q=0.5, zstd, *;q=0, br;q=1.000",)),
    "static tokens": Parser(_of_text(static_tokens.read, ValueError), (b"a " + b"0" * 64 + b" read:/x/* write:/y;b",)),
    "scopes": Parser(_of_text(lambda text: grants.scopes(text.split(" ")), ValueError), (b"read:/a/* write:* *",)),
    "token": Parser(_of_text(lambda text: _TOKENS.caller(text, False), Problem), (b"eyJhbGciOiJIUzI1NiJ9.e30.AA",)),
    "claims": Parser(_claims, (b'{"sub":"a","exp":1790000100,"scope":"read:/x write:*","use":"link","aud":["x"]}',)),
    "token in a URL": Parser(_of_text(url_tokens.without), (b"a=b&access_token=x&c", b"token=%20")),
    "host": Parser(_of_text(_host), (b"a.example.org:80", b"[::1]:8000", b"127.0.0.1")),
    "file name": Parser(_of_text(_name), (b"../a/b.tar.gz", b"a\0b", b".hidden ")),
    "retry-after": Parser(
        _of_text(lambda text: refusals.retry_after_s({"retry-after": text}, NOW_S)),
        (b"120", b"Sun, 06 Nov 1994 08:49:37 GMT", b"1.5"),
    ),
    "account": Parser(
        _of_headers(("HTTP_TRACEPARENT", "HTTP_X_REQUEST_ID", "HTTP_RANGE", "QUERY_STRING"), _account),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\na-b\nbytes=5-\noffset=-1&after=x",),
    ),
    "query of an export": Parser(
        _query, (b"table=users&columns=id,name&city.is.null=&id.in=1,2&name.like=a%25&order=id.desc&after=5&limit=3",)
    ),
    "parameters": Parser(_cursors, (b"a=5&b=1e3&c=x&c=y\nk3v9ab-12",)),
    "notification": Parser(_notification, (b'application/json\n{"message": "a"}', b"x/urlencoded\nmessage=a%20b")),
    "rows of COPY": Parser(_copy, (b"a,b|c|\nd\0\0\0|",)),
    "fields of CSV": Parser(_csv_fields, (b'a\x1fb"c\x1f\x1e\x1f\xff\xfe\xff\x1f,',)),
    "pipeline": Parser(_pipeline, (b"\0\1\2a,b\n1,2\n", b'\7\x0a\3{"a":1}\n')),
    **{
        f"transform {name}": Parser(_of_codec(each.make), (b'a,"b ""c"""\r\n1,\xc3\x9f\n', b'{"a":1,"b":"\\u00e9"}\n'))
        for name, each in TRANSFORMS.items()
        if name
        not in ("gzip", "zstd")  # what these write depends on the cuts, and is read back in tests/test_compression
    },
}

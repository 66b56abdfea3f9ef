"""The pages' forms as a browser without scripts uses them; html.parser, which is not ours, reads the pages."""

from __future__ import annotations

import gzip
import io
import json
import re
import signal
import uuid
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from stores.base import Config
from streaming import page_framings
from streaming.accounts import tally
from streaming.events import Event
from streaming.page_framings import HOLE, RESTARTED, Page
from streaming.response import pump
from tests.fake_openai import CUT, WHOLE, FakeOpenAI, finish, token
from tests.harness import Answer, LiveServer, RawClient, eventually
from tests.pieces import CUTS, cut
from tests.tokens import bearer, static

FORM = "application/x-www-form-urlencoded"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
MARKUP = '</p></pre><img src=x onerror="alert(1)"> & &lt; \'"'


class Read(HTMLParser):
    """A page as far as the tests ask: its tags, the fields of its forms, and the text of each element by its path."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fields: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.tags.append(tag)
        if tag == "input" and named.get("type") == "hidden":
            self.fields.append((named["name"] or "", named["value"] or ""))
        if tag not in ("input", "meta", "link", "img", "path", "wbr", "br"):
            key = " ".join(filter(None, (tag, named.get("id"), named.get("data-role"), named.get("role"))))
            self._open.append(key)
            self.texts.setdefault(key, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().split()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for key in self._open:
            self.texts[key][-1] += data

    def text(self, key: str) -> list[str]:
        return [each.strip() for each in self.texts.get(key, [])]

    @property
    def answer(self) -> str:
        return self.text("article assistant")[-1]


def convert(client: FlaskClient, query: str = "", **fields: Any) -> Any:
    return client.post(f"/transform{query}", data=fields, content_type="multipart/form-data", headers=BROWSER)


# A page around a stream


def page(write: Callable[[Event], bytes], again: bool = False) -> Page:
    return Page(lambda sentence: f"<main>{HOLE}</main>{sentence}", write, again)


@given(st.text(), CUTS)
def test_a_text_stays_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    """A browser reads out of the page what went in, and no tag but the page's own."""
    text = re.sub("[\0\r\ud800-\udfff]", "", text)  # what HTML itself replaces
    framing = page(page_framings.text)
    out = framing.open() + b"".join(framing.encode(Event(each)) for each in cut(text.encode(), cuts)) + framing.close()
    read = Read(out.decode())
    assert read.texts["main"] == [text]
    assert read.tags == ["main"]


def test_an_event_is_a_row_of_text() -> None:
    """Type, id and data; markup in them is none."""
    read = Read(page_framings.row(Event(MARKUP.encode(), "<b>", "<i>")).decode())
    assert (read.texts["b"], read.texts["small"], read.texts["code"]) == (["<b>"], ["<i>"], [MARKUP])
    assert read.tags == ["li", "b", "small", "code"]


def test_the_end_of_a_page_says_how_its_stream_ended() -> None:
    """Whole, failed, or handed over; only what has no end comes again by itself."""
    framing = page(page_framings.row, again=True)
    assert framing.close() == b"</main>"
    assert framing.error("It broke.") == b"</main>It broke."
    assert framing.drain is not None
    again = re.compile(re.escape(f"</main>{RESTARTED}") + '<meta http-equiv="refresh" content="([0-9]+)">')
    told = [again.fullmatch(framing.drain().decode()) for _ in range(200)]
    # Spread, or all pages would come in the same second, and most of them too early.
    assert {int(each[1]) for each in told if each} == {2, 3, 4, 5, 6}
    assert all(told)
    assert page(page_framings.row).drain is None


@given(st.text(st.sampled_from("aß€😀\r\n<&")), CUTS)
def test_a_heartbeat_may_follow_whatever_was_written(text: str, cuts: list[int]) -> None:
    """Between any two pieces, and the browser reads what it reads without: no character and no line end is split."""
    framing = page(page_framings.text)
    pieces = [framing.encode(Event(each)) + framing.idle() for each in cut(text.encode(), cuts)]
    out = framing.open() + b"".join(pieces) + framing.close()
    assert Read(lines(out.decode())).texts["main"] == [lines(text)]


def lines(text: str) -> str:
    """What a browser does with line ends before it reads a page (HTML standard, 13.2.3.5)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_a_heartbeat_waits_for_the_rest_of_a_character() -> None:
    """A source that rests in the middle of one, longer than a heartbeat: the page stays UTF-8."""
    items = [Event(b"stra\xc3"), None, None, Event(b"\x9fe\r"), None, Event(b"\n")]
    frames = [frame for frame in pump(iter(items), page(page_framings.text), {}, 0.0) if isinstance(frame, bytes)]
    out = b"".join(frames)
    assert Read(lines(out.decode())).texts["main"] == ["straße\n"]
    assert out.count(b"<!-- -->") >= 2


@pytest.mark.parametrize("left", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\r"])
@pytest.mark.parametrize("end", ["close", "error", "drain"])
def test_what_waits_for_more_is_written_at_the_end(left: bytes, end: str) -> None:
    """Nothing that came is left out, whatever ended the stream in the middle of a character."""
    framing = page(page_framings.text, again=True)
    assert framing.encode(Event(b"a" + left)) == b"a"
    ends = {"close": framing.close, "error": lambda: framing.error("It broke."), "drain": framing.drain}
    assert ends[end]().startswith(left + b"</main>")


# Chat


@pytest.fixture(scope="module")
def model() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture(scope="module")
def forms(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory, sample_database: str) -> Iterator[LiveServer]:
    """A server in front of the scripted model."""
    env = {"OPENAI_BASE_URL": model.url, "CHAT_RETRIES": "0", "HEARTBEAT_S": "0.2", "DATABASE_URL": sample_database}
    server = LiveServer(tmp_path_factory.mktemp("forms"), env)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def upstream(model: FakeOpenAI) -> FakeOpenAI:
    """The model's server, as new."""
    model.plays(*WHOLE)
    model.requests.clear()
    return model


def send(client: RawClient, message: str, *fields: tuple[str, str]) -> RawClient:
    """Send the form of the page; without ``fields`` that of a new chat."""
    body = urlencode([*(fields or [("id", uuid.uuid4().hex)]), ("message", message)]).encode()
    return client.request("POST", "/chat", [("Content-Type", FORM), *BROWSER.items()], body)


def ask(server: LiveServer, message: str, *fields: tuple[str, str]) -> tuple[Answer, Read]:
    with RawClient(server.port) as client:
        answer = send(client, message, *fields).read_to_end()
    assert answer.end == "clean"
    return answer, Read(answer.body.decode())


def test_a_question_is_answered_in_the_page_and_goes_on(forms: LiveServer, upstream: FakeOpenAI) -> None:
    """The model gets the whole conversation, out of the form of the page before, and each page shows it."""
    first = Read(forms.get("/chat")[1].decode())
    answer, second = ask(forms, "One?\r\nTwo?", *first.fields)
    assert answer.status == 200
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert "unsafe" not in answer.header("content-security-policy")
    assert second.answer == "Hello"
    assert second.text("article user") == ["One?\nTwo?"]
    _, third = ask(forms, "And then?", *second.fields)
    assert third.text("article user") == ["One?\nTwo?", "And then?"]
    assert third.text("article assistant") == ["Hello", "Hello"]
    sent = [(each["role"], each["content"]) for each in upstream.requests[-1][2]["messages"]]
    assert sent == [("user", "One?\nTwo?"), ("assistant", "Hello"), ("user", "And then?")]
    assert len({dict(each.fields)["id"] for each in (first, second, third)}) == 1


def test_a_form_that_is_sent_again_asks_nothing_twice(forms: LiveServer, upstream: FakeOpenAI) -> None:
    """A reload while the answer is made, and one after its end, have the whole of it; the model was asked once."""
    upstream.plays(token("Hel"), 1.0, token("lo"), finish())
    with RawClient(forms.port) as first:
        send(first, "Once?", ("id", "reloaded")).read_body_until(b"Hel")
        during, _ = ask(forms, "Once?", ("id", "reloaded"))
        pages = [first.read_to_end(), during, ask(forms, "Once?", ("id", "reloaded"))[0]]
    assert {Read(each.body.decode()).answer for each in pages} == {"Hello"}
    assert len({each.header("x-run-id") for each in pages}) == 1
    assert len(upstream.requests) == 1


def test_an_answer_arrives_in_the_page_as_it_is_made(forms: LiveServer, upstream: FakeOpenAI) -> None:
    """The page is there before the model has said its last word, and its form when it has."""
    upstream.plays(token("Hel"), 0.5, token("lo"), finish())
    with RawClient(forms.port) as client:
        begun = bytes(send(client, "Hello").read_body_until(b"Hel").body)
        whole = bytes(client.read_to_end().body)
    assert b"<h1>Chat</h1>" in begun
    assert b"</html>" not in begun
    assert b"</html>" in whole
    assert b'name="said"' not in begun
    assert b'name="said"' in whole


def test_what_is_said_is_no_markup(forms: LiveServer, upstream: FakeOpenAI) -> None:
    """Neither a person's words nor a model's, in the page and in the form that goes on."""
    upstream.plays(token(MARKUP[:9]), token(MARKUP[9:]), finish())
    _, read = ask(forms, MARKUP)
    assert read.answer == read.text("article user")[0] == MARKUP
    assert [value for name, value in read.fields if name == "said"] == [MARKUP, MARKUP]
    assert "img" not in read.tags


def test_an_answer_that_is_not_whole_says_so(forms: LiveServer, upstream: FakeOpenAI) -> None:
    """What came stays, with one sentence; the question is in the form again, and can be asked again."""
    upstream.plays(token("Hel"), CUT)
    answer, read = ask(forms, "Whole?", ("id", "broken"))
    assert answer.status == 200
    assert read.answer.startswith("Hel")
    assert len(read.text("p alert")[0]) > 10
    assert read.text("textarea prompt") == ["Whole?"]
    assert read.fields == [("id", "broken")]
    upstream.plays(*WHOLE)
    assert ask(forms, "Whole?", *read.fields)[1].answer == "Hello"


def test_a_model_that_refuses_is_a_status_and_a_page(forms: LiveServer, upstream: FakeOpenAI) -> None:
    """Before the first word: its status, the sentence, and the question in the form again."""
    upstream.plays(b'{"error":{"message":"no"}}', status=500, headers={"Content-Type": "application/json"})
    answer, read = ask(forms, "Are you there?")
    assert answer.status == 502
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert len(read.text("p alert")[0]) > 10
    assert read.text("textarea prompt") == ["Are you there?"]


def test_a_message_that_is_too_long_is_still_there(client: FlaskClient) -> None:
    """To be made shorter: the conversation goes on, and the form has what was typed again. An empty one is no turn."""
    fields = {"id": "a", "said": ["One?", "1."], "message": "x" * 20_001}
    with client.post("/chat", data=fields, headers=BROWSER) as answer:
        assert answer.status_code == 400
        read = Read(answer.text)
    assert read.text("p alert") == ["A message has 1 to 20000 characters."]
    assert read.text("textarea prompt") == ["x" * 20_001]
    assert read.fields == [("id", "a"), ("said", "One?"), ("said", "1.")]
    with client.post("/chat", data={**fields, "message": " "}, headers=BROWSER) as answer:
        assert Read(answer.text).text("article user") == ["One?"]


@pytest.mark.parametrize(("status", "told"), [(500, 502), (429, 429)])
def test_a_model_that_refuses_is_a_problem_for_a_program(
    forms: LiveServer, upstream: FakeOpenAI, status: int, told: int
) -> None:
    """Who asks for no page gets what the API says, with what the model says of when to come again."""
    headers = {"Content-Type": "application/json", "Retry-After": "7"}
    upstream.plays(b'{"error":{"message":"no"}}', status=status, headers=headers)
    for accept, type in (("*/*", "application/problem+json"), ("text/html", "text/html; charset=utf-8")):
        with RawClient(forms.port) as client:
            body = urlencode([("id", uuid.uuid4().hex), ("message", "Are you there?")]).encode()
            answer = client.request("POST", "/chat", [("Content-Type", FORM), ("Accept", accept)], body).read_to_end()
        assert (answer.status, answer.header("content-type")) == (told, type)
        assert answer.header("cache-control") == "no-store"
        assert answer.header("retry-after") == ("7" if status == 429 else "")


def test_a_refused_form_is_counted(client: FlaskClient) -> None:
    """As every other refusal is, also where it is a page with what was typed still in it."""
    before = tally.refused["400"]
    with convert(client, to="ndjson-to-csv", text="no json") as answer:
        assert (answer.status_code, answer.mimetype) == (400, "text/html")
    assert tally.refused["400"] == before + 1


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("id=a&message=", FORM, 400),
        ("id=a&message=+%0D%0A", FORM, 400),
        ("message=x", FORM, 400),
        ("id=..&message=x", FORM, 400),
        ("id=a&said=x&message=x", FORM, 400),
        ("id=a&message=%ff", FORM, 400),
        ("id=a&message=" + "x" * 20_001, FORM, 400),
        ("&".join(["said=x"] * 2001), FORM, 400),
        ("id=a&message=" + "x" * 2**20, FORM, 413),
        ('{"message":"x"}', "application/json", 415),
    ],
    ids=["empty", "blank", "no id", "a bad id", "half a turn", "no UTF-8", "long", "many fields", "large", "no form"],
)
def test_a_form_that_cannot_be(client: FlaskClient, body: str, content_type: str, status: int) -> None:
    """It is refused by a page where a browser asks, and as a problem elsewhere."""
    for accept, told in (("text/html", "text/html"), ("*/*", "application/problem+json")):
        with client.post("/chat", data=body, content_type=content_type, headers={"Accept": accept}) as answer:
            assert (answer.status_code, answer.mimetype) == (status, told)


# Transform


def test_a_text_comes_back_in_the_page(client: FlaskClient) -> None:
    """Through the transforms in their order; its line ends are the person's and not the form's."""
    with convert(client, to=["upper", "lines", ""], text="<b>straße</b>\r\nfluß") as answer:
        assert answer.status_code == 200
        read = Read(answer.text)
    # cat -n writes the number in six places, and a tab.
    assert read.texts["pre wire region"] == ["\n     1\t<B>STRASSE</B>\n     2\tFLUSS"]
    assert read.text("textarea text") == ["<b>straße</b>\nfluß"]
    assert "b" not in read.tags


def test_a_file_goes_before_the_text(client: FlaskClient) -> None:
    """Where one was chosen; an empty choice is none."""
    with convert(client, to="upper", text="a text", file=(io.BytesIO(b"a file"), "a.txt")) as answer:
        assert Read(answer.text).text("pre wire region") == ["A FILE"]
    with convert(client, to="upper", text="a text", file=(io.BytesIO(b""), "")) as answer:
        assert Read(answer.text).text("pre wire region") == ["A TEXT"]


@pytest.mark.parametrize(
    ("query", "to", "type", "name", "content"),
    [
        ("?save=1", "upper", "text/plain; charset=utf-8", "a.txt.txt", b"NEVER DRY"),
        ("", "gunzip", "application/octet-stream", "a.txt.out", b"never dry"),
    ],
)
def test_what_is_saved_is_a_download(
    client: FlaskClient, query: str, to: str, type: str, name: str, content: bytes
) -> None:
    """Asked for, or because it is no text."""
    body = gzip.compress(b"never dry") if to == "gunzip" else b"never dry"
    with convert(client, query, to=to, file=(io.BytesIO(body), "a.txt")) as answer:
        assert (answer.status_code, answer.content_type, answer.data) == (200, type, content)
        assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{name}"')


def test_a_refusal_is_in_the_page(client: FlaskClient) -> None:
    """With the transform's own sentence, and the text is still there."""
    with convert(client, to="ndjson-to-csv", text="no json") as answer:
        assert answer.status_code == 400
        read = Read(answer.text)
    assert read.text("p alert") == ["Line 1 is no JSON object."]
    assert read.text("textarea text") == ["no json"]
    for fields in ({"to": "upper"}, {"to": "nothing", "text": "x"}, {"to": ["upper"] * 9, "text": "x"}):
        with convert(client, **fields) as answer:
            assert (answer.status_code, answer.mimetype) == (400, "text/html")
    with client.post("/transform", data="text=x", content_type=FORM) as answer:
        assert answer.status_code == 415


def test_a_field_without_a_name_is_none(client: FlaskClient) -> None:
    """RFC 7578, 4.2: each has one; a form that forgets it is refused as what it is."""
    body = b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"
    with client.post("/transform", data=body, content_type="multipart/form-data; boundary=b") as answer:
        assert (answer.status_code, answer.json["detail"]) == (400, "A field of the form has no name.")


def begin(client: RawClient, to: str, query: str = "") -> RawClient:
    """Send the form of a file up to where its bytes begin."""
    fields = [f"POST /transform{query} HTTP/1.1", "Host: localhost", "Content-Type: multipart/form-data; boundary=b"]
    client.send("\r\n".join([*fields, "Transfer-Encoding: chunked", "", ""]).encode(), "POST")
    return client.send_chunk(
        b'--b\r\nContent-Disposition: form-data; name="to"\r\n\r\n%b\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' % to.encode()
    )


def test_what_is_saved_and_fails_says_so(forms: LiveServer) -> None:
    """As of the API: NDJSON tells it in its last line, and the connection is cut, so that no browser keeps it."""
    with RawClient(forms.port) as client:
        # The last line end may be that of a boundary, and is not taken before it is known to be none.
        sent = begin(client, "csv-to-ndjson", "?save=1").send_chunk(b"a,b\n1,2\n3\n4")
        sent.read_body_until(b'{"a":"1","b":"2"}\n')
        answer = client.send_chunk(b"\r\n--b--\r\n").send_chunk(b"").read_to_end()
    assert json.loads(answer.body.splitlines()[-1]) == {
        "error": "Record 3 has not as many fields as the header, which has 2."
    }
    assert answer.end == "cut"


def test_an_answer_is_there_before_the_form_has_ended(forms: LiveServer) -> None:
    """A form whose file is still arriving is answered meanwhile, byte for byte as the file comes."""
    line = b"never dry\n" * 1000
    with RawClient(forms.port) as client:
        begin(client, "upper").send_chunk(line)
        client.read_body_until(b"NEVER DRY")
        assert client.answer.end == ""
        client.send_chunk(line + b"\r\n--b--\r\n").send_chunk(b"")
        answer = client.read_to_end()
    assert answer.end == "clean"
    assert Read(answer.body.decode()).text("pre wire region") == [(line * 2).decode().upper().strip()]


# Events


def test_what_is_published_by_a_form_is_in_the_list(client: FlaskClient) -> None:
    """Publishing leads back to the list, which holds it as text, and says how many there are."""
    with client.post("/events/list?topic=t", data={"message": MARKUP}) as answer:
        assert (answer.status_code, answer.headers["Location"]) == (303, "/events/list?topic=t")
    with client.get("/events/list?topic=t") as answer:
        read = Read(answer.text)
    assert read.texts["b"][-3:] == ["connected", "notification", "complete"]
    assert read.texts["code"][-1] == '{"total":1}'
    assert "img" not in read.tags
    with client.get("/api/events?topic=t") as answer:
        assert b"onerror" in answer.data
    for status, path in ((400, "/events/list?topic=a+b"), (400, "/events/list?follow=2"), (400, "/events/list?x=1")):
        assert client.get(path).status_code == status
    assert client.post("/events/list", data={"message": " "}).status_code == 400


@pytest.mark.parametrize(
    ("message", "taken"),
    [("x" * 65_536, True), ("x" * 65_537, False), ("ü" * 32_768, True), ("ü" * 32_769, False), ("x" * 200_000, False)],
    ids=["64 KiB", "more", "64 KiB of two bytes each", "more of them", "much more"],
)
def test_a_form_publishes_no_more_than_the_api(client: FlaskClient, message: str, taken: bool) -> None:
    """The bound is of the message: both routes refuse the same one, however many bytes it takes as a form."""
    assert client.post("/api/notifications?topic=t", data=message.encode()).status_code == (201 if taken else 413)
    assert client.post("/events/list?topic=t", data={"message": message}).status_code == (303 if taken else 413)


def test_line_ends_of_a_form_are_the_persons(client: FlaskClient) -> None:
    """Browsers make each of them a CRLF, however whoever sends the form writes that."""
    for body in ("message=a%0D%0Ab", "message=a%0d%0ab", "message=a%0Ab", "message=a\r\nb"):
        assert client.post("/events/list?topic=t", data=body, content_type=FORM).status_code == 303
    with client.get("/api/events?topic=t") as answer:
        assert answer.text.count('{"message":"a\\nb"}') == 4


def test_a_topic_that_is_closed_takes_no_form(app: Flask, client: FlaskClient) -> None:
    """Nor anything else: a conflict, as of the API."""
    app.extensions["log"].append("notifications/t", [], create=Config("application/json"), close=True)
    for path in ("/api/notifications?topic=t", "/events/list?topic=t"):
        assert client.post(path, data={"message": "x"}).status_code == 409


def test_a_list_that_follows_grows_while_it_is_open(forms: LiveServer) -> None:
    """What is published appears in the page; while nothing is, it gets comments."""
    with RawClient(forms.port) as client, RawClient(forms.port) as publisher:
        client.request("GET", "/events/list?topic=t&follow=1").read_body_until(b"connected")
        publisher.request("POST", "/events/list?topic=t", [("Content-Type", FORM)], b"message=one").read_to_end()
        client.read_body_until(b'<code>{"message":"one"}</code>')
        assert b"</html>" not in client.read_body_until(b"<!-- -->").body


def test_a_list_that_follows_comes_again_after_a_restart(live_server: Callable[..., LiveServer]) -> None:
    """SIGHUP ends it as a page that says so and asks anew; what was published meanwhile is in the one that comes."""
    server = live_server()
    (old,) = server.pids()
    with RawClient(server.port) as client:
        client.request("GET", "/events/list?topic=t&follow=1").read_body_until(b"connected")
        server.signal(signal.SIGHUP)
        answer = client.read_to_end()
    assert answer.end == "clean"
    assert RESTARTED in Read(answer.body.decode()).text("p alert")
    assert re.search(rb'<meta http-equiv="refresh" content="[2-6]">$', answer.body)
    eventually(lambda: server.pids() and old not in server.pids(), 20.0, "a new worker")
    with RawClient(server.port) as client, RawClient(server.port) as publisher:
        publisher.request("POST", "/events/list?topic=t", [("Content-Type", FORM)], b"message=one").read_to_end()
        client.request("GET", "/events/list?topic=t&follow=1").read_body_until(b'<code>{"message":"one"}</code>')


# Who may, and what is refused


def test_a_form_needs_what_the_api_needs(make_client: Callable[..., FlaskClient]) -> None:
    """A token for one topic reads and writes that one; chat and transforms are writes of their routes."""
    scopes = {"reader": "read:*", "gardener": "read:/topics/garden write:/topics/garden"}
    client = make_client(API_TOKENS=static(**scopes))

    def status(method: str, path: str, who: str = "", **body: Any) -> int:
        with client.open(path, method=method, headers=bearer(who) if who else {}, **body) as answer:
            return int(answer.status_code)

    assert status("GET", "/events/list?topic=garden", "gardener") == 200
    assert status("GET", "/events/list?topic=attic", "gardener") == 403
    assert status("GET", "/events/list", "gardener") == 403
    assert status("POST", "/events/list?topic=garden", "gardener", data={"message": "x"}) == 303
    assert status("POST", "/events/list?topic=garden", "reader", data={"message": "x"}) == 403
    assert status("POST", "/chat", "reader", data={"id": "a", "message": "x"}) == 403
    assert status("POST", "/transform", "reader", data={"text": "x"}) == 403
    with client.post("/chat", data={"id": "a", "message": "x"}) as answer:
        assert (answer.status_code, answer.mimetype) == (401, "text/html")


def test_a_page_of_another_origin_cannot_send_a_form(client: FlaskClient) -> None:
    """It would speak in somebody else's name (CWE-352)."""
    for path in ("/chat", "/transform", "/events/list"):
        assert client.post(path, data={"message": "x"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_form_by_plain_http_says_where_it_comes_from(client: FlaskClient) -> None:
    """Browsers send no Sec-Fetch-Site there, and under the policy "no-referrer" the origin "null" for a form (Fetch
    Standard, 3.1.3), which nobody trusts; under "same-origin" it is the page's own."""
    assert client.get("/chat").headers["Referrer-Policy"] == "same-origin"
    for origin, status in (("http://localhost", 303), ("null", 403), ("http://evil.example", 403)):
        answer = client.post("/events/list", data={"message": "x"}, headers={"Origin": origin})
        assert answer.status_code == status, origin


@pytest.mark.parametrize(
    "path", ["/nothing", "/video?id=nothing", "/export?table=nothing", "/docs/nothing", "/docs/plots/nothing.svg"]
)
def test_what_is_not_there_is_a_page_for_a_browser(client: FlaskClient, path: str) -> None:
    """With its status and the page's policy; a program gets the problem, and so does whoever asks the API."""
    with client.get(path, headers=BROWSER) as answer:
        assert (answer.status_code, answer.content_type) == (404, "text/html; charset=utf-8")
        assert Read(answer.text).text("h1") == ["Not Found"]
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
    assert client.get(path).mimetype == "application/problem+json"
    assert client.get("/api/download/nothing", headers=BROWSER).mimetype == "application/problem+json"


def test_what_the_api_refuses_is_no_page(client: FlaskClient) -> None:
    """Also where no route of it is there, or not for this method, and a browser asks."""
    for method, path, status in (("GET", "/api/nothing", 404), ("POST", "/api/sse", 405), ("GET", "/v1/nothing", 404)):
        with client.open(path, method=method, headers=BROWSER) as answer:
            assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), path
    with client.get("/apiary", headers=BROWSER) as answer:
        assert (answer.status_code, answer.mimetype) == (404, "text/html")


def test_a_refusal_that_is_events_stays_events(make_client: Callable[..., FlaskClient]) -> None:
    """Who comes back with a cursor may be an EventSource, and is told in its language; others get the page."""
    client = make_client(MAX_STREAMS=0)
    headers = {"Accept": "text/html,*/*"}
    with client.get("/events/list", headers=headers | {"Last-Event-ID": "x"}) as answer:
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
        assert b"event: stream-error\n" in answer.data
    with client.get("/events/list", headers=headers) as answer:
        assert (answer.status_code, answer.mimetype) == (503, "text/html")


def test_who_asks_for_pages_too_often_is_told_so_by_one(make_client: Callable[..., FlaskClient]) -> None:
    """With when to come again, as everybody; a program gets the problem."""
    client = make_client(RATE_LIMIT="1/minute")
    assert client.get("/chat", headers=BROWSER).status_code == 200
    for headers, type in ((BROWSER, "text/html"), ({}, "application/problem+json")):
        with client.get("/chat", headers=headers) as answer:
            assert (answer.status_code, answer.mimetype) == (429, type)
            assert 1 <= int(answer.headers["Retry-After"]) <= 60

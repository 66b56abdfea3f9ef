"""POST /api/chat, against a real gunicorn with a scripted model's server behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llm import messages
from streaming.errors import BadRequest
from tests.fake_openai import CUT, DONE, PING, STALL, WHOLE, FakeOpenAI, delta, finish, sse, token, usage
from tests.harness import Answer, LiveServer, RawClient, eventually
from tests.test_chat_framings import lines, parts

KEY = "sk-secret-0123456789"
CONTENT = {"messages": [{"role": "user", "content": "Hi"}]}
PARTS = {"id": "c", "messages": [{"role": "user", "content": "Hi", "parts": [{"type": "text", "text": "Hi"}]}]}
TRIGGER = {
    "id": "c",
    "trigger": "submit-message",
    "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
}
PLAIN = "text/plain; charset=utf-8"


@pytest.fixture(scope="module")
def model() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def upstream(model: FakeOpenAI) -> FakeOpenAI:
    """The model's server, as new."""
    model.plays(*WHOLE)
    model.requests.clear()
    model.left_at = None
    return model


@pytest.fixture(scope="module")
def chat(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server in front of it that loses patience after a second, and in the middle of an answer after two."""
    env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": KEY, "CHAT_MODEL": "a-model"}
    env |= {"CHAT_FIRST_TOKEN_S": "1", "CHAT_IDLE_S": "2", "HEARTBEAT_S": "0.1"}
    env |= {"CHAT_GRACE_S": "0"}
    server = LiveServer(tmp_path_factory.mktemp("chat"), env)
    try:
        yield server.start()
    finally:
        server.stop()


def post(server: LiveServer, body: Any, query: str = "", **headers: str) -> RawClient:
    """Ask; header names are written with underscores."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {"Content_Type": "application/json", **headers}
    pairs = [(name.replace("_", "-"), value) for name, value in names.items()]
    return RawClient(server.port).request("POST", f"/api/chat{query}", pairs, data)


def whole(server: LiveServer, body: Any, query: str = "", **headers: str) -> Answer:
    with post(server, body, query, **headers) as client:
        return client.read_to_end()


# The answer


def test_text_is_the_answer_as_it_is_made(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """The first token is with the client while the model still thinks about the second: they come apart."""
    upstream.plays(token("Hel"), 0.5, token("lo"), finish(), DONE)
    answer = whole(chat, CONTENT)
    assert [piece for _, piece in answer.pieces] == [b"Hel", b"lo"]
    assert (answer.status, answer.end) == (200, "clean")
    assert answer.header("content-type") == PLAIN
    assert "no-store" in answer.header("cache-control")
    assert answer.header("x-accel-buffering") == "no"


def test_model_gets_the_conversation(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """Whatever the client's shape, it is OpenAI's at the model's server, with the operator's model and key."""
    for body in (CONTENT, PARTS, TRIGGER):
        whole(chat, body)
    for _, headers, asked in upstream.requests:
        assert headers["authorization"] == f"Bearer {KEY}"
        assert (asked["model"], asked["messages"]) == ("a-model", CONTENT["messages"])


@pytest.mark.parametrize(
    ("query", "header", "body", "protocol"),
    [
        ("", "", CONTENT, "text"),
        ("", "", PARTS, "data"),
        ("", "", TRIGGER, "ui"),
        ("", "text", TRIGGER, "text"),
        ("", "data", CONTENT, "data"),
        ("?protocol=ui", "data", CONTENT, "ui"),
        ("?protocol=text", "ui", TRIGGER, "text"),
        ("?protocol=data", "", TRIGGER, "data"),
    ],
)
def test_protocol_is_the_parameter_then_the_header_then_the_bodys_shape(
    chat: LiveServer, upstream: FakeOpenAI, query: str, header: str, body: Any, protocol: str
) -> None:
    """Each wire says which it is by its own header."""
    answer = whole(chat, body, query, **({"X_Stream_Protocol": header} if header else {}))
    marks = {name: answer.header(name) for name in ("x-vercel-ai-data-stream", "x-vercel-ai-ui-message-stream")}
    assert [name for name, value in marks.items() if value == "v1"] == {
        "text": [],
        "data": ["x-vercel-ai-data-stream"],
        "ui": ["x-vercel-ai-ui-message-stream"],
    }[protocol]
    assert answer.header("content-type") == ("text/event-stream" if protocol == "ui" else PLAIN)
    assert answer.end == "clean"


def test_data_and_ui_carry_the_whole_answer(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """Reasoning, text and usage arrive in both."""
    upstream.plays(delta(reasoning_content="Hm."), token("Hello"), finish(), usage(3, 2), DONE)
    data = dict(lines(bytes(whole(chat, PARTS).body)))
    assert (data["g"], data["0"]) == ("Hm.", "Hello")
    assert data["d"] == {"finishReason": "stop", "usage": {"promptTokens": 3, "completionTokens": 2}}
    *_, last, done = parts(bytes(whole(chat, TRIGGER).body))
    assert last["messageMetadata"]["usage"]["totalTokens"] == 5
    assert done == "[DONE]"


@pytest.mark.slow
def test_heartbeats_leave_while_the_model_is_silent(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """An empty line in the data stream, a comment in the UI stream, nothing in a text."""
    upstream.plays(token("a"), PING, 0.9, finish(), DONE)
    assert b'0:"a"\n\n' in whole(chat, PARTS).body
    assert b"\n\n:\n\n" in whole(chat, TRIGGER).body
    assert whole(chat, CONTENT).body == b"a"


@pytest.mark.slow
def test_without_a_key_the_offline_model_answers(server: LiveServer) -> None:
    """Word by word, and its first words say what it is."""
    answer = whole(server, {"messages": [{"role": "user", "content": "What is a perennial?"}]})
    assert answer.body.startswith(b"I am the offline model")
    assert "has 4 words and 20 characters" in answer.body.decode()
    assert answer.end == "clean"
    assert len(answer.pieces) > 10


# Errors before the first byte


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(400, 400), (401, 502), (403, 502), (404, 502), (422, 400), (429, 429), (500, 502), (503, 502), (504, 504)],
)
@pytest.mark.parametrize("body", [CONTENT, PARTS, TRIGGER], ids=["text", "data", "ui"])
def test_refusal_is_a_status_and_one_sentence(
    chat: LiveServer, upstream: FakeOpenAI, refusal: int, status: int, body: Any
) -> None:
    """Chat clients show the body as it is: one plain sentence without the key; 429 says when to come back."""
    upstream.refuses(refusal, f"Incorrect API key provided: {KEY}", {"Retry-After": "7"})
    answer = whole(chat, body)
    assert (answer.status, answer.header("content-type"), answer.end) == (status, PLAIN, "clean")
    assert answer.body.endswith((b".", b"\xe2\x80\xa6"))
    assert b"\n" not in answer.body
    assert KEY not in answer.body.decode() + chat.log_text()
    assert answer.header("retry-after") == ("7" if status == 429 else "")


@pytest.mark.parametrize(("step", "status"), [(STALL, 504), (CUT, 502), (sse({"error": "overloaded"}), 502)])
def test_failure_before_the_first_token_is_a_status(
    chat: LiveServer, upstream: FakeOpenAI, step: bytes | float, status: int
) -> None:
    """Also when the model's server had begun with a 200."""
    upstream.plays(step)
    assert whole(chat, TRIGGER).status == status


@pytest.mark.slow
def test_model_that_cannot_be_reached_is_502(live_server: Any) -> None:
    """Nobody listens on port 9 of this machine."""
    answer = whole(live_server(OPENAI_BASE_URL="http://127.0.0.1:9/v1"), CONTENT)
    assert (answer.status, bytes(answer.body)) == (502, b"The model's server cannot be reached.")


def test_who_asks_for_json_gets_a_problem(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """RFC 9457, with the field that is wrong."""
    answer = whole(chat, {"messages": [{"role": "robot", "content": "Hi"}]}, Accept="application/json")
    assert (answer.status, answer.header("content-type")) == (400, "application/problem+json")
    assert answer.json["parameter"] == "messages[0].role"


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "told"),
    [
        ("?protocol=xml", {}, CONTENT, 400, "protocol must be one of text, data, ui"),
        ("?protocol=", {}, CONTENT, 400, "protocol must be one of"),
        ("?protocol=ui&protocol=ui", {}, CONTENT, 400, "protocol"),
        ("?model=x", {}, CONTENT, 400, "model"),
        ("", {"X_Stream_Protocol": "xml"}, CONTENT, 400, "X-Stream-Protocol must be one of"),
        ("", {"Content_Type": "text/plain"}, CONTENT, 415, "application/json"),
        ("", {}, b"{", 400, "not JSON"),
        ("", {}, b"", 400, "not JSON"),
        ("", {}, {"messages": []}, 400, "messages"),
        ("", {}, b'{"messages":[{"role":"user","content":"' + b"x" * 2**20 + b'"}]}', 413, "1048576"),
    ],
)
def test_bad_request_says_what_is_wrong(
    chat: LiveServer, upstream: FakeOpenAI, query: str, headers: dict[str, str], body: Any, status: int, told: str
) -> None:
    """In one sentence, and the model is not asked."""
    answer = whole(chat, body, query, **headers)
    assert answer.status == status
    assert told in answer.body.decode()
    assert upstream.requests == []


# Failures after it

FAILURES = {
    "silence": ((STALL,), "The model fell silent in the middle of its answer."),
    "cut": ((CUT,), "The connection to the model was lost."),
    "error": ((sse({"error": {"message": "x"}}), DONE), "The model reported an error in the middle of its answer."),
    "no reason": ((DONE,), "The model ended its answer without saying that it is complete."),
    "no end": ((), "The model ended its answer without saying that it is complete."),
    "no JSON": ((b"data: {]\n\n",), "The model sent something that is no answer."),
}


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_told_in_band_or_by_a_cut(chat: LiveServer, upstream: FakeOpenAI, failure: str) -> None:
    """Text is cut; the AI SDK's streams have their error part, and nothing that says success."""
    steps, sentence = FAILURES[failure]
    upstream.plays(token("Hel"), *steps)
    text = whole(chat, CONTENT)
    assert (bytes(text.body), text.end) == (b"Hel", "cut")
    data = lines(bytes(whole(chat, PARTS).body))
    assert data[-1] == ("3", sentence)
    assert {"e", "d"}.isdisjoint(code for code, _ in data)
    ui = parts(bytes(whole(chat, TRIGGER).body))
    assert ui[-1] == {"type": "error", "errorText": sentence}


# Leaving


@pytest.mark.parametrize("body", [CONTENT, TRIGGER], ids=["text", "ui"])
@pytest.mark.parametrize("steps", [(token("a"), STALL), (token("a"), 0.05) * 400], ids=["silent", "talking"])
def test_client_that_leaves_closes_the_model_within_a_second(
    chat: LiveServer, upstream: FakeOpenAI, steps: tuple[bytes | float, ...], body: Any
) -> None:
    """Whether the model is talking or not."""
    upstream.plays(*steps)
    with post(chat, body) as client:
        client.read_body_until(b"a")
    left = time.monotonic()
    eventually(lambda: upstream.left_at, 2.0, "the model's server sees its client leave")
    assert upstream.left_at is not None
    # Not by the deadline for silence, which is two.
    assert upstream.left_at - left < 1


@pytest.mark.slow
def test_client_that_leaves_before_the_headers_closes_the_model(live_server: Any, upstream: FakeOpenAI) -> None:
    """At the latest when the headers would leave."""
    server = live_server(OPENAI_BASE_URL=upstream.url, CHAT_HEADERS_S=0.5, CHAT_GRACE_S=0)
    upstream.plays(STALL)
    with post(server, CONTENT):
        eventually(lambda: upstream.requests)
    eventually(lambda: upstream.left_at, 1.0, "the model's server sees its client leave")


# The body, in memory


def message_read(**message: Any) -> Any:
    return messages.read(json.dumps({"messages": [message]}).encode()).messages[0]


def test_openai_messages_pass_as_they_are() -> None:
    """Names, content of parts and tool calls are OpenAI's own, and the model's to judge."""
    image = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
    call = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    for message in (
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": image, "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "1", "tool_call_id": "1"},
    ):
        assert message_read(**message) == message


def test_ai_sdk_parts_become_text() -> None:
    """Texts are joined; a message without any (a failed answer) is left out; v4's content is a fallback."""
    read = [{"type": "step-start"}, {"type": "text", "text": "a"}, {"type": "file"}, {"type": "text", "text": "b"}]
    body = {"messages": [{"role": "user", "parts": read}, {"role": "assistant", "parts": []}]}
    assert messages.read(json.dumps(body).encode()).messages == [{"role": "user", "content": "a\nb"}]
    assert message_read(role="user", content="c", parts=[]) == {"role": "user", "content": "c"}


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"{}", "messages"),
        (b'{"messages":1}', "messages"),
        (b'{"messages":[{"role":"user"}]}', "messages[0].content"),
        (b'{"messages":[{"content":"x"}]}', "messages[0].role"),
        (b'{"messages":[{"role":"user","content":"x"},{"role":"user","content":5}]}', "messages[1].content"),
        (b'{"messages":[{"role":"user","parts":[{"type":"file"}]}]}', "messages"),
        (b'{"messages":[' + b",".join([b'{"role":"user","content":"x"}'] * 1001) + b"]}", "messages"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', ""),
        (b'{"messages":[{"role":"user","content":[{"a":' + b"[" * 200_000, ""),
    ],
)
def test_bad_body_names_the_field(body: bytes, parameter: str) -> None:
    """Whatever is wrong with a body is the caller's 400, and the sentence begins with the field."""
    with pytest.raises(BadRequest) as caught:
        messages.read(body)
    assert caught.value.parameter == parameter
    assert caught.value.detail.startswith(parameter or "The body")


def test_a_thousand_messages_are_read() -> None:
    """The bound is inclusive."""
    body = {"messages": [{"role": "user", "content": "x"}] * 1000}
    assert len(messages.read(json.dumps(body).encode()).messages) == 1000

"""A run of chat is a thing of its own: it is left, found again, joined and stopped, and never ends as if whole."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import gevent
import gevent.event
import pytest

from settings import Settings
from stores.base import START, Append, Config, Create
from stores.errors import StoreError, StoreFull
from stores.memory import MemoryLog
from streaming import chat_copy
from streaming.chat_copy import Copies
from streaming.chat_parts import Parts
from streaming.chat_runs import ChatRun, Outcome
from streaming.chats import Ask, Chats
from streaming.events import Event, json_event
from streaming.leases import LEASE_S, RENEW_S, Lease, end_interrupted
from tests.fake_openai import CUT, DONE, STALL, WHOLE, FakeOpenAI, delta, finish, sse, token, usage
from tests.full_log import LostAnswers
from tests.harness import Answer, LiveServer, RawClient, eventually, parse_events
from tests.test_chat_framings import lines, parts

pytestmark = pytest.mark.slow

PROTOCOLS = ("text", "data", "ui", "openai")


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


def serving(model: FakeOpenAI, folders: pytest.TempPathFactory, name: str, **env: object) -> Iterator[LiveServer]:
    """A server that several tests share, in front of the scripted model."""
    server = LiveServer(folders.mktemp(name), {"OPENAI_BASE_URL": model.url, **env})
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def chat(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two workers: what one begins, the other can be asked for, and mostly is."""
    yield from serving(model, tmp_path_factory, "chat", CHAT_MODEL="a-model", WEB_CONCURRENCY=2, CHAT_IDLE_S=5)


@pytest.fixture(scope="module")
def patient(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that waits with its headers for what the model says, and soon counts it as silent."""
    patience = {"CHAT_FIRST_TOKEN_S": 4, "CHAT_IDLE_S": 4, "CHAT_HEADERS_S": 20}
    yield from serving(model, tmp_path_factory, "patient", **patience)


@pytest.fixture(scope="module")
def strict(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with narrow bounds; two workers, so that they hold over all."""
    bounds = {"CHAT_RUNS": 3, "CHAT_RUNS_PER_CALLER": 2, "CHAT_CALLER_HEADER": "X-Forwarded-For"}
    bounds |= {"CHAT_BYTES": 1000, "CHAT_TOTAL_S": 3, "CHAT_IDLE_S": 5, "CHAT_GRACE_S": 0}
    yield from serving(model, tmp_path_factory, "strict", WEB_CONCURRENCY=2, **bounds)


@pytest.fixture(scope="module")
def brief(model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose grace time is a second; two workers, so that a reader of the other one counts."""
    yield from serving(model, tmp_path_factory, "brief", CHAT_GRACE_S=1, WEB_CONCURRENCY=2, CHAT_IDLE_S=30)


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    """A chat of the test's own."""
    return f"chat-{abs(hash(request.node.name))}-{time.monotonic_ns()}"


def question(id: str, message: str = "1", text: str = "Hi", **more: Any) -> dict[str, Any]:
    said = {"id": message, "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": id, "trigger": "submit-message", "messages": [said], **more}


def ask(server: LiveServer, body: Any, query: str = "", path: str = "/api/chat", **headers: str) -> RawClient:
    pairs = [("Content-Type", "application/json")]
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return RawClient(server.port, timeout_s=30).request("POST", path + query, pairs, json.dumps(body).encode())


def whole(server: LiveServer, body: Any, query: str = "", path: str = "/api/chat", **headers: str) -> Answer:
    with ask(server, body, query, path, **headers) as client:
        return client.read_to_end()


def get(server: LiveServer, path: str, **headers: str) -> Answer:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    with RawClient(server.port, timeout_s=30).request("GET", path, pairs) as client:
        return client.read_to_end()


def stop(server: LiveServer, id: str) -> Answer:
    with RawClient(server.port, timeout_s=30).request("POST", f"/api/chat/{id}/stop", [], b"") as client:
        return client.read_to_end()


def text_of(answer: Answer) -> str:
    """The text of a UI message stream."""
    return "".join(part["delta"] for part in ui(answer) if part["type"] == "text-delta")


def ui(answer: Answer) -> list[Any]:
    return [part for part in parts(bytes(answer.body)) if part != "[DONE]"]


def tokens(count: int) -> list[bytes]:
    return [token(f"{number} ") for number in range(count)]


def slowly(steps: list[bytes], gap_s: float = 0.02) -> list[bytes | float]:
    return [step for each in steps for step in (each, gap_s)]


NUMBERS = "".join(f"{number} " for number in range(50))


# Finding it again


def test_a_dropped_answer_is_found_again_whole(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """The reader goes in the middle, the run goes on; what it gets again is the text, exactly, in every encoding."""
    upstream.plays(*slowly(tokens(50)), finish(), usage(3, 50), DONE)
    with ask(chat, question(id)) as client:
        client.read_body_until(b"9 ")
    assert text_of(get(chat, f"/api/chat/{id}/stream")) == NUMBERS
    assert len(upstream.requests) == 1
    text = get(chat, f"/api/chat/{id}/stream?protocol=text")
    assert (text.body.decode(), text.end) == (NUMBERS, "clean")
    data = lines(bytes(get(chat, f"/api/chat?chatId={id}").body))
    assert "".join(value for code, value in data if code == "0") == NUMBERS
    assert dict(data)["d"]["usage"] == {"promptTokens": 3, "completionTokens": 50}
    chunks = parts(bytes(get(chat, f"/api/chat/{id}/stream", X_Stream_Protocol="openai").body))
    assert chunks.pop() == "[DONE]"
    said = [each["choices"][0]["delta"].get("content", "") for each in chunks if each["choices"]]
    assert "".join(said) == NUMBERS
    assert chunks[-1]["usage"]["total_tokens"] == 53


def test_every_reader_sees_the_same(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Ten tabs that come while it is made, to either worker, at whatever moment."""
    upstream.plays(*slowly(tokens(50), 0.03), finish(), usage(3, 50), DONE)
    with ask(chat, question(id)) as client, ThreadPoolExecutor(10) as pool:
        client.read_body_until(b"1 ")
        tabs = [pool.submit(get, chat, f"/api/chat/{id}/stream") for _ in range(10)]
        first = client.read_to_end()
        bodies = {bytes(tab.result().body) for tab in tabs}
    assert bodies == {bytes(first.body)}
    assert text_of(first) == NUMBERS


def test_last_event_id_continues_exactly(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """From every event's id the rest follows, byte for byte; after the end a 204, which ends an EventSource."""
    body = bytes(whole(chat, question(id)).body)
    frames = body.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
    for number, frame in enumerate(frames, 1):
        cursor = frame.partition(b"\n")[0].removeprefix(b"id: ").decode()
        rest = get(chat, f"/api/chat/{id}/stream", Last_Event_ID=cursor)
        if number == len(frames):
            assert (rest.status, bytes(rest.body)) == (204, b"")
        else:
            assert bytes(rest.body) == b"".join(each + b"\n\n" for each in frames[number:]) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("cursor", ["", "nonsense", "abcdef-1", "-", "abcdef-1.end"])
def test_a_cursor_of_another_run_is_none(chat: LiveServer, upstream: FakeOpenAI, id: str, cursor: str) -> None:
    """A new answer of the chat is read from its beginning, whatever an EventSource brings along."""
    body = whole(chat, question(id)).body
    again = get(chat, f"/api/chat/{id}/stream", Last_Event_ID=cursor)
    assert (again.status, again.body) == (200, body)


def test_openais_encoding_has_no_cursors(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """A cursor that came with another encoding is passed over: its chunks need what the beginning says."""
    first = parse_events(bytes(whole(chat, question(id)).body))[3]
    rest = get(chat, f"/api/chat/{id}/stream?protocol=openai", Last_Event_ID=first.id)
    assert rest.body == get(chat, f"/api/chat/{id}/stream?protocol=openai").body


def test_where_there_is_none(chat: LiveServer) -> None:
    """204 for useChat 5 and later; 200 and nothing for 4, which takes a 204 for a failure; HEAD says the same."""
    assert get(chat, "/api/chat/never/stream").status == 204
    none = get(chat, "/api/chat?chatId=never")
    assert (none.status, bytes(none.body)) == (200, b"")
    assert stop(chat, "never").status == 404


def test_running_asks_for_answers_that_are_being_made(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """A page that keeps its messages itself does not want an old answer twice."""
    whole(chat, question(id))
    eventually(lambda: get(chat, f"/api/chat/{id}/stream?running=1").status == 204)
    assert get(chat, f"/api/chat/{id}/stream").status == 200


def test_the_last_answer_of_a_chat_counts(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Two questions of one chat are two runs; the chat's id is the newer one, and each has its own."""
    upstream.plays(token("one"), finish(), DONE)
    first = whole(chat, question(id, "1")).header("x-run-id")
    upstream.plays(token("two"), finish(), DONE)
    whole(chat, question(id, "2"))
    assert text_of(get(chat, f"/api/chat/{id}/stream")) == "two"
    assert text_of(get(chat, f"/api/chat/{first}/stream")) == "one"


def test_without_an_id_the_run_names_the_chat(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """curl sends none: the answer's header has one, for resuming and stopping."""
    answer = whole(chat, {"messages": [{"role": "user", "content": "Hi"}]})
    assert text_of(get(chat, f"/api/chat/{answer.header('x-run-id')}/stream")) == "Hello"


def test_its_location_is_a_durable_stream(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """The parts, as JSON messages, by the Durable Streams protocol; nobody can write to it."""
    answer = whole(chat, question(id))
    location = answer.header("location")
    read = eventually(lambda: (got := get(chat, location)).header("stream-closed") and got)
    assert read.header("content-type") == "application/json"
    assert read.json == ui(answer)
    live = parse_events(bytes(get(chat, f"{location}?offset=-1&live=sse").body))
    assert json.loads(live[0].data) == ui(answer)
    with RawClient(chat.port).request("POST", location, [("Content-Type", "application/json")], b"{}") as client:
        assert client.read_to_end().status == 403


@pytest.mark.parametrize("prefix", ["chat-index", "chat-control", "slots"])
def test_what_it_is_kept_with_is_nobody_elses(chat: LiveServer, prefix: str) -> None:
    """Who runs what is not to be read, let alone written."""
    assert get(chat, f"/v1/stream/{prefix}/x").status == 404


# Asking twice


def test_a_question_asked_twice_is_answered_once(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Five times the same POST at the same moment, to two workers: one request to the model, five same answers."""
    upstream.plays(0.3, *slowly(tokens(50), 0.005), finish(), usage(3, 50), DONE)
    with ThreadPoolExecutor(5) as pool:
        answers = [each.result() for each in [pool.submit(whole, chat, question(id)) for _ in range(5)]]
    assert {bytes(answer.body) for answer in answers} == {bytes(answers[0].body)}
    assert sorted(answer.header("x-run-joined") for answer in answers) == ["", "true", "true", "true", "true"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "other",
    [{"message": "2"}, {"text": "Something else"}, {"trigger": "regenerate-message"}, {"messageId": "2"}],
    ids=["message", "edited", "again", "another answer"],
)
def test_another_question_is_another_run(
    chat: LiveServer, upstream: FakeOpenAI, id: str, other: dict[str, str]
) -> None:
    """What is edited, or to be answered anew, is no repetition, also while the first answer is being made."""
    upstream.plays(token("a"), 0.5, finish(), DONE)
    with ask(chat, question(id)) as client:
        client.read_body_until(b'"a"')
        assert whole(chat, question(id) | question(id, **other)).header("x-run-joined") == ""
    assert len(upstream.requests) == 2


def test_an_answered_question_is_answered_anew(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """reload() of the AI SDK 4 sends the same once more, and wants another answer."""
    whole(chat, question(id))
    eventually(lambda: get(chat, f"/api/chat/{id}/stream?running=1").status == 204)
    assert whole(chat, question(id)).header("x-run-joined") == ""


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_an_idempotency_key_is_paid_once(chat: LiveServer, upstream: FakeOpenAI, id: str, path: str) -> None:
    """Also after the end; with another question it is a 422; when the first one failed, it is asked again."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    upstream.refuses(401, "no")
    assert whole(chat, body, path=path, Idempotency_Key=id).status == 502
    upstream.plays(*WHOLE)
    first = whole(chat, body, path=path, Idempotency_Key=id)
    again = whole(chat, body, path=path, Idempotency_Key=id)
    assert (again.body, again.header("x-run-id")) == (first.body, first.header("x-run-id"))
    assert len(upstream.requests) == 2
    assert whole(chat, body | {"seed": 1}, path=path, Idempotency_Key=id).status == 422


# Stopping, and leaving


@pytest.mark.parametrize("steps", [(STALL,), (token("a"), STALL)], ids=["before the first token", "after it"])
@pytest.mark.parametrize("attempt", range(3))
def test_stop_reaches_the_model_from_any_worker(
    chat: LiveServer, upstream: FakeOpenAI, id: str, steps: tuple[bytes | float, ...], attempt: int
) -> None:
    """The connection to the model is closed at once (50 ms are promised, ten times that is asserted)."""
    upstream.plays(*steps)
    with ask(chat, question(id)) as client:
        eventually(lambda: upstream.requests)
        if len(steps) > 1:
            client.read_body_until(b'"a"')
        asked_at = time.monotonic()
        stopped = stop(chat, id)
        assert (stopped.status, stopped.json["outcome"]) == (200, "stopped")
        assert eventually(lambda: upstream.left_at) - asked_at < 0.5
        answer = client.read_to_end()
    assert (answer.end, ui(answer)[-1]) == ("clean", {"type": "abort"})
    assert stopped.json["usage"]["estimated"] is True
    assert stop(chat, id).json == stopped.json


def test_what_was_stopped_is_kept_and_told(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Each encoding says that it is not whole: text by a cut, data by its reason, OpenAI by an error."""
    upstream.plays(token("Hello, "), STALL)
    with ask(chat, question(id)) as client:
        client.read_body_until(b"Hello")
        stop(chat, id)
    again = get(chat, f"/api/chat/{id}/stream")
    assert text_of(again) == "Hello, "
    assert ui(again)[-2]["messageMetadata"]["usage"]["outputTokens"] == 2
    text = get(chat, f"/api/chat/{id}/stream?protocol=text")
    assert (bytes(text.body), text.end) == (b"Hello, ", "cut")
    data = dict(lines(bytes(get(chat, f"/api/chat?chatId={id}").body)))
    assert (data["0"], data["d"]["finishReason"]) == ("Hello, ", "other")
    *_, last = parts(bytes(get(chat, f"/api/chat/{id}/stream?protocol=openai").body))
    assert "stopped" in last["error"]["message"]


def test_stopping_what_has_ended_changes_nothing(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """It says how it ended."""
    body = whole(chat, question(id)).body
    told = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    assert stop(chat, id).json["outcome"] == "finished"
    assert stop(chat, id).json["usage"] == told
    assert get(chat, f"/api/chat/{id}/stream").body == body


def test_nobody_reads_it_any_more(brief: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """After the grace time it is stopped; a reader who comes back before that keeps it alive, in any worker."""
    upstream.plays(token("a"), STALL)
    with ask(brief, question(id)) as client:
        client.read_body_until(b'"a"')
    readers = [RawClient(brief.port).request("GET", f"/api/chat/{id}/stream") for _ in range(4)]
    for reader in readers:
        reader.read_body_until(b'"a"')
    kept_until = time.monotonic() + 2.5
    eventually(lambda: time.monotonic() > kept_until)
    assert upstream.left_at is None
    for reader in readers:
        reader.close()
    eventually(lambda: upstream.left_at, 10.0, "the model's server sees its client leave")
    eventually(lambda: ui(get(brief, f"/api/chat/{id}/stream"))[-1] == {"type": "abort"})


def test_a_durable_reader_is_a_reader(brief: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Who follows the Location instead of the response keeps the run going all the same."""
    upstream.plays(token("a"), 2.5, token("b"), finish(), DONE)
    with ask(brief, question(id)) as client:
        location = client.read_body_until(b'"a"').header("location")
        reader = RawClient(brief.port).request("GET", f"{location}?offset=-1&live=sse")
        reader.read_body_until(b'"a"')
    with reader:
        assert b'"type":"finish"' in reader.read_to_end(10).body


# Slots


def slots(server: LiveServer) -> int:
    """How many there are in the store."""
    with closing(sqlite3.connect(server.instance / "streams.db")) as db:
        return int(db.execute("SELECT count(*) FROM streams WHERE path LIKE 'slots/%'").fetchone()[0])


def test_beyond_the_slots_there_is_a_429(strict: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """With Retry-After and RateLimit fields, over all workers; a slot is free again when its run has ended."""
    upstream.plays(token("a"), STALL)
    held = [ask(strict, question(f"{id}{number}")) for number in range(2)]
    for client in held:
        client.read_body_until(b'"a"')
    for protocol in PROTOCOLS:
        refused = whole(strict, question(id), f"?protocol={protocol}")
        assert (refused.status, refused.header("retry-after")) == (429, "5")
        assert refused.header("ratelimit") == '"runs-per-caller";r=0;t=5'
        assert refused.header("ratelimit-policy") == '"runs-per-caller";q=2'
    refused = whole(strict, question(id), path="/v1/chat/completions")
    assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
    for client in held:
        client.close()
    eventually(lambda: slots(strict) == 0, what="every slot is given back")


def test_callers_are_told_apart_and_counted_together(strict: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Of X-Forwarded-For the last address counts, which no caller can make up; and all of them have a bound, too."""
    upstream.plays(token("a"), STALL)
    held = [
        ask(strict, question(f"{id}{number}"), X_Forwarded_For=address)
        for number, address in enumerate(("1.1.1.1", "1.1.1.1", "1.1.1.1, 2.2.2.2"))
    ]
    for client in held:
        client.read_body_until(b'"a"')
    one = whole(strict, question(id), X_Forwarded_For="9.9.9.9, 1.1.1.1")
    assert (one.status, one.header("ratelimit-policy")) == (429, '"runs-per-caller";q=2')
    other = whole(strict, question(id), X_Forwarded_For="3.3.3.3")
    assert (other.status, other.header("ratelimit-policy")) == (429, '"runs";q=3')
    for client in held:
        client.close()
    eventually(lambda: slots(strict) == 0, what="every slot is given back")


# What goes wrong

EARLY: dict[str, tuple[Any, int]] = {
    "401": ((401, {}), 502),
    "429": ((429, {"Retry-After": "7"}), 429),
    "500": ((500, {}), 502),
    "no headers": ((STALL,), 504),
    "error object": ((sse({"error": {"message": "x"}}), DONE), 502),
    "cut": ((CUT,), 502),
    "clean end": ((), 502),
    "garbage": ((b"<html>", b"\xff\xfe"), 502),
}


@pytest.mark.parametrize("fault", EARLY)
@pytest.mark.parametrize("path", ["/api/chat?protocol=data", "/api/chat?protocol=openai", "/v1/chat/completions"])
def test_a_fault_before_the_first_token_is_a_status(
    patient: LiveServer, upstream: FakeOpenAI, fault: str, path: str
) -> None:
    """In every encoding, streamed and whole, and with one human sentence."""
    steps, status = EARLY[fault]
    if steps and isinstance(steps[0], int):
        upstream.refuses(steps[0], "no", steps[1])
    else:
        upstream.plays(*steps)
    for stream in (True, False)[: 1 if fault == "no headers" else 2]:
        answer = whole(patient, {"messages": [{"role": "user", "content": "Hi"}], "stream": stream}, path=path)
        assert (answer.status, answer.end) == (status, "clean")
        assert answer.header("retry-after") == ("7" if status == 429 else "")
        sentence = answer.json["error"]["message"] if path.startswith("/v1") else answer.body.decode()
        assert sentence.endswith(".")


LATE: dict[str, tuple[bytes | float, ...]] = {
    "stall": (STALL,),
    "error object": (sse({"error": {"message": "x"}}), DONE),
    "cut": (CUT,),
    "clean end": (),
    "DONE alone": (DONE,),
    "garbage": (b"data: {]\n\n",),
}


@pytest.mark.parametrize("fault", LATE)
def test_a_fault_after_it_is_told_in_every_encoding(
    patient: LiveServer, upstream: FakeOpenAI, fault: str, id: str
) -> None:
    """The text that came is there, the end is an error, and so it is for whoever reads it again."""
    upstream.plays(token("Hel"), *LATE[fault])
    first = whole(patient, question(id), "?protocol=openai")
    chunks = parts(bytes(first.body))
    assert chunks[1]["choices"][0]["delta"] == {"content": "Hel"}
    sentence = chunks[-1]["error"]["message"]
    assert all(not choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])
    again = ui(get(patient, f"/api/chat/{id}/stream"))
    assert again[-1] == {"type": "error", "errorText": sentence}
    assert again[-2]["messageMetadata"]["usage"] == {
        "inputTokens": again[-2]["messageMetadata"]["usage"]["inputTokens"],
        "outputTokens": 1,
        "totalTokens": again[-2]["messageMetadata"]["usage"]["inputTokens"] + 1,
        "estimated": True,
    }
    assert lines(bytes(get(patient, f"/api/chat?chatId={id}").body))[-1] == ("3", sentence)
    text = get(patient, f"/api/chat/{id}/stream?protocol=text")
    assert (bytes(text.body), text.end) == (b"Hel", "cut")
    completion = whole(patient, question(id), path="/v1/chat/completions")
    assert (completion.status, completion.json["error"]["message"]) == (502, sentence)


def test_a_passing_fault_is_asked_again_and_told(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """Once, before the first token; the metadata says so, the log does, and after a token nothing is repeated."""
    upstream.refuses(503, "warming up")
    upstream.then_plays(*WHOLE)
    answer = whole(chat, question(id))
    assert text_of(answer) == "Hello"
    assert {"type": "message-metadata", "messageMetadata": {"retries": 1}} in ui(answer)
    chat.wait_log(r"a-model is asked again in 0\.\d s: .*503")
    upstream.plays(token("Hel"), CUT)
    whole(chat, question(id, "2"))
    assert len(upstream.requests) == 3


def test_an_answer_has_a_deadline(strict: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """CHAT_TOTAL_S, however lively the model is."""
    upstream.plays(*slowly(tokens(200)))
    answer = whole(strict, question(id))
    assert ui(answer)[-1]["errorText"] == "The model took longer for its answer than it may."
    assert text_of(answer).startswith("0 1 2 ")


def test_an_answer_has_a_bound(strict: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """CHAT_BYTES: a model that does not stop costs a bounded amount of memory."""
    upstream.plays(*[token("x" * 100)] * 1000, STALL)
    answer = whole(strict, question(id))
    assert "1000 bytes" in ui(answer)[-1]["errorText"]
    eventually(lambda: upstream.left_at)


@pytest.mark.timeout(180)
def test_killing_the_worker_loses_no_run_silently(live_server: Callable[..., LiveServer], upstream: FakeOpenAI) -> None:
    """Fifty in the middle: each reader is cut, and each run ends, for whoever asks, with "interrupted"."""
    server = live_server(OPENAI_BASE_URL=upstream.url, CHAT_IDLE_S=60)
    upstream.plays(*slowly(tokens(20)), STALL)
    (worker,) = server.pids()
    with ExitStack() as stack:
        clients = [stack.enter_context(ask(server, question(f"c{number}"))) for number in range(50)]
        for client in clients:
            client.read_body_until(b"5 ")
        os.kill(worker, signal.SIGKILL)
        assert {client.read_to_end().end for client in clients} == {"cut"}
    eventually(lambda: server.pids() not in ([], [worker]) and server.get("/readyz")[0] == 200, 20)
    # Coming back at once: each waits for the end, which the lease brings.
    with ExitStack() as stack:
        readers = [stack.enter_context(RawClient(server.port)) for _ in range(50)]
        for number, reader in enumerate(readers):
            reader.request("GET", f"/api/chat/c{number}/stream")
        for reader in readers:
            again = reader.read_to_end(LEASE_S + 5 * RENEW_S + 30)
            assert "interrupted" in ui(again)[-1]["errorText"]
            # What a live reader saw last may not have been logged when the worker was killed.
            assert NUMBERS.startswith(text_of(again))


def test_a_cursor_past_a_lost_end_is_told_of_it(patient: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """A live reader may have seen what a killed worker had not logged: it gets the end, and nothing twice."""
    upstream.plays(token("a"), CUT)
    first = bytes(whole(patient, question(id)).body)
    tag = first.partition(b"\n")[0].removeprefix(b"id: ").decode().partition("-")[0]
    for _ in range(2):  # once live, perhaps, and certainly once from the log
        rest = get(patient, f"/api/chat/{id}/stream", Last_Event_ID=f"{tag}-999")
        assert [part["type"] for part in ui(rest)] == ["error"]
        eventually(lambda: get(patient, f"/api/chat/{id}/stream?running=1").status == 204)


def test_a_reload_and_a_restart_lose_nothing(
    live_server: Callable[..., LiveServer], upstream: FakeOpenAI, id: str
) -> None:
    """The old worker waits for its runs, also for those without a reader; what takes too long is ended and told.

    After that, and after a restart, all is there, byte for byte: the message has the id it had.
    """
    server = live_server(OPENAI_BASE_URL=upstream.url, GRACEFUL_TIMEOUT=3)
    (old,) = server.pids()
    upstream.plays(*slowly(tokens(50)), finish(), usage(3, 50), DONE)
    with ask(server, question(id)) as client:
        client.read_body_until(b"5 ")
    upstream.plays(token("a"), STALL)
    with ask(server, question("long")) as client:
        client.read_body_until(b'"a"')
    server.signal(signal.SIGHUP)
    eventually(lambda: server.pids() not in ([], [old]) and old not in server.pids(), 20.0, "a new worker")
    before = get(server, f"/api/chat/{id}/stream")
    assert text_of(before) == NUMBERS
    assert "interrupted" in ui(get(server, "/api/chat/long/stream"))[-1]["errorText"]
    server.restart()
    assert get(server, f"/api/chat/{id}/stream").body == before.body


# What passes through


def test_tool_calls_sources_and_thoughts_pass_through(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """In fragments, as the model writes them, in every encoding that has a place for them."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    cited = {"type": "url_citation", "url_citation": {"url": "https://example.org", "title": "Example"}}
    upstream.plays(
        delta(reasoning_content="Hm."),
        delta(content="So:", annotations=[cited]),
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"ci'}}]),
        0.1,
        delta(tool_calls=[{"index": 0, "function": {"arguments": 'ty":"Köln"}'}}]),
        finish("tool_calls"),
        usage(3, 9),
        DONE,
    )
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer = ui(whole(chat, question(id, tools=tools)))
    by_type = {part["type"]: part for part in answer}
    assert upstream.requests[0][2]["tools"] == tools
    assert by_type["tool-input-available"]["input"] == {"city": "Köln"}
    assert by_type["source-url"]["url"] == "https://example.org"
    assert by_type["reasoning-delta"]["delta"] == "Hm."
    assert by_type["finish"]["messageMetadata"]["finishReason"] == "tool-calls"
    data = lines(bytes(get(chat, f"/api/chat?chatId={id}").body))
    assert ("9", {"toolCallId": "call_1", "toolName": "weather", "args": {"city": "Köln"}}) in data
    assert dict(data)["h"]["title"] == "Example"
    completion = whole(chat, question(id, tools=tools), path="/v1/chat/completions").json
    message = completion["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Köln"}'}
    assert (message["content"], message["reasoning_content"]) == ("So:", "Hm.")
    assert message["annotations"][0]["url_citation"]["url"] == "https://example.org"
    assert completion["choices"][0]["finish_reason"] == "tool_calls"
    assert completion["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize("more", [{}, {"index": None}, {"index": 0}, {"id": None}, {"id": ""}])
def test_calls_that_share_an_index_are_told_apart(
    chat: LiveServer, upstream: FakeOpenAI, id: str, more: dict[str, Any]
) -> None:
    """Servers that send no index, or 0 for all, some no id; two calls must not be one with the arguments of both."""
    calls = [
        {"id": f"call_{name}", "function": {"name": name, "arguments": f'{{"{name}":1}}'}, **more} for name in "fg"
    ]
    upstream.plays(*(delta(tool_calls=[call]) for call in calls), finish("tool_calls"), DONE)
    told = [part for part in ui(whole(chat, question(id))) if part["type"] == "tool-input-available"]
    assert [(part["toolName"], part["input"]) for part in told] == [("f", {"f": 1}), ("g", {"g": 1})]
    assert len({part["toolCallId"] for part in told}) == 2


def test_the_results_of_tools_go_back_to_the_model(chat: LiveServer, upstream: FakeOpenAI, id: str) -> None:
    """As the AI SDK keeps them, both old and new; the answer goes on in the message that called."""
    new = {
        "type": "tool-weather",
        "toolCallId": "1",
        "state": "output-available",
        "input": {"a": 1},
        "output": {"t": 9},
    }
    old = {"toolCallId": "1", "toolName": "weather", "state": "result", "args": {"a": 1}, "result": {"t": 9}}
    for part in (new, {"type": "tool-invocation", "toolInvocation": old}):
        body = question(id)
        body["messages"].append({"id": "answer-1", "role": "assistant", "parts": [{"type": "step-start"}, part]})
        answer = whole(chat, body)
        assert ui(answer)[0]["messageId"] == "answer-1"
        _, called, result = upstream.requests[-1][2]["messages"]
        assert called["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"a":1}'}
        assert result == {"role": "tool", "tool_call_id": "1", "content": '{"t":9}'}


def test_accept_chooses_where_nothing_else_does(chat: LiveServer, upstream: FakeOpenAI) -> None:
    """A type alone is a wish; a list that takes anything is what libraries send by themselves."""
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    kind = "x-vercel-ai-ui-message-stream"
    assert whole(chat, body, Accept="text/event-stream").header(kind) == "v1"
    assert whole(chat, body, Accept="Text/Event-Stream; charset=utf-8").header(kind) == "v1"
    assert whole(chat, body, Accept="application/json, text/plain, */*").header(kind) == ""
    assert whole(chat, body, Accept="text/event-stream", X_Stream_Protocol="text").header(kind) == ""
    assert whole(chat, question("c0"), Accept="text/plain").header(kind) == ""


# Several models


def test_models_have_names_servers_and_keys(live_server: Callable[..., LiveServer], upstream: FakeOpenAI) -> None:
    """Each is asked at its own server with its own key, under the name it has there; the system prompt comes first.

    What is counted tells them, their outcomes, and what was estimated, apart.
    """
    with FakeOpenAI() as other:
        other.plays(token("other"), finish(), DONE)
        models = {
            "fast": {"base_url": upstream.url, "api_key": "sk-one"},
            "good": {"base_url": other.url, "api_key": "sk-two", "model": "real-name"},
        }
        server = live_server(CHAT_MODELS=json.dumps(models), CHAT_SYSTEM="Be kind.", OPENAI_API_KEY="sk-none")
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        assert bytes(whole(server, body).body) == b"Hello"
        assert bytes(whole(server, body | {"model": "good"}).body) == b"other"
        _, headers, asked = other.requests[0]
        assert (headers["authorization"], asked["model"]) == ("Bearer sk-two", "real-name")
        assert asked["messages"][0] == {"role": "system", "content": "Be kind."}
        assert upstream.requests[0][1]["authorization"] == "Bearer sk-one"
        assert whole(server, body | {"model": "bad"}).status == 404
        assert whole(server, body | {"model": "bad"}, path="/v1/chat/completions").json["error"]["param"] == "model"
        assert [each["id"] for each in get(server, "/v1/models").json["data"]] == ["fast", "good"]
        assert get(server, "/v1/models/good").json["id"] == "good"
        assert get(server, "/v1/models/bad").status == 404
        other.plays(token("Hell"), CUT)
        whole(server, body | {"model": "good"})
        counted = eventually(lambda: (text := get(server, "/metrics").body.decode()).count('outcome="failed"') and text)
    assert 'perennial_chat_runs_total{model="good",outcome="failed"} 1.0' in counted
    assert 'perennial_chat_runs_total{model="fast",outcome="finished"} 1.0' in counted
    assert 'perennial_chat_tokens_total{direction="output",estimated="false",model="fast"} 2.0' in counted
    assert 'perennial_chat_tokens_total{direction="output",estimated="true",model="good"} 3.0' in counted
    assert "perennial_chat_running 0.0" in counted


def test_a_run_whose_log_is_gone_ends() -> None:
    """Its store lost it while the model was silent: the model is left, the slot given back, the reader told."""
    log, told, outcomes = MemoryLog(), gevent.event.Event(), list[Outcome]()
    run = ChatRun(Copies(log), Lease(log), "run", Parts("", "a-model", 0, 0), 1000)
    log.create(run.path, Config("application/json"), run.begin())

    def model(_: Callable[[Event], bool]) -> Iterator[Event | None]:
        yield Event(b"Hello", "text")
        yield None
        log.delete(run.path)
        yield Event(b" again", "text")
        yield None
        gevent.sleep(3600)

    def done(_: ChatRun, outcome: Outcome) -> None:
        outcomes.append(outcome)
        told.set()

    run.start(model, ExitStack(), done)
    assert told.is_set() or told.wait(10.0)
    assert (outcomes[0].how, run.events[-1].type) == ("interrupted", "error")
    log.dispose()


@pytest.mark.parametrize(
    ("stood_still", "over", "end"), [(True, True, "error"), (True, False, "finish"), (False, False, "finish")]
)
def test_who_stood_still_asks_before_he_says_that_it_is_whole(stood_still: bool, over: bool, end: str) -> None:
    """Taken for dead, its run was ended by others: a reader here must not hear another end than the log has."""
    log, done, ahead_s = MemoryLog(), gevent.event.Event(), 0.0
    lease = Lease(log, lambda: time.monotonic() + ahead_s)
    lease.renew()
    run = ChatRun(Copies(log), lease, "run", Parts("", "a-model", 0, 0), 1000)
    log.create(run.path, Config("application/json"), run.begin())

    def model(_: Callable[[Event], bool]) -> Iterator[Event | None]:
        nonlocal ahead_s
        yield Event(b"Hello", "text")
        yield None
        if over:
            end_interrupted(log, run.path)
        ahead_s = 14.0 if stood_still else 0.0
        yield json_event({"finish_reason": "stop", "usage": None}, "finish")

    run.start(model, ExitStack(), lambda *_: done.set())
    assert done.is_set() or done.wait(10.0)
    assert [event.type for event in run.events if event.type in ("finish", "error")] == [end]
    assert log.read(run.path, START).events[-1].type == end
    log.dispose()


def test_what_a_log_took_no_more_of_is_ended_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker lives, and says so; the end is there as soon as the log takes it."""
    monkeypatch.setattr(chat_copy, "BUSY_S", 0.05)
    monkeypatch.setattr(chat_copy, "PATIENCE_S", 0.2)
    log, done = MemoryLog(), gevent.event.Event()
    full, lease = SlowlyFull(log), Lease(log)
    full.full_until = time.monotonic() + 3600
    run = ChatRun(Copies(full), lease, "run", Parts("", "a-model", 0, 0), 1000)
    log.create(run.path, Config("application/json"), run.begin())
    finish = json_event({"finish_reason": "stop", "usage": None}, "finish")
    run.start(lambda _: iter([Event(b"Hello", "text"), finish]), ExitStack(), lambda *_: done.set())
    assert done.is_set() or done.wait(10.0)
    lease.renew()
    told = log.read(run.path, START).events[-1]
    assert (log.state(run.path).closed, told.type) == (True, "error")
    assert b"could not be kept" in told.data
    log.dispose()


class Forgetful:
    """``log``, which once acknowledges an append and has then lost it, as a Redis that is restarted from its disk."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.forgets = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append_each(self, appends: Sequence[Append]) -> Sequence[StoreError | None]:
        if self.forgets:
            self.forgets = False
            return [None] * len(appends)
        return self._log.append_each(appends)


class SlowlyFull:
    """``log``, which takes nothing until ``full_until``, and its time to say so; how often it has ``refused``."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.full_until = 0.0
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append_each(self, appends: Sequence[Append]) -> Sequence[StoreError | None]:
        if time.monotonic() >= self.full_until:
            return self._log.append_each(appends)
        self.refused += 1
        gevent.sleep(chat_copy.JOIN_S * 1.5)
        return [StoreFull("No space is left.")] * len(appends)


def copied(log: MemoryLog, store: Any, fail: Callable[[], None]) -> tuple[list[tuple[bytes, str]], ChatRun]:
    """What the log has of a run of twelve pieces, in the middle of which ``fail`` is called; and the run."""
    told = gevent.event.Event()
    run = ChatRun(Copies(store), Lease(log), "run", Parts("", "a-model", 0, 0), 1000)
    log.create(run.path, Config("application/json"), run.begin())

    def model(_: Callable[[Event], bool]) -> Iterator[Event | None]:
        for number in range(12):
            if number == 6:
                fail()
            yield Event(b"%d " % number, "text")
            yield None
            gevent.sleep(chat_copy.JOIN_S * 1.1)
        yield Event(b'{"finish_reason":"stop","usage":null}', "finish")

    run.start(model, ExitStack(), lambda *_: told.set())
    assert told.is_set() or told.wait(20.0)
    return [(event.data, event.type) for event in log.read(run.path, "").events], run


@pytest.mark.parametrize("lost", [1, 3])
def test_an_append_that_was_not_answered_is_not_doubled(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happened, and is tried again: the log has every part once."""
    monkeypatch.setattr(chat_copy, "BUSY_S", 0.01)
    log = MemoryLog()
    losing = LostAnswers(log, ["append_each"])
    kept, run = copied(log, losing, lambda: setattr(losing, "lost", lost))
    assert kept == [(event.data, event.type) for event in run.events]
    assert log.state(run.path).closed
    log.dispose()


def test_a_log_that_is_away_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice a second, however much comes meanwhile, also while it is being asked; and then it gets all of it."""
    monkeypatch.setattr(chat_copy, "BUSY_S", 0.3)
    log = MemoryLog()
    slow = SlowlyFull(log)
    kept, run = copied(log, slow, lambda: setattr(slow, "full_until", time.monotonic() + 1.0))
    assert kept == [(event.data, event.type) for event in run.events]
    assert 2 <= slow.refused <= 5
    log.dispose()


def test_what_a_log_has_lost_is_given_again() -> None:
    """What it had acknowledged and no longer has, as far as the run still knows it: all parts, in their order."""
    log = MemoryLog()
    forgetful = Forgetful(log)
    kept, run = copied(log, forgetful, lambda: setattr(forgetful, "forgets", True))
    assert kept == [(event.data, event.type) for event in run.events]
    log.dispose()


def test_a_run_that_could_not_be_begun_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key was in the index already, and then there was no room: who asks again is told, and does not wait."""
    log = MemoryLog()
    lease = Lease(log)
    chats = Chats(log, lease, settings)
    asked = Ask("a-chat", "caller", same="1", key="a-key", body="x")

    def full(*_: object) -> None:
        raise StoreFull("No space is left.")

    with monkeypatch.context() as patch:
        patch.setattr(Chats, "_name", full)
        with pytest.raises(StoreFull):
            chats.begin(asked, Parts("", "a-model", 0, 0), lambda _: iter(()))
    run_id, is_new = chats.begin(asked, Parts("", "a-model", 0, 0), lambda _: iter(()))
    assert not is_new
    lease.renew()
    with closing(chats.read(run_id)) as reader:
        events = list(reader)
    assert events[-1] is not None
    assert (events[-1].type, log.state(f"chats/{run_id}").closed) == ("error", True)
    assert not log.paths("slots/")
    log.dispose()


def test_of_a_crowd_few_begin_at_a_time(settings: Settings) -> None:
    """All of it begins, also behind those that could not; how many do so at once is bounded."""

    class Slow(MemoryLog):
        now, most, count = 0, 0, 0

        def create_each(self, creates: Sequence[Create]) -> None:
            self.now, self.count = self.now + 1, self.count + 1
            self.most = max(self.most, self.now)
            number = self.count
            try:
                gevent.sleep(0.001)
                if number % 5 == 0:
                    raise StoreFull("No space is left.")
                super().create_each(creates)
            finally:
                self.now -= 1

    log = Slow()
    lease = Lease(log)
    chats = Chats(log, lease, settings)

    def begin(number: int) -> bool:
        try:
            return chats.begin(Ask("", f"caller-{number}"), Parts("", "a-model", 0, 0), lambda _: iter(()))[1]
        except StoreFull:
            return False

    with gevent.Timeout(20):
        begun = [job.get() for job in [gevent.spawn(begin, number) for number in range(40)]]
    assert begun.count(True) == 32
    assert log.most == 3
    eventually(lambda: gevent.sleep(0.01) or not chats.running())
    log.dispose()


def test_a_run_that_its_chat_was_not_told_of_is_found_by_who_joins_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker was killed after the key led to it and before the chat did; an older question moves nothing back."""
    log = MemoryLog()
    chats = Chats(log, Lease(log), settings)

    def asked(number: int) -> Ask:
        return Ask("a-chat", "caller", same=f"{number}", key=f"key-{number}", body=f"{number}")

    def model(_: Callable[[Event], bool]) -> Iterator[Event]:
        yield Event(b'{"finish_reason":"stop","usage":null}', "finish")

    def begun(number: int) -> str:
        return chats.begin(asked(number), Parts("", "a-model", 0, 0), model)[0]

    def killed(*_: object) -> None:
        raise gevent.GreenletExit

    first = begun(1)
    assert chats.find("a-chat") == first
    with monkeypatch.context() as patch:
        patch.setattr(Chats, "_name", killed)
        with pytest.raises(gevent.GreenletExit):
            begun(2)
    assert chats.find("a-chat") == first
    second = begun(2)
    assert chats.find("a-chat") == second != first
    chats.settle(first)
    assert begun(1) == first
    assert chats.find("a-chat") == second
    log.dispose()

"""llm: a model behind the OpenAI protocol, against a real server with faults, and the offline model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import chunks, refusals, sse
from llm.clients import make_client
from llm.openai import Limits, complete
from settings import Settings
from streaming.errors import BadRequest, Problem, StreamFailed, TooManyRequests, UpstreamFailed, UpstreamTimeout
from streaming.events import Event
from tests.fake_openai import CUT, DONE, PING, STALL, WHOLE, FakeOpenAI, delta, finish, token, usage
from tests.fake_openai import sse as frame
from tests.harness import eventually, free_port

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-secret-0123456789"
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def upstream() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def ask(base_url: str, *, first_token_s: float = 5, idle_s: float = 5, key: str = KEY) -> Iterator[Event]:
    with make_client(Settings(OPENAI_BASE_URL=base_url, OPENAI_API_KEY=key)) as client:
        yield from answer(client, HELLO, Limits(first_token_s, idle_s))


def answer(client: openai.OpenAI, content: Any, limits: Limits) -> Iterator[Event]:
    """What the model says, without the moments in which it says nothing."""
    with closing(complete(client, "a-model", content, limits)) as events:
        yield from filter(None, events)


def outcome(events: Iterator[Event]) -> tuple[list[tuple[str, bytes]], Exception | None]:
    """What came, and what it ended with."""
    came: list[tuple[str, bytes]] = []
    try:
        came.extend((event.type, event.data) for event in events)
    except (Problem, StreamFailed) as error:
        return came, error
    return came, None


def finish_of(events: list[tuple[str, bytes]]) -> Any:
    assert events[-1][0] == "finish"
    return json.loads(events[-1][1])


# The whole answer


def test_answer_is_its_pieces_and_then_how_it_ended(upstream: FakeOpenAI) -> None:
    """Each delta is an event as it came; the role's empty one is none; the usage comes with the finish."""
    came, error = outcome(ask(upstream.url))
    assert error is None
    assert came[:-1] == [("text", b"Hel"), ("text", b"lo")]
    assert finish_of(came) == {
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_request_is_what_the_api_reference_asks_for(upstream: FakeOpenAI) -> None:
    """The model, the messages, stream and include_usage go to /chat/completions with the key as a bearer token."""
    list(ask(upstream.url))
    path, headers, body = upstream.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    expected = {"model": "a-model", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    assert body == expected


def test_reasoning_is_told_from_text(upstream: FakeOpenAI) -> None:
    """Both names that servers have for it become ``reasoning``; a refusal is text."""
    thoughts = delta(reasoning_content="Hm"), delta(reasoning="m."), delta(refusal="No."), finish(), DONE
    upstream.plays(*thoughts)
    came, _ = outcome(ask(upstream.url))
    assert came[:-1] == [("reasoning", b"Hm"), ("reasoning", b"m."), ("text", b"No.")]


@pytest.mark.parametrize(
    "steps",
    [
        (token("a"), finish("length")),
        (token("a"), finish("length"), DONE),
        (token("a"), finish("length"), CUT),
        (token("a"), delta("length", content="").rstrip(b"\n")),
    ],
    ids=["no usage, no DONE", "no usage", "cut after the reason", "no last blank line"],
)
def test_finish_reason_makes_an_answer_whole(upstream: FakeOpenAI, steps: tuple[bytes, ...]) -> None:
    """What can only follow a finish_reason, usage and [DONE], may be missing."""
    upstream.plays(*steps)
    came, error = outcome(ask(upstream.url))
    assert error is None
    assert finish_of(came) == {"finish_reason": "length", "usage": None}


def test_answer_does_not_wait_for_the_end_of_the_connection(upstream: FakeOpenAI) -> None:
    """A server that keeps the connection open after [DONE] holds up nobody."""
    upstream.plays(token("a"), finish(), usage(1, 1), DONE, STALL)
    began = time.monotonic()
    # Without gevent under it, the read is ended by the client's own time-out, here a second.
    came, error = outcome(ask(upstream.url, first_token_s=1, idle_s=1))
    assert error is None
    assert finish_of(came)["finish_reason"] == "stop"
    assert time.monotonic() - began < 3


def test_server_that_does_not_know_stream_options_is_asked_without(upstream: FakeOpenAI) -> None:
    """A 400 about stream_options is ours to mend: the same question without it."""
    upstream.refuses(400, "Unknown parameter: stream_options", param="stream_options")
    upstream.then_plays(token("a"), finish(), DONE)
    came, error = outcome(ask(upstream.url))
    assert error is None
    assert came[0] == ("text", b"a")
    assert ["stream_options" in body for _, _, body in upstream.requests] == [True, False]


# Before the first event: a Problem


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (422, BadRequest),
        (401, UpstreamFailed),
        (403, UpstreamFailed),
        (404, UpstreamFailed),
        (408, UpstreamTimeout),
        (429, TooManyRequests),
        (500, UpstreamFailed),
        (503, UpstreamFailed),
        (504, UpstreamTimeout),
    ],
)
def test_refusal_is_a_status_of_our_own(upstream: FakeOpenAI, status: int, kind: type[Problem]) -> None:
    """Each status of the model's server becomes ours; at once, without a retry, and never with the key in it."""
    upstream.refuses(status, f"Incorrect API key provided: {KEY} or sk-sec******6789.")
    came, error = outcome(ask(upstream.url))
    assert came == []
    assert type(error) is kind
    assert "sk-" not in error.detail
    assert len(upstream.requests) == 1


def test_callers_own_fault_is_told_in_the_servers_words(upstream: FakeOpenAI) -> None:
    """What is wrong with the messages only the server knows: its sentence is passed on."""
    upstream.refuses(400, "This model's maximum context length\nis 8192 tokens.", code="context_length_exceeded")
    _, error = outcome(ask(upstream.url))
    assert isinstance(error, BadRequest)
    assert "maximum context length is 8192 tokens." in error.detail


def test_400_about_our_own_parameters_is_not_the_callers(upstream: FakeOpenAI) -> None:
    """The caller did not choose the model: 502."""
    upstream.refuses(400, "invalid model ID", param="model")
    assert type(outcome(ask(upstream.url))[1]) is UpstreamFailed


# Now, and not when the tests were collected.
_IN_AN_HOUR = "in an hour"


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "0.5"}, 0.5, 0.5),
        ({"Retry-After": _IN_AN_HOUR}, 3000, 3600),
        ({"Retry-After": "soon"}, refusals.RETRY_AFTER_S, refusals.RETRY_AFTER_S),
        ({}, refusals.RETRY_AFTER_S, refusals.RETRY_AFTER_S),
    ],
)
def test_retry_after_is_passed_on(upstream: FakeOpenAI, headers: dict[str, str], least: float, most: float) -> None:
    """RFC 9110, 10.2.3: seconds or a date; where there is none, a wait of our own."""
    if headers.get("Retry-After") == _IN_AN_HOUR:
        headers = {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}
    upstream.refuses(429, "Rate limit reached", headers)
    _, error = outcome(ask(upstream.url))
    assert isinstance(error, TooManyRequests)
    assert error.retry_after_s is not None
    assert least <= error.retry_after_s <= most


def test_refused_connection_is_502() -> None:
    """Nobody listens there."""
    came, error = outcome(ask(f"http://127.0.0.1:{free_port()}/v1"))
    assert (came, type(error)) == ([], UpstreamFailed)


@pytest.mark.parametrize(
    "steps",
    [(STALL,), (delta(role="assistant", content=""), STALL), (PING, 0.05) * 40],
    ids=["no status", "no token", "pings only"],
)
def test_silence_before_the_first_token_is_504(upstream: FakeOpenAI, steps: tuple[bytes | float, ...]) -> None:
    """No status, a status and nothing more, or pings only: the deadline is the first token's."""
    upstream.plays(*steps)
    began = time.monotonic()
    came, error = outcome(ask(upstream.url, first_token_s=0.3, idle_s=0.3))
    assert (came, type(error)) == ([], UpstreamTimeout)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "steps",
    [
        (CUT,),
        (DONE,),
        (b"<html>no model here</html>",),
        (b"data: {]\n\n",),
        (frame({"error": {"message": "overloaded"}}), DONE),
    ],
)
def test_failure_before_the_first_token_is_502(upstream: FakeOpenAI, steps: tuple[bytes | float, ...]) -> None:
    """A 200 that is no answer is still a real status for our caller."""
    upstream.plays(*steps)
    came, error = outcome(ask(upstream.url))
    assert (came, type(error)) == ([], UpstreamFailed)


# After it: StreamFailed


@pytest.mark.parametrize(
    "steps",
    [
        (CUT,),
        (),
        (DONE,),
        (b"data: {]\n\n",),
        (b'data: {"choices": 1}\n\n',),
        (frame({"error": {"message": "overloaded"}}), DONE),
        (frame({"error": "overloaded"}), DONE),
        (frame({"object": "error", "message": "overloaded"}), DONE),
        (b"event: error\n" + frame({"message": "overloaded"}), DONE),
        (delta("error"), DONE),
        (finish(), frame({"error": {"message": "overloaded"}})),
        (STALL,),
        (PING, 0.05) * 40,
    ],
    ids=[
        "cut",
        "clean end",
        "DONE alone",
        "no JSON",
        "another shape",
        "error object",
        "error text",
        "vLLM's old error",
        "error event",
        "finish_reason error",
        "error after the reason",
        "silence",
        "pings only",
    ],
)
def test_failure_after_the_first_token_is_told(upstream: FakeOpenAI, steps: tuple[bytes | float, ...]) -> None:
    """What came is kept, no finish is made up, and the end is an error."""
    upstream.plays(token("Hel"), *steps)
    came, error = outcome(ask(upstream.url, first_token_s=0.5, idle_s=0.5))
    assert came == [("text", b"Hel")]
    assert type(error) is StreamFailed
    assert "overloaded" not in str(error)


def test_slow_tokens_are_no_silence(upstream: FakeOpenAI) -> None:
    """The deadline between two tokens begins anew with each."""
    upstream.plays(*(step for _ in range(8) for step in (token("a"), 0.1)), finish(), DONE)
    came, error = outcome(ask(upstream.url, first_token_s=0.5, idle_s=0.5))
    assert error is None
    assert len(came) == 9


def test_readers_own_time_is_not_the_models(upstream: FakeOpenAI) -> None:
    """A reader that takes longer than the deadline for one piece gets the next one all the same."""
    upstream.plays(token("a"), token("b"), finish(), DONE)
    events = ask(upstream.url, first_token_s=0.3, idle_s=0.3)
    first = next(events)
    ready_at = time.monotonic() + 0.4
    eventually(lambda: time.monotonic() > ready_at)
    assert (first.data, next(events).data) == (b"a", b"b")
    events.close()


# Leaving


def test_closing_closes_the_connection_to_the_model(upstream: FakeOpenAI) -> None:
    """GeneratorExit at a yield reaches the server, whose silence would otherwise go on."""
    upstream.plays(token("a"), STALL)
    events = ask(upstream.url)
    assert next(events).data == b"a"
    events.close()
    eventually(lambda: upstream.left_at, 1.0)


KILLED = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
from llm.clients import make_client
from llm.openai import Limits, complete
from settings import Settings
client = make_client(Settings(OPENAI_BASE_URL=sys.argv[1]))
got = []
def run():
    for event in complete(client, "m", [], Limits(float(sys.argv[2]), float(sys.argv[2]))):
        got.extend([event] if event else [])
def told():
    try:
        run()
    except Exception as error:
        print(type(error).__name__, flush=True)
greenlet = gevent.spawn(told)
greenlet.join(float(sys.argv[3]))
print(len(got), greenlet.dead, flush=True)
greenlet.kill()
gevent.sleep(float(sys.argv[4]))
"""


def patched(
    upstream: FakeOpenAI, *, deadline_s: float, run_s: float, stay_s: float
) -> subprocess.CompletedProcess[str]:
    """Run an answer in a greenlet of a patched process, which is where it runs in the server."""
    numbers = [str(deadline_s), str(run_s), str(stay_s)]
    command = [sys.executable, "-c", KILLED, upstream.url, *numbers]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "got"), [((STALL,), "0"), ((token("a"), STALL), "1")])
def test_killing_the_greenlet_closes_the_connection(
    upstream: FakeOpenAI, steps: tuple[bytes | float, ...], got: str
) -> None:
    """GreenletExit reaches the server at once, before the status and in the middle; the process lives on for 3 s."""
    upstream.plays(*steps)
    began = time.monotonic()
    done = patched(upstream, deadline_s=60, run_s=3, stay_s=3)
    assert done.stdout.split() == [got, "False"], done.stderr
    assert upstream.left_at is not None
    assert time.monotonic() - upstream.left_at > 2.5
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "told"),
    [((STALL,), "UpstreamTimeout 0"), ((token("a"), STALL), "StreamFailed 1"), ((token("a"), finish(), STALL), "2")],
)
def test_deadlines_break_off_a_read(upstream: FakeOpenAI, steps: tuple[bytes | float, ...], told: str) -> None:
    """Under gevent it is our deadline, not a read time-out, that ends a silence."""
    upstream.plays(*steps)
    done = patched(upstream, deadline_s=1, run_s=20, stay_s=0)
    assert done.stdout.split() == [*told.split(), "True"], done.stderr


# The offline model


def offline(content: Any) -> tuple[str, Any]:
    with make_client(Settings()) as client:
        events = [(event.type, event.data) for event in answer(client, content, Limits(5, 5))]
    return b"".join(data for kind, data in events if kind == "text").decode(), finish_of(events)


def test_offline_model_says_so_first_and_answers_the_message() -> None:
    """Its first words name the settings that reach a real model; then it counts what it was given."""
    text, end = offline([{"role": "user", "content": "How wonderful is this?"}])
    assert text.startswith("I am the offline model")
    assert "OPENAI_API_KEY" in text
    assert "OPENAI_BASE_URL" in text
    assert "has 4 words and 22 characters; its longest word is “wonderful”" in text
    assert text.endswith("It reads: How wonderful is this?")
    assert end["finish_reason"] == "stop"
    assert end["usage"]["prompt_tokens"] == 4


def test_offline_model_reads_parts() -> None:
    """A content of parts is its texts; images it cannot see."""
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    text, _ = offline([{"role": "user", "content": parts}])
    assert text.endswith("It reads: Hi")


def test_offline_model_streams() -> None:
    """The first word is there long before the last."""
    with make_client(Settings()) as client:
        began = time.monotonic()
        events = answer(client, HELLO, Limits(5, 5))
        assert next(events).data == b"I"
        assert time.monotonic() - began < 0.5
        events.close()


def test_offline_model_is_an_api_of_its_own() -> None:
    """The typed client, which is not our reader, understands it too."""
    with make_client(Settings()) as client:
        chunks = list(client.chat.completions.create(model="m", messages=HELLO, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    with make_client(Settings()) as client, pytest.raises(openai.NotFoundError):
        client.models.list()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (Settings(OPENAI_API_KEY="k"), "https://api.openai.com/v1/"),
        (Settings(OPENAI_BASE_URL="http://127.0.0.1:11434/v1"), "http://127.0.0.1:11434/v1/"),
    ],
)
def test_client_is_the_real_one_with_a_key_or_a_base_url(settings: Settings, url: str) -> None:
    """A key alone means OpenAI's own server; a base URL alone a local one, which needs no key."""
    with make_client(settings) as client:
        assert str(client.base_url) == url
        assert client.max_retries == 0


# The decoder

STREAM = (
    b"\xef\xbb\xbf: a comment\n\ndata: one\r\ndata:two\r\n\r\nevent: error\rdata: {}\r\r"
    b"id: 7\nretry: 5\n\ndata\ndata:  three \xe2\x80\xa8\n\ndata: cut"
)
# HTML Living Standard, 9.2.6: one space after the colon goes, data lines are joined by LF, a field without a colon
# has an empty value, a message without data is none. The last one is unfinished, and ours to keep (see flush).
MESSAGES = [
    sse.Message(b"one\ntwo"),
    sse.Message(b"{}", "error"),
    sse.Message(b"\n three \xe2\x80\xa8"),
    sse.Message(b"cut"),
]


def decoded(pieces: list[bytes]) -> list[sse.Message]:
    decoder = sse.Decoder()
    return [message for piece in pieces for message in decoder.decode(piece)] + decoder.flush()


def test_decoder_whole() -> None:
    """The standard's own rules, in one piece."""
    assert decoded([STREAM]) == MESSAGES


def test_decoder_bytewise() -> None:
    """One byte at a time."""
    assert decoded([STREAM[at : at + 1] for at in range(len(STREAM))]) == MESSAGES


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_decoder_at_random_cuts(cuts: list[int]) -> None:
    """Wherever it is cut, also into empty pieces."""
    edges = [0, *sorted(cuts), len(STREAM)]
    assert decoded([STREAM[a:b] for a, b in pairwise(edges)]) == MESSAGES


@pytest.mark.parametrize(
    "piece", [b"data: " + b"x" * 1000 + b"\n", b"x"], ids=["a message without end", "a line without end"]
)
def test_decoder_has_a_bound(piece: bytes) -> None:
    """A server that never ends its message costs a bounded amount of memory."""
    decoder = sse.Decoder()
    with pytest.raises(ValueError, match="more than"):  # noqa: PT012 - it is some call of many that raises
        for _ in range(10):
            decoder.decode(piece * (sse.LIMIT_BYTES // 8 // len(piece)))


def test_whole_answer_at_every_cut() -> None:
    """The fake server's own answer, bytewise, is the same messages."""
    stream = b"".join(step for step in WHOLE if isinstance(step, bytes))
    assert decoded([stream[at : at + 1] for at in range(len(stream))]) == decoded([stream])


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"error":{"m\x9b":1}}', b'{"choices":[{"delta":{"content":"\xff"}}]}', b"[" * 100_000]
)
def test_what_is_no_chunk_is_a_failure_of_the_model(data: bytes) -> None:
    """No JSON, no UTF-8, or nested without end: one sentence, and none of our own errors."""
    with pytest.raises(StreamFailed, match="no answer"):
        chunks.read(sse.Message(data))


@pytest.mark.parametrize(
    ("cited", "title"), [("http://a.example/", "http://a.example/"), ({"url": "http://a.example/", "title": "A"}, "A")]
)
def test_what_is_cited_is_a_source(cited: object, title: str) -> None:
    """A list of where it was found, or of what; beside it ``object`` may be null."""
    data = msgspec.json.encode({"object": None, "choices": [], "citations": [cited]})
    (source,) = chunks.events(chunks.read(sse.Message(data)))
    assert msgspec.json.decode(source.data) == {"url": "http://a.example/", "title": title}


@pytest.mark.parametrize("text", ["", "soon", "-1", "06 Nov 199 7777777777777777777770:37, "])
def test_a_wait_that_is_none_is_none(text: str) -> None:
    """What a model's server says there may be anything, also a date beyond all numbers."""
    assert refusals.retry_after_s({"retry-after": text}) is None

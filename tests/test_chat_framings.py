"""streaming.chat_framings: the bytes, and what the AI SDK's own clients make of them.

Expected bytes: AI SDK 4, "Stream Protocols", data stream protocol; AI SDK 5, "Stream Protocols", UI message stream.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from streaming.chat_framings import ChatText, DataStream, UIMessageStream
from streaming.chat_parts import Parts
from streaming.events import Event
from streaming.framings import Framing
from tests.chat_peers import AI, V4, ask_client
from tests.harness import EventStream

THOUGHT = Event("Hm, é…".encode(), "reasoning")
TEXTS = (Event('He"l\nlo \u2028'.encode(), "text"), Event("\U0001f600".encode(), "text"))
USAGE = b'{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
FINISH = Event(b'{"finish_reason":"content_filter","usage":' + USAGE + b"}", "finish")
FINISH_WITHOUT_USAGE = Event(b'{"finish_reason":"stop","usage":null}', "finish")
UNKNOWN = Event(b"{}", "something-new")


def answer_parts(*events: Event) -> list[Event]:
    """What a run keeps of a model's events: its beginning, and each event as parts."""
    made = Parts("msg-1", "a-model", 1_700_000_000)
    return [*made.begin(), *(part for event in events for part in made.add(event))]


def wire(framing: Framing, *events: Event) -> bytes:
    return framing.open() + b"".join(map(framing.encode, answer_parts(*events))) + framing.close()


# Text


def test_text_is_the_answer_and_nothing_else() -> None:
    """Reasoning and the finish are no text, and an unknown event is left out."""
    assert wire(ChatText(), THOUGHT, *TEXTS, UNKNOWN, FINISH) == b"".join(event.data for event in TEXTS)


def test_text_cannot_tell_a_failure() -> None:
    """So the pump cuts, and no heartbeat is mixed into the text."""
    assert (ChatText().error, ChatText().drain, ChatText().idle()) == (None, None, b"")


# The data stream (AI SDK 4)


def lines(data: bytes) -> list[tuple[str, Any]]:
    """The parts of a data stream: ``code:json`` and LF each."""
    assert data.endswith(b"\n")
    parts = (line.split(":", 1) for line in data.decode().split("\n") if line)
    return [(code, json.loads(value)) for code, value in parts]


def test_data_stream_is_parts_of_code_and_json() -> None:
    """f starts a step, g is reasoning, 0 is text, e finishes the step and d the message."""
    usage = {"promptTokens": 3, "completionTokens": 2}
    assert lines(wire(DataStream(), THOUGHT, *TEXTS, UNKNOWN, FINISH)) == [
        ("f", {"messageId": "msg-1"}),
        ("g", "Hm, é…"),
        ("0", 'He"l\nlo \u2028'),
        ("0", "\U0001f600"),
        ("e", {"finishReason": "content-filter", "usage": usage, "isContinued": False}),
        ("d", {"finishReason": "content-filter", "usage": usage}),
    ]


def test_data_stream_tells_a_failure_and_a_heartbeat() -> None:
    """3 is the error part; an empty line is what the reader skips."""
    framing = DataStream()
    assert (framing.error("It failed."), framing.idle()) == (b'3:"It failed."\n', b"\n")
    assert framing.headers == {"x-vercel-ai-data-stream": "v1"}


def test_usage_that_nobody_counted_is_an_estimate() -> None:
    """It is never sent as zero: four bytes of text are about a token, and where there is room it says so."""
    *_, last = lines(wire(DataStream(), Event(b"x" * 40, "text"), FINISH_WITHOUT_USAGE))
    assert last == ("d", {"finishReason": "stop", "usage": {"promptTokens": 0, "completionTokens": 10}})
    *_, finish, _ = parts(wire(UIMessageStream(), Event(b"x" * 40, "text"), FINISH_WITHOUT_USAGE))
    assert finish["messageMetadata"]["usage"]["estimated"] is True


# The UI message stream (AI SDK 5 and later)


def parts(data: bytes) -> list[Any]:
    """The parts of a UI message stream, each an event's data; [DONE] as it is."""
    events = EventStream().feed(data)
    return [event.data if event.data == "[DONE]" else json.loads(event.data) for event in events]


def test_ui_message_stream_is_events_of_typed_parts() -> None:
    """Text and reasoning are parts with start, deltas and end under one id; then the step, the message and [DONE]."""
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    assert parts(wire(UIMessageStream(), THOUGHT, *TEXTS, UNKNOWN, FINISH)) == [
        {
            "type": "start",
            "messageId": "msg-1",
            "messageMetadata": {"model": "a-model", "createdAt": 1_700_000_000},
        },
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm, é…"},
        {"type": "reasoning-end", "id": "1"},
        {"type": "text-start", "id": "2"},
        {"type": "text-delta", "id": "2", "delta": 'He"l\nlo \u2028'},
        {"type": "text-delta", "id": "2", "delta": "\U0001f600"},
        {"type": "text-end", "id": "2"},
        {"type": "finish-step"},
        {"type": "finish", "messageMetadata": {"finishReason": "content-filter", "usage": usage}},
        "[DONE]",
    ]


def test_ui_message_stream_tells_a_failure_and_a_heartbeat() -> None:
    """An error part, and no [DONE] after it; a comment is no event."""
    framing = UIMessageStream()
    assert parts(framing.error("It failed.")) == [{"type": "error", "errorText": "It failed."}]
    assert parts(framing.idle()) == []
    assert framing.content_type == "text/event-stream"
    assert framing.headers == {"x-vercel-ai-ui-message-stream": "v1"}


def test_empty_answer_is_whole() -> None:
    """A model may say nothing and finish: no part is opened."""
    types = [part if part == "[DONE]" else part["type"] for part in parts(wire(UIMessageStream(), FINISH))]
    assert types == ["start", "start-step", "finish-step", "finish", "[DONE]"]


@pytest.mark.parametrize("framing", [ChatText(), DataStream(), UIMessageStream()], ids=["text", "data", "ui"])
def test_no_chat_framing_can_be_drained(framing: Framing) -> None:
    """useChat takes every clean end for the whole answer."""
    assert framing.drain is None


# The peers themselves


def answer(framing: Framing, *, fails: bool) -> bytes:
    assert framing.error is not None
    events = answer_parts(THOUGHT, *TEXTS, *([] if fails else [FINISH]))
    pieces = [framing.open(), framing.idle(), *map(framing.encode, events), framing.idle()]
    return b"".join([*pieces, framing.error("It failed.") if fails else framing.close()])


@pytest.mark.usefixtures("npm_clients")
@pytest.mark.parametrize("package", AI)
def test_ai_sdk_reads_an_answer(package: str) -> None:
    """Every version of the client, fed in pieces of seven bytes, has the answer and no error."""
    framing = DataStream() if package == V4 else UIMessageStream()
    seen = ask_client(package, "-", answer(framing, fails=False))
    assert (seen["status"], seen["error"], seen["id"]) == ("ready", None, "msg-1")
    assert (seen["text"], seen["reasoning"]) == ('He"l\nlo \u2028\U0001f600', "Hm, é…")
    end = seen["finish"] if package == V4 else seen["metadata"]
    assert end["finishReason"] == "content-filter"
    assert end["usage"]["totalTokens"] == 5


@pytest.mark.usefixtures("npm_clients")
@pytest.mark.parametrize("package", AI)
def test_ai_sdk_is_told_of_a_failure(package: str) -> None:
    """Every version of the client ends in the error state with our sentence, and keeps what came before."""
    framing = DataStream() if package == V4 else UIMessageStream()
    seen = ask_client(package, "-", answer(framing, fails=True))
    assert (seen["status"], seen["error"]) == ("error", "It failed.")
    assert seen["text"].endswith("\U0001f600")

"""What a run keeps, who may begin one, and how it is found: the parts, the index, the slots, the cursors; in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import messages
from llm.models import Models
from settings import Settings
from stores.base import START, Config, Create
from stores.memory import MemoryLog
from streaming.chat_framings import ChatText, DataStream, UIMessageStream
from streaming.chat_index import Entry, Index, digest
from streaming.chat_parts import TERMINAL, Parts
from streaming.chat_slots import Slots
from streaming.completion_framings import Completion, CompletionChunks
from streaming.errors import BadRequest, NotFound, StreamFailed, TooManyRequests
from streaming.events import Event, json_event
from streaming.leases import CHATS, LEASE_S, SLOTS, Lease

MODEL_EVENTS = st.lists(
    st.one_of(
        st.builds(lambda text: Event(text.encode(), "text"), st.text(min_size=1, max_size=9)),
        st.builds(lambda text: Event(text.encode(), "reasoning"), st.text(min_size=1, max_size=9)),
        st.builds(
            lambda index, more: json_event(
                {"index": index, "id": f"call_{index}", "name": "f", "arguments": more}, "tool-call"
            ),
            st.integers(0, 2),
            st.text(max_size=9),
        ),
    ),
    max_size=20,
)
FINISH = json_event({"finish_reason": "stop", "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, "finish")


def kept(events: list[Event]) -> list[Event]:
    made = Parts("msg-1", "m", 1)
    return [*made.begin(), *(part for event in [*events, FINISH] for part in made.add(event))]


def of(events: list[Event], type: str) -> str:
    return b"".join(event.data for event in events if event.type == type).decode()


# The parts


@given(MODEL_EVENTS)
def test_parts_say_what_the_model_said(events: list[Event]) -> None:
    """Whatever comes in whatever order: each part is opened once and closed, and the texts are those of the model."""
    parts = [json.loads(event.data) for event in kept(events)]
    assert [part["type"] in TERMINAL for part in parts] == [False] * (len(parts) - 1) + [True]
    for kind, type in (("text", "text"), ("reasoning", "reasoning")):
        assert "".join(part["delta"] for part in parts if part["type"] == f"{kind}-delta") == of(events, type)
        opened = [part["id"] for part in parts if part["type"] == f"{kind}-start"]
        assert opened == [part["id"] for part in parts if part["type"] == f"{kind}-end"]
        assert len(set(opened)) == len(opened)
    open_ids: set[str] = set()
    for part in parts:
        if part["type"].endswith(("text-start", "reasoning-start")):
            assert not open_ids
            open_ids.add(part["id"])
        elif part["type"].endswith("-delta") and "delta" in part:
            assert open_ids == {part["id"]}
        elif part["type"].endswith("-end"):
            open_ids.discard(part["id"])


@given(MODEL_EVENTS)
def test_every_encoding_carries_the_text(events: list[Event]) -> None:
    """Text, data stream, OpenAI's chunks and whole: the same characters, whatever they are."""
    text = of(events, "text")
    parts = kept(events)
    assert b"".join(map(ChatText().encode, parts)).decode() == text
    lines = b"".join(map(DataStream().encode, parts)).decode().split("\n")
    assert "".join(json.loads(line[2:]) for line in lines if line.startswith("0:")) == text
    frames = b"".join(map(CompletionChunks().encode, parts)).split(b"\n\n")
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames if frame]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == text
    whole = Completion()
    for part in parts:
        whole.add(part)
    assert (whole.whole()["choices"][0]["message"]["content"] or "") == text


@given(MODEL_EVENTS)
def test_calls_of_tools_arrive_as_they_were_written(events: list[Event]) -> None:
    """In OpenAI's encodings byte for byte, each under its own index."""
    asked: dict[str, str] = {}
    for event in events:
        if event.type == "tool-call":
            call = json.loads(event.data)
            asked[call["id"]] = asked.get(call["id"], "") + call["arguments"]
    whole, streamed, ids = Completion(), {}, {}
    framing = CompletionChunks()
    for part in kept(events):
        whole.add(part)
        for frame in framing.encode(part).split(b"\n\n"):
            for choice in json.loads(frame.removeprefix(b"data: "))["choices"] if frame else ():
                for call in choice["delta"].get("tool_calls", ()):
                    ids.setdefault(call["index"], call.get("id"))
                    streamed[ids[call["index"]]] = streamed.get(ids[call["index"]], "") + call["function"]["arguments"]
    calls = whole.whole()["choices"][0]["message"].get("tool_calls", [])
    assert streamed == asked
    assert {call["id"]: call["function"]["arguments"] for call in calls} == {k: v or "{}" for k, v in asked.items()}


def test_an_id_that_changes_within_a_call_is_none_of_another() -> None:
    """Some servers make one for each fragment; only the first of a call has a name."""
    fragments = [("a", "f", '{"x"'), ("b", "", ":1}")]
    calls = [
        json_event({"index": 0, "id": id, "name": name, "arguments": more}, "tool-call") for id, name, more in fragments
    ]
    (told,) = (part for part in kept(calls) if part.type == "tool-input-available")
    assert msgspec.json.decode(told.data)["input"] == {"x": 1}


@pytest.mark.parametrize("arguments", ["{", "[" * 100_000])
def test_arguments_that_are_no_json_stay_text(arguments: str) -> None:
    """A model may call a tool with anything: it is passed on as it came."""
    call = json_event({"index": 0, "id": "call_0", "name": "f", "arguments": arguments}, "tool-call")
    (told,) = (part for part in kept([call]) if part.type == "tool-input-available")
    assert msgspec.json.decode(told.data)["input"] == arguments


def test_a_cursor_is_in_every_frame_and_that_of_the_end_is_told() -> None:
    """``tag-number``, ``.end`` at the last: also where the end is an error, which the pump writes."""
    parts = [*Parts("m", "m", 1).begin(), json_event({"type": "error", "errorText": "No."}, "error")]
    framing = UIMessageStream("abcdef", 0)
    assert framing.encode(parts[0]).startswith(b"id: abcdef-1\ndata: {")
    assert framing.encode(parts[1]).startswith(b"id: abcdef-2\n")
    with pytest.raises(StreamFailed, match=r"No\."):
        framing.encode(parts[2])
    assert framing.error("No.").startswith(b"id: abcdef-3.end\ndata: ")


# The index


@pytest.fixture
def log() -> Iterator[MemoryLog]:
    log = MemoryLog()
    yield log
    log.dispose()


def test_of_two_claims_one_is_refused(log: MemoryLog) -> None:
    """Both read the same, and the second one finds the first when it looks again."""
    index, name = Index(log, 60), digest("chat", "c")
    assert index.find(name) is None
    assert index.claim(name, Entry("one", "a"), None)
    assert not index.claim(name, Entry("two", "a"), None)
    found = index.find(name)
    assert found == Entry("one", "a", 1)
    assert index.claim(name, Entry("three", "a"), found)
    assert not index.claim(name, Entry("four", "a"), found)
    assert index.find(name) == Entry("three", "a", 2)


def test_a_name_cannot_be_another() -> None:
    """Texts that are put together otherwise are other names."""
    names = [digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("a", "b", "c"), digest("1:a", "c")]
    assert len(set(names)) == len(names)


# Slots


def run(number: int) -> Create:
    return Create(f"{CHATS}{number}", Config("application/json"))


def test_slots_are_counted_over_all_workers_and_given_back(log: MemoryLog) -> None:
    """At the bound the next one is refused, whoever asks where; a block that fails gives its slot back."""
    here, there = (Slots(log, Lease(log), 3, 2) for _ in range(2))
    with here.holding(run(1), "a"), there.holding(run(2), "a"):
        with pytest.raises(TooManyRequests) as refused, here.holding(run(3), "a"):
            pass
        assert refused.value.headers["RateLimit"] == '"runs-per-caller";r=0;t=5'
        with (
            there.holding(run(4), "b"),
            pytest.raises(TooManyRequests, match="The server has"),
            here.holding(run(5), "b"),
        ):
            pass
        assert list(log.paths(CHATS)) == [run(number).path for number in (1, 2, 4)]
    assert list(log.paths(SLOTS)) == []
    with pytest.raises(ValueError, match="x"), here.holding(run(1), "a"):
        raise ValueError("x")
    assert list(log.paths(SLOTS)) == []


def test_slots_of_the_dead_are_given_back(log: MemoryLog) -> None:
    """With the end of their runs, by whoever renews its lease next."""
    now = [0.0]
    dead, living = Lease(log, lambda: now[0]), Lease(log, lambda: now[0])
    held = Slots(log, dead, 3, 2).holding(run(1), "a")
    held.__enter__()  # and never left
    living.renew()
    assert len(log.paths(SLOTS)) == 1
    while now[0] <= LEASE_S:
        now[0] += 1
        living.renew()
    assert list(log.paths(SLOTS)) == []


@pytest.mark.parametrize(("most", "each"), [(100, 10), (10, 100)])
def test_the_bound_is_met_exactly(log: MemoryLog, most: int, each: int) -> None:
    """What is counted only now and then is exact where it matters."""
    slots = Slots(log, Lease(log), most, each)
    held = []
    with pytest.raises(TooManyRequests):  # noqa: PT012 - it is some call of many that raises
        for number in itertools.count():
            holding = slots.holding(run(number), "a")
            holding.__enter__()
            held.append(holding)
    assert len(held) == 10
    for holding in held:
        holding.__exit__(None, None, None)


# The question


def question(**body: Any) -> messages.Question:
    return messages.read(json.dumps({"messages": [{"role": "user", "content": "Hi"}], **body}).encode(), 1000)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1001}, "max_tokens"),
        ({"max_completion_tokens": 1001}, "max_completion_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"tools": [{}] * 129}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"id": ""}, "id"),
        ({"id": "x" * 257}, "id"),
    ],
)
def test_a_parameter_out_of_its_bounds_is_named(body: dict[str, Any], parameter: str) -> None:
    """A 400, before the model is asked."""
    with pytest.raises(BadRequest) as caught:
        question(**body)
    assert caught.value.parameter == parameter


def test_parameters_are_passed_on_as_they_are() -> None:
    """At their bounds too; what is not the model's, and what is unknown, is left out."""
    asked = {"temperature": 2, "top_p": 0, "max_tokens": 1000, "stop": "x", "seed": -1, "tool_choice": "auto"}
    assert question(**asked, stream=True, n=1, unknown=1, user="u").parameters == asked


def test_images_are_passed_on() -> None:
    """A file part that is an image becomes OpenAI's image_url; other files are left out."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
        {"type": "file", "mediaType": "application/pdf", "url": "data:,"},
    ]
    body = {"messages": [{"role": "user", "parts": parts}]}
    (message,) = messages.read(json.dumps(body).encode()).messages
    assert message["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]


# The models


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"a":1}', '{"a":{"url":"x"}}'])
def test_models_that_cannot_be_read_stop_the_start(text: str) -> None:
    """With one sentence that names the setting."""
    with pytest.raises(SystemExit, match="CHAT_MODELS"):
        Models(Settings(CHAT_MODELS=text))


def test_the_default_is_named_or_the_first() -> None:
    """CHAT_MODEL where CHAT_MODELS has it; an unknown name is a 404."""
    assert Models(Settings(CHAT_MODELS='{"a":{},"b":{}}')).named("") == "a"
    models = Models(Settings(CHAT_MODELS='{"a":{},"b":{}}', CHAT_MODEL="b"))
    assert (models.named(""), models.named("a")) == ("b", "a")
    with pytest.raises(NotFound):
        models.named("c")


def test_a_run_begins_in_the_log_before_its_model_is_asked(client: Any, app: Any) -> None:
    """What it keeps is what its readers got, and nothing else; the log is closed at its end."""
    answer = client.post("/api/chat?protocol=ui", json={"messages": [{"role": "user", "content": "Hi"}]})
    frames = [line for line in answer.text.split("\n") if line.startswith("data: {")]
    log = app.extensions["log"]
    path = answer.headers["Location"].removeprefix("/v1/stream/")
    app.extensions["chats"].settle(answer.headers["X-Run-Id"])
    batch = log.read(path, START)
    assert batch.closed
    assert ["data: " + event.data.decode() for event in batch.events] == frames

"""What a model's server sends piece by piece, read as events: OpenAI's ``chat.completion.chunk`` and its dialects.

Rules:
- Only what is an event is decoded; fields that are unknown cost nothing.
- An error comes in many shapes, and each of them ends the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec

from llm import sse
from streaming.errors import StreamFailed
from streaming.events import Event, json_event

log = logging.getLogger("perennial.llm")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Citation(msgspec.Struct):
    url: str
    title: str | None = None


class _Annotation(msgspec.Struct):
    url_citation: _Citation | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None  # OpenAI's answer when it declines: to the reader a text like any other
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Ollama, newer vLLM
    tool_calls: list[_ToolCall] | None = None
    annotations: list[_Annotation] | None = None  # OpenAI's web search, OpenRouter


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    object: str | None = None
    citations: list[str | _Citation] | None = None  # Perplexity; what it found, or only where


decode = msgspec.json.Decoder(Chunk).decode


def read(message: sse.Message) -> Chunk:
    """Return what the message says. Raises StreamFailed for what is no chunk, and for an error."""
    try:
        chunk = decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StreamFailed("The model sent something that is no answer.") from error
    if chunk.error is not None or "error" in (chunk.object, message.event):
        log.warning("the model's server reported an error in its answer: %.300r", message.data)
        raise StreamFailed("The model reported an error in the middle of its answer.")
    return chunk


def events(chunk: Chunk) -> list[Event]:
    """Return the events of a chunk: see ``llm.openai``."""
    found: list[Event] = []
    for choice in chunk.choices or ():
        if (delta := choice.delta) is None:
            continue
        if thought := delta.reasoning_content or delta.reasoning:
            found.append(Event(thought.encode(), "reasoning"))
        if text := delta.content or delta.refusal:
            found.append(Event(text.encode(), "text"))
        if delta.tool_calls or delta.annotations:
            found += _others(delta)
    found += [_source(cited) for cited in chunk.citations or ()]
    return found


def _others(delta: _Delta) -> Iterator[Event]:
    for call in delta.tool_calls or ():
        yield json_event(_fragment(call), "tool-call")
    for annotation in delta.annotations or ():
        if cited := annotation.url_citation:
            yield _source(cited)


def _source(cited: str | _Citation) -> Event:
    if isinstance(cited, str):
        cited = _Citation(cited)
    return json_event({"url": cited.url, "title": cited.title or cited.url}, "source")


def _fragment(call: _ToolCall) -> dict[str, Any]:
    function = call.function or _Function()
    return {
        "index": call.index or 0,
        "id": call.id or "",
        "name": function.name or "",
        "arguments": function.arguments or "",
    }

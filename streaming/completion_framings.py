"""How OpenAI's chat completions are written: in chunks, and whole (API reference, "Chat", "Streaming").

They take what a run keeps of an answer (``chat_parts``).

Rules:
- No ``id:`` lines: with the heartbeat, a comment, they would make openai-python read an event without data.
- Usage comes in a chunk of its own without choices, and only to who asked for it (``stream_options``): readers that
  did not would take ``choices[0]`` of it.
- An answer that is not whole ends with an ``error`` object, which every OpenAI client raises, and without ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streaming.chat_framings import decode_delta, failed
from streaming.chat_parts import STOPPED
from streaming.errors import StreamFailed
from streaming.events import Event

_json = msgspec.json.encode

# The AI SDK's reasons in OpenAI's words.
_REASONS = {"content-filter": "content_filter", "tool-calls": "tool_calls", "unknown": "stop"}
_ERROR_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def error_body(sentence: str, status: int = 500, parameter: str = "") -> dict[str, Any]:
    """Return OpenAI's error object."""
    type = _ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    code = {404: "not_found", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": sentence, "type": type, "param": parameter or None, "code": code}}


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a usage in OpenAI's words."""
    told: dict[str, Any] = {
        "prompt_tokens": usage["inputTokens"],
        "completion_tokens": usage["outputTokens"],
        "total_tokens": usage["totalTokens"],
    }
    if "reasoningTokens" in usage:
        told["completion_tokens_details"] = {"reasoning_tokens": usage["reasoningTokens"]}
    if "cachedInputTokens" in usage:
        told["prompt_tokens_details"] = {"cached_tokens": usage["cachedInputTokens"]}
    if usage.get("estimated"):
        told["estimated"] = True
    return told


def _annotation(part: Mapping[str, Any]) -> dict[str, Any]:
    citation = {"url": part["url"], "title": part.get("title", part["url"]), "start_index": 0, "end_index": 0}
    return {"type": "url_citation", "url_citation": citation}


class CompletionChunks:
    """``chat.completion.chunk``; ``with_usage``: the caller has asked for the chunk with the usage."""

    content_type = "text/event-stream"
    headers: Mapping[str, str] = {}
    drain = None

    def __init__(self, with_usage: bool = False) -> None:
        self._with_usage = with_usage
        self._head: dict[str, Any] = {}
        self._before = self._after = b""
        self._calls: dict[str, int] = {}
        self._usage: dict[str, Any] | None = None

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        if event.type == "text-delta":
            return self._before + b'"content":' + _json(decode_delta(event.data).delta) + self._after
        if event.type == "error":
            raise failed(event)
        if event.type == "abort":
            raise StreamFailed(STOPPED)
        part = msgspec.json.decode(event.data)
        if event.type == "start":
            return self._start(part)
        if event.type == "finish":
            return self._finish(part["messageMetadata"])
        delta = self._delta(event.type, part)
        return b"" if delta is None else self._chunk(delta)

    def idle(self) -> bytes:
        return b": ping\n\n"

    def error(self, message: str) -> bytes:
        return b"data: " + _json(error_body(message)) + b"\n\n"

    def close(self) -> bytes:
        return b"data: [DONE]\n\n"

    def _start(self, part: dict[str, Any]) -> bytes:
        self._head = _head(part, "chat.completion.chunk")
        # Around the one thing that differs from token to token.
        before, _, after = self._chunk({"content": 0}).partition(b'"content":0')
        self._before, self._after = before, after
        return self._chunk({"role": "assistant", "content": ""})

    def _delta(self, type: str, part: dict[str, Any]) -> dict[str, Any] | None:
        if type == "reasoning-delta":
            return {"reasoning_content": part["delta"]}
        if type == "source-url":
            return {"annotations": [_annotation(part)]}
        if type == "tool-input-start":
            index = self._calls.setdefault(part["toolCallId"], len(self._calls))
            function = {"name": part["toolName"], "arguments": ""}
            return {
                "tool_calls": [{"index": index, "id": part["toolCallId"], "type": "function", "function": function}]
            }
        if type == "tool-input-delta":
            index = self._calls.get(part["toolCallId"], 0)
            return {"tool_calls": [{"index": index, "function": {"arguments": part["inputTextDelta"]}}]}
        return None

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        more = {"usage": None} if self._with_usage else {}
        return b"data: " + _json({**self._head, "choices": [choice], **more}) + b"\n\n"

    def _finish(self, metadata: dict[str, Any]) -> bytes:
        reason = metadata["finishReason"]
        end = self._chunk({}, _REASONS.get(reason, reason))
        if not self._with_usage:
            return end
        return end + b"data: " + _json({**self._head, "choices": [], "usage": usage_of(metadata["usage"])}) + b"\n\n"


class Completion:
    """``chat.completion``: the whole of an answer, once its parts have been added.

    ``add`` raises StreamFailed for an answer that failed or was stopped.
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {"text-delta": [], "reasoning-delta": []}
        self._calls: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._end: dict[str, Any] = {}
        self._arguments: dict[str, list[str]] = {}

    def add(self, event: Event) -> None:
        if event.type == "error":
            raise failed(event)
        if event.type == "abort":
            raise StreamFailed(STOPPED)
        part = msgspec.json.decode(event.data)
        if event.type == "start":
            self._head = _head(part, "chat.completion")
        elif event.type in self._texts:
            self._texts[event.type].append(part["delta"])
        elif event.type == "source-url":
            self._annotations.append(_annotation(part))
        elif event.type == "tool-input-delta":
            self._arguments.setdefault(part["toolCallId"], []).append(part["inputTextDelta"])
        elif event.type == "tool-input-available":
            # As the model wrote them: what was decoded and encoded again would be other bytes.
            written = "".join(self._arguments.get(part["toolCallId"], ["{}"]))
            function = {"name": part["toolName"], "arguments": written}
            self._calls.append({"id": part["toolCallId"], "type": "function", "function": function})
        elif event.type == "finish":
            self._end = part["messageMetadata"]

    def whole(self) -> dict[str, Any]:
        """Return the completion as OpenAI's object."""
        text, thought = ("".join(texts) for texts in self._texts.values())
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not self._calls else None}
        if thought:
            message["reasoning_content"] = thought
        if self._calls:
            message["tool_calls"] = self._calls
        if self._annotations:
            message["annotations"] = self._annotations
        reason = self._end["finishReason"]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _REASONS.get(reason, reason)}
        return {**self._head, "choices": [choice], "usage": usage_of(self._end["usage"])}


def _head(start: dict[str, Any], object: str) -> dict[str, Any]:
    about = start["messageMetadata"]
    id = start["messageId"].removeprefix("msg-")
    return {"id": f"chatcmpl-{id}", "object": object, "created": about["createdAt"], "model": about["model"]}

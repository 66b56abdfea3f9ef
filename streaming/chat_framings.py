"""How an answer of a model is written: text, the AI SDK's data stream (v4) and its UI message stream (v5 and later).

They take the events of ``llm.openai.complete``: ``text`` and ``reasoning`` (UTF-8 pieces) and, once and last,
``finish`` ({"finish_reason": …, "usage": {…} | null}, OpenAI's words). Other types are left out.

Rules:
- As in ``framings``: bytes in, bytes out, one instance for one response.
- useChat takes an end without an error part for success, so nothing here can be drained.
- ``message_id`` names the answer: a replay of the same answer must carry the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streaming.events import Event

_json = msgspec.json.encode

# OpenAI's reasons in the AI SDK's words; what is not here is "unknown".
FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}


class ChatText:
    """The answer's text and nothing else. It cannot tell a failure, so a failure cuts."""

    content_type = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}
    error = None
    drain = None

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        return event.data if event.type == "text" else b""

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class DataStream:
    """The data stream protocol, version 1 (``ai`` 4, ``@ai-sdk/ui-utils`` data-stream-parts.ts): ``code:json\\n``.

    Its reader splits at LF, skips empty lines (the heartbeat) and throws on everything else that is no part.
    """

    content_type = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {"x-vercel-ai-data-stream": "v1"}
    drain = None

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id

    def open(self) -> bytes:
        return _part(b"f", {"messageId": self._message_id})

    def encode(self, event: Event) -> bytes:
        if event.type == "text":
            return _part(b"0", event.data.decode())
        if event.type == "reasoning":
            return _part(b"g", event.data.decode())
        return self._finish(event) if event.type == "finish" else b""

    def idle(self) -> bytes:
        return b"\n"

    def error(self, message: str) -> bytes:
        return _part(b"3", message)

    def close(self) -> bytes:
        return b""

    def _finish(self, event: Event) -> bytes:
        reason, tokens = _outcome(event)
        end: dict[str, Any] = {"finishReason": reason}
        if tokens is not None:
            end["usage"] = {"promptTokens": tokens[0], "completionTokens": tokens[1]}
        return _part(b"e", {**end, "isContinued": False}) + _part(b"d", end)


class UIMessageStream:
    """The UI message stream, version 1 (``ai`` 5 and later, ui-message-chunks.ts): server-sent events of JSON parts.

    ``ai`` before 5.0.92 throws on every key that it does not know, ``finish.finishReason`` among them: the reason and
    the usage go into ``messageMetadata``, which is free.
    """

    content_type = "text/event-stream"
    headers: Mapping[str, str] = {"x-vercel-ai-ui-message-stream": "v1"}
    drain = None

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._open_part = ""  # "text" or "reasoning" while such a part is open
        self._parts = 0

    def open(self) -> bytes:
        return _frame({"type": "start", "messageId": self._message_id}) + _frame({"type": "start-step"})

    def encode(self, event: Event) -> bytes:
        if event.type in ("text", "reasoning"):
            start = b"" if event.type == self._open_part else self._end_part() + self._start_part(event.type)
            delta = {"type": f"{event.type}-delta", "id": str(self._parts), "delta": event.data.decode()}
            return start + _frame(delta)
        return self._finish(event) if event.type == "finish" else b""

    def idle(self) -> bytes:
        return b":\n\n"

    def error(self, message: str) -> bytes:
        return _frame({"type": "error", "errorText": message})

    def close(self) -> bytes:
        return b"data: [DONE]\n\n"

    def _start_part(self, kind: str) -> bytes:
        self._open_part = kind
        self._parts += 1
        return _frame({"type": f"{kind}-start", "id": str(self._parts)})

    def _end_part(self) -> bytes:
        kind, self._open_part = self._open_part, ""
        return _frame({"type": f"{kind}-end", "id": str(self._parts)}) if kind else b""

    def _finish(self, event: Event) -> bytes:
        reason, tokens = _outcome(event)
        metadata: dict[str, Any] = {"finishReason": reason}
        if tokens is not None:
            metadata["usage"] = {"inputTokens": tokens[0], "outputTokens": tokens[1], "totalTokens": sum(tokens)}
        end = _frame({"type": "finish-step"}) + _frame({"type": "finish", "messageMetadata": metadata})
        return self._end_part() + end


def _outcome(event: Event) -> tuple[str, tuple[int, int] | None]:
    """Return the finish reason in the AI SDK's words, and the tokens in and out where they are known."""
    finish = msgspec.json.decode(event.data)
    reason = FINISH_REASONS.get(finish["finish_reason"], "unknown")
    match finish["usage"]:
        case {"prompt_tokens": int(tokens_in), "completion_tokens": int(tokens_out)}:
            return reason, (tokens_in, tokens_out)
    return reason, None


def _part(code: bytes, value: Any) -> bytes:
    return code + b":" + _json(value) + b"\n"


def _frame(part: dict[str, Any]) -> bytes:
    return b"data: " + _json(part) + b"\n\n"

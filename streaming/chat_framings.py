"""How an answer of a model is written: text, the AI SDK's data stream (v4) and its UI message stream (v5 and later).

They take what a run keeps of it (``chat_parts``); OpenAI's own encoding is in ``completion_framings``.

Rules:
- As in ``framings``: bytes in, bytes out, one instance for one response.
- An answer that failed raises StreamFailed when its ``error`` part is to be written: the pump tells it, or cuts.
- useChat takes an end without an error part for success, so nothing here can be drained.
- Where the wire has ids, an event's is its cursor: the run's tag and the event's number in the run, from which a
  reader continues; that of the end is told from all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streaming.chat_parts import STOPPED, TERMINAL
from streaming.errors import StreamFailed
from streaming.events import Event

_json = msgspec.json.encode

# What the cursor after an answer's end ends with.
END = ".end"


class Delta(msgspec.Struct):
    """What framings read of a part with a piece of text."""

    delta: str


class Failure(msgspec.Struct):
    errorText: str


decode_delta = msgspec.json.Decoder(Delta).decode
_decode_failure = msgspec.json.Decoder(Failure).decode


def failed(event: Event) -> StreamFailed:
    """Return what an ``error`` part says, to be raised."""
    return StreamFailed(_decode_failure(event.data).errorText)


class ChatText:
    """The answer's text and nothing else. It cannot tell that it is not whole: a failure cuts, and so does a stop."""

    content_type = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}
    error = None
    drain = None

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        if event.type == "text-delta":
            return decode_delta(event.data).delta.encode()
        if event.type == "error":
            raise failed(event)
        if event.type == "abort":
            raise StreamFailed(STOPPED)
        return b""

    def idle(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class DataStream:
    """The data stream protocol, version 1 (``ai`` 4, ``@ai-sdk/ui-utils`` data-stream-parts.ts): ``code:json\\n``.

    Its reader splits at LF, skips empty lines (the heartbeat) and throws on everything else that is no part. It knows
    no stop: an answer that was stopped finishes for the reason "other".
    """

    content_type = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {"x-vercel-ai-data-stream": "v1"}
    drain = None

    def __init__(self) -> None:
        self._usage: dict[str, Any] | None = None
        self._parts: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
            "start": lambda part: _part(b"f", {"messageId": part["messageId"]}),
            "tool-input-start": lambda part: _part(b"b", _only(part, "toolCallId", "toolName")),
            "tool-input-delta": lambda part: _part(
                b"c", {"toolCallId": part["toolCallId"], "argsTextDelta": part["inputTextDelta"]}
            ),
            "tool-input-available": lambda part: _part(
                b"9", {**_only(part, "toolCallId", "toolName"), "args": _arguments(part["input"])}
            ),
            "source-url": lambda part: _part(
                b"h", {"sourceType": "url", "id": part["sourceId"], **_only(part, "url", "title")}
            ),
            "message-metadata": self._told,
            "finish": lambda part: self._finish(part["messageMetadata"]["finishReason"], part),
            "abort": lambda _: self._finish("other", {}),
        }

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        if event.type == "text-delta":
            return b"0:" + _json(decode_delta(event.data).delta) + b"\n"
        if event.type == "reasoning-delta":
            return b"g:" + _json(decode_delta(event.data).delta) + b"\n"
        if event.type == "error":
            raise failed(event)
        write = self._parts.get(event.type)
        return write(msgspec.json.decode(event.data)) if write else b""

    def idle(self) -> bytes:
        return b"\n"

    def error(self, message: str) -> bytes:
        return _part(b"3", message)

    def close(self) -> bytes:
        return b""

    def _told(self, part: dict[str, Any]) -> bytes:
        self._usage = part["messageMetadata"].get("usage", self._usage)
        return b""

    def _finish(self, reason: str, part: dict[str, Any]) -> bytes:
        usage = part.get("messageMetadata", {}).get("usage", self._usage)
        end: dict[str, Any] = {"finishReason": reason}
        if usage is not None:
            end["usage"] = {"promptTokens": usage["inputTokens"], "completionTokens": usage["outputTokens"]}
        return _part(b"e", {**end, "isContinued": False}) + _part(b"d", end)


class UIMessageStream:
    """The UI message stream, version 1 (``ai`` 5 and later, ui-message-chunks.ts): server-sent events of the parts.

    ``tag``: the run's; without one there are no ids. ``number``: of the last event that the reader has.
    """

    content_type = "text/event-stream"
    headers: Mapping[str, str] = {"x-vercel-ai-ui-message-stream": "v1"}
    drain = None

    def __init__(self, tag: str = "", number: int = 0) -> None:
        self._id = b"id: %b-%%d\ndata: " % tag.encode() if tag else b"data: "
        self._end = b"id: %b-%%d%b\ndata: " % (tag.encode(), END.encode()) if tag else b"data: "
        self._numbered = bool(tag)
        self._number = number
        self._failed_at = b"data: "

    def open(self) -> bytes:
        return b""

    def encode(self, event: Event) -> bytes:
        head = self._end if event.type in TERMINAL else self._id
        if self._numbered:
            self._number += 1
            head %= self._number
        if event.type == "error":
            self._failed_at = head
            raise failed(event)
        return head + event.data + b"\n\n"

    def idle(self) -> bytes:
        return b":\n\n"

    def error(self, message: str) -> bytes:
        # With the answer's own end as id an EventSource does not come back for it; any other failure has no id.
        return self._failed_at + _json({"type": "error", "errorText": message}) + b"\n\n"

    def close(self) -> bytes:
        return b"data: [DONE]\n\n"


def _part(code: bytes, value: Any) -> bytes:
    return code + b":" + _json(value) + b"\n"


def _only(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: part[name] for name in names if name in part}


def _arguments(value: Any) -> Any:
    """The data stream's reader takes nothing but an object."""
    return value if isinstance(value, dict) else {"input": value}

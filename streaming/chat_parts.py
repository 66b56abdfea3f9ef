"""What a run of chat keeps of an answer: the parts of the AI SDK's UI message stream, each an event of JSON.

The log of a run holds these and nothing else, so it can be read as it is (``/v1/stream/chats/…``), and every encoding
is made of it. A model's events (``llm.openai``) go in:

    text, reasoning   a piece, UTF-8
    tool-call         {"index": 0, "id": "call_1", "name": "f", "arguments": "{\\""}, in fragments
    source            {"url": …, "title": …}
    retry             {"retries": 1}: the model is asked once more
    finish            {"finish_reason": "stop", "usage": {…} | null}, OpenAI's words; once, last

Rules:
- Pure: events in, events out. An event's type is its part's.
- A run ends with exactly one of ``TERMINAL``; what it used is in ``messageMetadata``, before it or in it.
- Only parts and keys that ``ai`` 5.0.0 knows: it throws on all others. ``messageMetadata`` is free, so what has no
  place of its own is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streaming.events import Event, json_event

_json = msgspec.json.encode

TERMINAL = frozenset(("finish", "error", "abort"))
# What comes before a model has said anything.
PRELIMINARY = frozenset(("start", "start-step", "message-metadata"))
INTERRUPTED = "This answer was interrupted: the server that made it has gone."
STOOD_STILL = "This answer was interrupted: the server that made it stood still for a while."
NOT_KEPT = "The rest of this answer could not be kept: the server's log took no more of it."
STOPPED = "This answer was stopped."

# OpenAI's reasons in the AI SDK's words; what is not here is "unknown".
FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}


def failure(sentence: str) -> Event:
    """Return the part that says that an answer is not whole."""
    return json_event({"type": "error", "errorText": sentence}, "error")


def join(came: list[Event], event: Event) -> None:
    """Add a model's event; a piece of text after a piece of its kind becomes one with it."""
    if came and event.type in ("text", "reasoning") and came[-1].type == event.type:
        came[-1] = Event(came[-1].data + event.data, event.type)
    else:
        came.append(event)


def estimated_tokens(size: int) -> int:
    """Return about how many tokens ``size`` bytes of UTF-8 are: four each in English, and in Chinese one a sign."""
    return (size + 3) // 4


@dataclass(slots=True)
class Call:
    """A tool call whose fragments have come so far."""

    id: str
    name: str
    arguments: str = ""

    @property
    def input(self) -> Any:
        try:
            return msgspec.json.decode(self.arguments or "{}")
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self.arguments

    @property
    def is_whole(self) -> bool:
        return self.arguments != "" and isinstance(self.input, dict)


@dataclass(slots=True)
class Parts:
    """The parts of one answer. ``prompt_bytes``: how large the question was, for a usage that nobody tells."""

    message_id: str
    model: str
    created_s: int
    prompt_bytes: int = 0
    size: int = 0
    usage: dict[str, Any] | None = None
    reason: str = ""
    retries: int = 0
    _kind: str = ""  # "text" or "reasoning" while such a part is open
    _count: int = 0
    _head: bytes = b""
    _calls: list[Call] = field(default_factory=list)
    _last_at: dict[int, Call] = field(default_factory=dict)
    _sources: set[str] = field(default_factory=set)

    def begin(self) -> list[Event]:
        about = {"model": self.model, "createdAt": self.created_s}
        start = {"type": "start", "messageId": self.message_id, "messageMetadata": about}
        return [json_event(start, "start"), json_event({"type": "start-step"}, "start-step")]

    def add(self, event: Event) -> list[Event]:
        """Return the parts that a model's event is."""
        kind = event.type
        if kind in ("text", "reasoning"):
            return self._piece(kind, event.data)
        if kind == "finish":
            return self._finish(msgspec.json.decode(event.data))
        return self._other(kind, msgspec.json.decode(event.data))

    def abort(self) -> list[Event]:
        """End it because nobody wants more: what came is kept, and what it cost is estimated."""
        return [self._told({"stopped": True}), json_event({"type": "abort"}, "abort")]

    def fail(self, sentence: str, about: Mapping[str, Any]) -> list[Event]:
        """End it because it failed; ``about``: what else a client should know (``status``, ``retryAfter``)."""
        return [self._told(about), failure(sentence)]

    def _told(self, about: Mapping[str, Any]) -> Event:
        metadata = {**about, "usage": self._estimated()}
        return json_event({"type": "message-metadata", "messageMetadata": metadata}, "message-metadata")

    def _piece(self, kind: str, data: bytes) -> list[Event]:
        self.size += len(data)
        opened = self._open(kind) if kind != self._kind else []
        opened.append(Event(self._head + _json(data.decode()) + b"}", f"{kind}-delta"))
        return opened

    def _open(self, kind: str) -> list[Event]:
        events = self._end()
        self._kind = kind
        self._count += 1
        self._head = b'{"type":"%b-delta","id":"%d","delta":' % (kind.encode(), self._count)
        return [*events, json_event({"type": f"{kind}-start", "id": str(self._count)}, f"{kind}-start")]

    def _end(self) -> list[Event]:
        kind, self._kind = self._kind, ""
        return [json_event({"type": f"{kind}-end", "id": str(self._count)}, f"{kind}-end")] if kind else []

    def _other(self, kind: str, value: dict[str, Any]) -> list[Event]:
        if kind == "tool-call":
            return self._call(value)
        if kind == "source" and value["url"] not in self._sources:
            self._sources.add(value["url"])
            part = {"type": "source-url", "sourceId": f"source-{len(self._sources)}", **value}
            return [json_event(part, "source-url")]
        if kind == "retry":
            self.retries = value["retries"]
            return [json_event({"type": "message-metadata", "messageMetadata": value}, "message-metadata")]
        return []

    def _call(self, fragment: dict[str, Any]) -> list[Event]:
        events, index, more = [], fragment["index"], fragment["arguments"]
        call = self._last_at.get(index)
        if call is None or _is_another(fragment, call):
            call = self._last_at[index] = Call(fragment["id"] or f"call-{len(self._calls)}", fragment["name"])
            self._calls.append(call)
            events = self._end()
            start = {"type": "tool-input-start", "toolCallId": call.id, "toolName": call.name}
            events.append(json_event(start, "tool-input-start"))
        if more:
            self.size += len(more)
            call.arguments += more
            delta = {"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": more}
            events.append(json_event(delta, "tool-input-delta"))
        return events

    def _finish(self, finish: dict[str, Any]) -> list[Event]:
        self.reason = FINISH_REASONS.get(finish["finish_reason"], "unknown")
        self.usage = _usage(finish["usage"])
        events = self._end()
        for call in self._calls:
            part = {"type": "tool-input-available", "toolCallId": call.id, "toolName": call.name, "input": call.input}
            events.append(json_event(part, "tool-input-available"))
        metadata = {"finishReason": self.reason, "usage": self._estimated()}
        finished = {"type": "finish", "messageMetadata": metadata}
        return [*events, json_event({"type": "finish-step"}, "finish-step"), json_event(finished, "finish")]

    def _estimated(self) -> dict[str, Any]:
        """The usage that the model told, or else an estimate, which is marked as one."""
        if self.usage is None:
            tokens = estimated_tokens(self.prompt_bytes), estimated_tokens(self.size)
            names = ("inputTokens", "outputTokens", "totalTokens")
            self.usage = {**dict(zip(names, (*tokens, sum(tokens)), strict=True)), "estimated": True}
        return self.usage


def _is_another(fragment: Mapping[str, Any], call: Call) -> bool:
    """Whether it begins a call of its own under the index of ``call``: Gemini gives none, Ollama gave 0 to all.

    Not by its id alone: some servers make a new one for each fragment, and only a call's first has a name.
    """
    if not fragment["name"]:
        return False
    return fragment["id"] != call.id if fragment["id"] else bool(fragment["arguments"]) and call.is_whole


def _usage(usage: Any) -> dict[str, Any] | None:
    """Return OpenAI's usage in the AI SDK's words; None where it does not say both sides."""
    match usage:
        case {"prompt_tokens": int(tokens_in), "completion_tokens": int(tokens_out)}:
            told = {"inputTokens": tokens_in, "outputTokens": tokens_out, "totalTokens": tokens_in + tokens_out}
        case _:
            return None
    match usage:
        case {"completion_tokens_details": {"reasoning_tokens": int(count)}}:
            told["reasoningTokens"] = count
    match usage:
        case {"prompt_tokens_details": {"cached_tokens": int(count)}}:
            told["cachedInputTokens"] = count
    return told

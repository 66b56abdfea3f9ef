"""A model that needs neither a key nor a network, behind the real client: an in-process transport of httpx2.

Rules:
- It speaks the OpenAI protocol as a server would: status, content type, chunks, usage, finish_reason, [DONE].
- It says in its first words that it is offline and how to reach a real model; what follows is about the last
  message, and true.
- One word at a time. ``close`` ends it where it stands.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import httpx2
import msgspec

WORD_S = 0.015
ECHO_CHARS = 2000

HELLO = (
    "I am the offline model: this server has no OPENAI_API_KEY, and no OPENAI_BASE_URL of a local model either. "
    "Set one of them, and CHAT_MODEL, to talk to a real model. Until then I can only count. "
)


class OfflineTransport(httpx2.BaseTransport):
    """Answers ``POST …/chat/completions`` with a stream, one word each ``word_s`` seconds; all else is a 404."""

    def __init__(self, word_s: float = WORD_S) -> None:
        self._word_s = word_s

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST" or not request.url.path.endswith("/chat/completions"):
            return httpx2.Response(404, json={"error": {"message": "The offline model knows /chat/completions only."}})
        asked = msgspec.json.decode(request.read())
        if not asked.get("stream"):
            return httpx2.Response(
                400, json={"error": {"message": "The offline model only streams.", "param": "stream"}}
            )
        stream = _Stream(_body(asked, self._word_s))
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=stream)


class _Stream(httpx2.SyncByteStream):
    def __init__(self, body: Generator[bytes]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return self._body

    def close(self) -> None:
        self._body.close()


def answer(messages: list[Mapping[str, Any]]) -> str:
    """Return what the offline model says to ``messages`` (OpenAI's shape)."""
    text = _text(messages[-1].get("content")) if messages else ""
    words = re.findall(r"\w+", text)
    longest = max(words, key=len, default="")
    about = f"The last of your {len(messages)} messages has {len(words)} words and {len(text)} characters"
    about += f"; its longest word is “{longest}”. " if longest else ". "
    shown = text if len(text) <= ECHO_CHARS else text[:ECHO_CHARS] + "…"
    return HELLO + about + f"It reads: {shown}"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if isinstance(part.get("text"), str))


def _body(asked: Mapping[str, Any], word_s: float) -> Generator[bytes]:
    head = {"id": "chatcmpl-offline", "object": "chat.completion.chunk", "created": int(time.time())}
    head["model"] = asked.get("model", "")

    def chunk(delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + msgspec.json.encode({**head, "choices": [choice]}) + b"\n\n"

    yield chunk({"role": "assistant", "content": ""})
    words = re.findall(r"\s*\S+|\s+$", answer(asked["messages"]))
    for word in words:
        yield chunk({"content": word})
        time.sleep(word_s)
    yield chunk({}, "stop")
    if (asked.get("stream_options") or {}).get("include_usage"):
        prompt = sum(len(_text(message.get("content")).split()) for message in asked["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        yield b"data: " + msgspec.json.encode({**head, "choices": [], "usage": usage}) + b"\n\n"
    yield b"data: [DONE]\n\n"

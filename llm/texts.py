"""What of a model's answer is text and nothing else: nearly all of it, and no decision is taken from it.

Rules:
- Where anything else is with it, or it cannot be read, it is no text: then ``llm.chunks`` says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from llm import chunks, sse
from streaming.events import Event

Take = Callable[[bytes], bool]


def taker(decoder: sse.Decoder, take: Callable[[Event], bool], renew: Callable[[], None]) -> Take:
    """Return what takes a piece of an answer of which ``decoder`` has had the beginning, by ``take``, if it is text.

    It calls ``renew`` when it has.
    """

    def take_text(piece: bytes) -> bool:
        messages = decoder.plain(piece)
        if messages is None or not (found := text(messages)) or not take(Event(found.encode(), "text")):
            return False
        renew()
        return True

    return take_text


def text(messages: Sequence[sse.Message]) -> str:
    """Return the text of messages that are pieces of text and nothing else, "" where one of them is not."""
    pieces = []
    for message in messages:
        try:
            chunk = chunks.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        if message.event or not (piece := _only_text(chunk)):
            return ""
        pieces.append(piece)
    return "".join(pieces)


def _only_text(chunk: chunks.Chunk) -> str | None:
    """The text of a chunk that has one choice, with text, and nothing else that counts."""
    choices = chunk.choices
    if choices is None or len(choices) != 1 or chunk.error is not None or chunk.object == "error":
        return None
    delta = choices[0].delta
    if delta is None or choices[0].finish_reason or chunk.usage or chunk.citations:
        return None
    if delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.annotations:
        return None
    return delta.content

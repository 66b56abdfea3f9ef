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
        found = decoder.plain(piece)
        if found is None or not (said := text(found)) or not take(Event(said.encode(), "text")):
            return False
        renew()
        return True

    return take_text


def text(found: Sequence[bytes]) -> str:
    """Return the text of messages whose data are pieces of text and nothing else, "" where one of them is not."""
    try:
        pieces = [_only_text(chunks.decode(data)) for data in found]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return "".join(pieces) if all(pieces) else ""


def _only_text(chunk: chunks.Chunk) -> str:
    """The text of a chunk that has one choice, with text, and nothing else that counts; else ""."""
    choices = chunk.choices
    if choices is None or len(choices) != 1 or chunk.error is not None or chunk.object == "error":
        return ""
    choice = choices[0]
    delta = choice.delta
    if delta is None or choice.finish_reason or chunk.usage or chunk.citations:
        return ""
    if delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.annotations:
        return ""
    return delta.content or ""

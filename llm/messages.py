"""What a chat client posts, read as messages for the model.

Three clients send three shapes to one route: ``content`` (OpenAI's own, and what people write by hand), ``parts``
(the AI SDK 4, which sends both) and ``parts`` with ``trigger`` (the AI SDK 5 and later).

Rules:
- Of ``parts`` the texts are taken, and the rest is left out: files, tools, steps, sources, reasoning.
- What cannot be is a BadRequest that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from streaming.errors import BadRequest

LIMIT_BYTES = 2**20
LIMIT_MESSAGES = 1000

Shape = Literal["content", "parts", "trigger"]


class _Message(msgspec.Struct, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    parts: list[dict[str, Any]] | None = None


class _Body(msgspec.Struct):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=LIMIT_MESSAGES)]
    trigger: Any = None


@dataclass(frozen=True, slots=True)
class Question:
    """``messages``: in OpenAI's shape. ``shape``: which client's body it was."""

    messages: Sequence[dict[str, Any]]
    shape: Shape


_decode = msgspec.json.Decoder(_Body).decode


def read(body: bytes) -> Question:
    """Return what ``body`` asks. Raises BadRequest."""
    try:
        asked = _decode(body)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not JSON: {str(error).removeprefix('JSON is malformed: ')}.") from None
    messages = [message for number, each in enumerate(asked.messages) if (message := _message(each, number))]
    if not messages:
        raise BadRequest("messages hold no text.", parameter="messages")
    parts = any(each.parts is not None for each in asked.messages)
    return Question(messages, "trigger" if asked.trigger is not None else "parts" if parts else "content")


def _message(message: _Message, number: int) -> dict[str, Any] | None:
    """Return one message in OpenAI's shape, None when its parts hold no text and it has no content."""
    if message.parts is not None:
        texts = [part["text"] for part in message.parts if part.get("type") == "text" and _is_text(part.get("text"))]
        content = "\n".join(texts) or message.content
        return {"role": message.role, "content": content} if content else None
    if message.content is None and message.tool_calls is None:
        field = f"messages[{number}].content"
        raise BadRequest(f"{field} is missing.", parameter=field)
    return {"content": None, **msgspec.to_builtins(message)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _wrong_field(sentence: str) -> BadRequest:
    """Turn msgspec's "Expected `str`, got `int` - at `$.messages[0].role`" into a sentence about the field."""
    reason, _, path = sentence.replace("`", "").partition(" - at ")
    field = path.removeprefix("$").removeprefix(".")
    if missing := re.search(r"missing required field (\w+)$", reason):
        field = f"{field}.{missing[1]}".removeprefix(".")
        return BadRequest(f"{field} is missing.", parameter=field)
    return BadRequest(f"{field or 'The body'} is wrong: {reason[:1].lower()}{reason[1:]}.", parameter=field)

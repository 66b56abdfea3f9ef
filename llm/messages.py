"""What a chat client posts, read as a question to a model.

Three clients send three shapes to one route: ``content`` (OpenAI's own, and what people write by hand), ``parts``
(the AI SDK 4, which sends both) and ``parts`` with ``trigger`` (the AI SDK 5 and later).

Rules:
- Of ``parts`` the texts, the images and the calls of tools with their results are taken, and the rest is left out.
- What cannot be is a BadRequest that names the field; so is a parameter out of its bounds. Fields that are unknown are
  left out: each client has some of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from streaming.errors import BadRequest

LIMIT_BYTES = 2**20
LIMIT_MESSAGES = 1000
_ID_CHARS = 256

Shape = Literal["content", "parts", "trigger"]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_ID_CHARS)]


class _Message(msgspec.Struct, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    parts: list[dict[str, Any]] | None = None
    id: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Parameters(msgspec.Struct, omit_defaults=True):
    """What a caller may ask of the model itself, with its bounds; passed on as it is."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    tools: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None


class _Body(Parameters):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=LIMIT_MESSAGES)] = msgspec.field(
        default_factory=list
    )
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    id: _Name | None = None
    trigger: Any = None
    messageId: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """``messages``: in OpenAI's shape. ``shape``: which client's body it was.

    ``chat``: the id of the chat, "" if it has none; ``last_id``: of its last message; ``trigger`` and ``message_id``:
    as the AI SDK sends them. ``continues``: the id of the answer that this one goes on with, after the call of a tool.
    ``parameters``: of the request to the model; ``size``: the bytes of what it reads.
    """

    messages: Sequence[dict[str, Any]]
    shape: Shape
    model: str = ""
    chat: str = ""
    last_id: str = ""
    trigger: str = ""
    message_id: str = ""
    continues: str = ""
    stream: bool = False
    with_usage: bool = False
    size: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)


_decode = msgspec.json.Decoder(_Body).decode


def read(body: bytes, most_tokens: int = 2**31) -> Question:
    """Return what ``body`` asks; ``most_tokens``: the most that a caller may ask for. Raises BadRequest."""
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
    if not asked.messages:
        raise BadRequest("messages is missing.", parameter="messages")
    messages = [message for number, each in enumerate(asked.messages) for message in _messages(each, number)]
    if not messages:
        raise BadRequest("messages hold no text.", parameter="messages")
    last = asked.messages[-1]
    return Question(
        messages,
        _shape(asked),
        asked.model or "",
        asked.id or "",
        last.id or "",
        asked.trigger if isinstance(asked.trigger, str) else "",
        asked.messageId or "",
        (last.id or "") if last.role == "assistant" and last.parts is not None else "",
        bool(asked.stream),
        bool(asked.stream_options and asked.stream_options.include_usage),
        len(msgspec.json.encode(messages)),
        _parameters(asked, most_tokens),
    )


def _shape(asked: _Body) -> Shape:
    if asked.trigger is not None:
        return "trigger"
    return "parts" if any(each.parts is not None for each in asked.messages) else "content"


def _parameters(asked: _Body, most_tokens: int) -> dict[str, Any]:
    """Return what is passed on. Raises BadRequest for what is out of bounds, or would change what an answer is."""
    if asked.n not in (None, 1):
        raise BadRequest("n must be 1: a run is one answer.", parameter="n")
    if asked.logprobs:
        raise BadRequest("logprobs are not passed on.", parameter="logprobs")
    for name in ("max_tokens", "max_completion_tokens"):
        if (getattr(asked, name) or 0) > most_tokens:
            raise BadRequest(f"{name} must be at most {most_tokens}.", parameter=name)
    names = Parameters.__struct_fields__
    return {name: value for name in names if (value := getattr(asked, name)) is not None}


def _messages(message: _Message, number: int) -> Iterator[dict[str, Any]]:
    """Yield one message in OpenAI's shape; none when its parts hold nothing and it has no content; with the calls of
    tools in it, several."""
    if message.parts is not None:
        yield from _of_parts(message, message.parts)
        return
    if message.content is None and message.tool_calls is None:
        name = f"messages[{number}].content"
        raise BadRequest(f"{name} is missing.", parameter=name)
    own = msgspec.to_builtins(message)
    own.pop("id", None)
    yield {"content": None, **own}


def _of_parts(message: _Message, parts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    texts = [part["text"] for part in parts if part.get("type") == "text" and _is_text(part.get("text"))]
    images = [image for part in parts if (image := _image(part))] if message.role == "user" else []
    calls = [made for part in parts if (made := _call(part))] if message.role == "assistant" else []
    content: Any = "\n".join(texts) or message.content
    if images:
        content = [*([{"type": "text", "text": content}] if content else []), *images]
    if calls:
        yield {"role": "assistant", "content": content or None, "tool_calls": [call for call, _ in calls]}
        for call, result in calls:
            yield {"role": "tool", "tool_call_id": call["id"], "content": result}
    elif content:
        yield {"role": message.role, "content": content}


def _image(part: dict[str, Any]) -> dict[str, Any] | None:
    kind = part.get("mediaType") or part.get("mimeType")
    url = part.get("url")
    if part.get("type") == "file" and _is_text(kind) and str(kind).startswith("image/") and _is_text(url):
        return {"type": "image_url", "image_url": {"url": url}}
    return None


def _call(part: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return a call of a tool, as the AI SDK 4 or a later one keeps it, and its result; None: it has none (yet)."""
    kind = part.get("type")
    made = part.get("toolInvocation") if kind == "tool-invocation" else part  # the first is v4's
    if not isinstance(made, dict) or not isinstance(kind, str):
        return None
    known: tuple[str, ...]
    if made is not part:
        name, asked, result, known = made.get("toolName"), made.get("args"), made.get("result"), ("result",)
    else:
        name = part.get("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
        asked, result = part.get("input"), part.get("output", part.get("errorText"))
        known = ("output-available", "output-error") if kind.startswith(("tool-", "dynamic-tool")) else ()
    if made.get("state") not in known or not _is_text(name) or not _is_text(made.get("toolCallId")):
        return None
    function = {"name": name, "arguments": msgspec.json.encode(asked).decode()}
    written = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    return {"id": made["toolCallId"], "type": "function", "function": function}, written


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

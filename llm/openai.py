"""A model behind the OpenAI protocol: messages in, neutral events out.

    text        a piece of the answer, UTF-8
    reasoning   a piece of what the model thinks aloud, UTF-8
    finish      {"finish_reason": "stop", "usage": {...} | null}, once, last, and only when the answer is whole

Rules:
- Success is a real ``finish_reason``; everything else is an error (vLLM sends [DONE] after errors, others just end).
- A fault before the first event is a Problem, afterwards StreamFailed.
- The deadlines are our own: the client's is 600 s a read and starts anew with each ping; its retries hide a 429.
- Typed chunks cost 200 µs of CPU each, raw bytes and msgspec 8 to 59: the client sends, and we read.
- The response is always closed by a ``with``: a dropped generator alone never closes the connection to the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import httpx2
import msgspec
import openai

from llm import refusals, sse
from llm.deadline import Deadline
from llm.offline import OfflineTransport
from settings import Settings
from streaming.errors import StreamFailed, UpstreamFailed, UpstreamTimeout
from streaming.events import Event, json_event

log = logging.getLogger("perennial.llm")

CONNECT_S = 10.0
USAGE_S = 2.0  # after the finish_reason only the usage can still come, and an answer does not wait long for it
EOF_S = 0.2  # after [DONE] only the end can come; reading it lets the connection be used again


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None  # OpenAI's answer when it declines: to the reader a text like any other
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Ollama, newer vLLM


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    object: str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def make_client(settings: Settings) -> openai.OpenAI:
    """Return the client of this process; with neither key nor base URL the offline model answers behind it.

    Make it after the fork. It is safe for any number of greenlets; whoever made it closes it.
    """
    offline = not (settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL)
    # A full pool waits silently, so it is never the bound: MAX_STREAMS is. Idle connections are given up before
    # uvicorn, which most model servers run on, closes them after its 5 s.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.0)
    transport = OfflineTransport() if offline else None
    return openai.OpenAI(
        api_key=settings.OPENAI_API_KEY.strip() or "none-needed",
        base_url="http://offline.invalid/v1" if offline else settings.OPENAI_BASE_URL or "https://api.openai.com/v1",
        max_retries=0,
        http_client=openai.DefaultHttpx2Client(limits=limits, transport=transport),
    )


def complete(
    client: openai.OpenAI, model: str, messages: Sequence[Mapping[str, Any]], *, first_token_s: float, idle_s: float
) -> Iterator[Event]:
    """Yield the model's answer to ``messages`` (OpenAI's shape) as the events named above; blocks while it waits.

    ``first_token_s`` and ``idle_s``: how long the first and each further token may take; pings do not count.
    Raises UpstreamFailed, UpstreamTimeout, TooManyRequests, BadRequest before the first event, StreamFailed after it.
    Closing it, or killing the greenlet that waits in it, closes the connection to the model at once.
    """
    deadline = Deadline(first_token_s)
    started = False
    try:
        with ExitStack() as stack:
            response = _ask(stack, client, model, messages, deadline, max(first_token_s, idle_s))
            for event in _answer(response.iter_bytes(), deadline, idle_s):
                started = True
                yield event
    except (TimeoutError, httpx2.TimeoutException, openai.APITimeoutError) as error:
        if started:
            raise StreamFailed("The model fell silent in the middle of its answer.") from error
        raise UpstreamTimeout("The model did not begin its answer in time.") from error
    except openai.APIStatusError as error:
        log.warning("the model's server answered %d: %s", error.status_code, refusals.quote(error))
        raise refusals.problem(error) from error
    except openai.APIConnectionError as error:
        raise UpstreamFailed("The model's server cannot be reached.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise (StreamFailed if started else UpstreamFailed)("The connection to the model was lost.") from error
    except StreamFailed as error:
        if started:
            raise
        raise UpstreamFailed(str(error)) from error


def _ask(
    stack: ExitStack,
    client: openai.OpenAI,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    deadline: Deadline,
    read_s: float,
) -> openai.APIResponse[Any]:
    """Send the request and return the response, which ``stack`` closes."""
    create: Any = client.chat.completions.with_streaming_response.create  # its overloads want literal messages
    asked = {"model": model, "messages": list(messages), "stream": True}
    asked["timeout"] = httpx2.Timeout(read_s, connect=CONNECT_S)
    response: openai.APIResponse[Any]
    try:
        with_usage = create(**asked, stream_options={"include_usage": True})
        response = deadline.call(stack.enter_context, with_usage)
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        if "stream_options" not in error.message:
            raise
        # A server that is strict and older than this option: its answers have no usage, and are answers.
        response = deadline.call(stack.enter_context, create(**asked))
    return response


def _answer(pieces: Iterator[bytes], deadline: Deadline, idle_s: float) -> Iterator[Event]:
    reason, usage = "", None
    try:
        for message in _messages(pieces, deadline):
            if message.data == b"[DONE]":
                if not reason:
                    break
                deadline.renew(EOF_S)
                continue
            chunk = _chunk(message)
            usage = chunk.usage or usage
            for choice in chunk.choices or ():
                for event in _events(choice.delta):
                    yield event
                    deadline.renew(idle_s)
                if choice.finish_reason:
                    reason = choice.finish_reason
                    deadline.renew(min(idle_s, USAGE_S))
    except (TimeoutError, httpx2.HTTPError, OSError):
        if not reason:
            raise
    if reason in ("", "error"):
        raise StreamFailed("The model ended its answer without saying that it is complete.")
    yield json_event({"finish_reason": reason, "usage": usage}, "finish")


def _messages(pieces: Iterator[bytes], deadline: Deadline) -> Iterator[sse.Message]:
    decoder = sse.Decoder()
    try:
        while (piece := deadline.call(next, pieces, None)) is not None:
            yield from decoder.decode(piece)
        yield from decoder.flush()
    except ValueError as error:
        raise StreamFailed("The model sent more than an answer can hold.") from error


def _chunk(message: sse.Message) -> _Chunk:
    try:
        chunk = _decode_chunk(message.data)
    except msgspec.DecodeError as error:
        raise StreamFailed("The model sent something that is no answer.") from error
    if chunk.error is not None or "error" in (chunk.object, message.event):
        log.warning("the model's server reported an error in its answer: %.300r", message.data)
        raise StreamFailed("The model reported an error in the middle of its answer.")
    return chunk


def _events(delta: _Delta | None) -> Iterator[Event]:
    if delta is None:
        return
    if thought := delta.reasoning_content or delta.reasoning:
        yield Event(thought.encode(), "reasoning")
    if text := delta.content or delta.refusal:
        yield Event(text.encode(), "text")

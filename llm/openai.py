"""A model behind the OpenAI protocol: messages in, neutral events out.

    text        a piece of the answer, UTF-8
    reasoning   a piece of what the model thinks aloud, UTF-8
    tool-call   {"index": 0, "id": "call_1", "name": "f", "arguments": "{\\""}, in fragments
    source      {"url": …, "title": …}
    retry       {"retries": 1}: nothing has come yet, and the model is asked once more
    finish      {"finish_reason": "stop", "usage": {...} | null}, once, last, and only when the answer is whole

Rules:
- Success is a real ``finish_reason``; everything else is an error (vLLM sends [DONE] after errors, others just end).
- A fault before the first event is a Problem, afterwards StreamFailed.
- The deadlines are our own: the client's is 600 s a read and starts anew with each ping; its retries hide a 429. So
  are the retries: only before the first event, only for what may pass, and told.
- Typed chunks cost 200 µs of CPU each, raw bytes and msgspec 8 to 59: the client sends, and we read.
- It sends what we have encoded: its own ``create`` takes each message apart, 36 ms for a hundred of them, in which the
  worker does nothing else.
- The response is always closed by a ``with``: a dropped generator alone never closes the connection to the model.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
import openai

from llm import chunks, refusals, sse, texts
from llm.deadline import Deadline
from llm.transport import BODY, Body
from streaming.errors import Problem, StreamFailed, TooManyRequests, UpstreamFailed, UpstreamTimeout
from streaming.events import Event, json_event

log = logging.getLogger("perennial.llm")

CONNECT_S = 10.0
USAGE_S = 2.0  # after the finish_reason only the usage can still come, and an answer does not wait long for it
EOF_S = 0.2  # after [DONE] only the end can come; reading it lets the connection be used again
RETRY_S = (0.2, 0.4)
# A server that wants more is not waited for: its refusal is the answer.
RETRY_AFTER_S = 1.0
_RAW = {"X-Stainless-Raw-Response": "stream"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the first token, each further one (pings do not count) and all of an answer may take; ``retries``:
    how often a model that fails before its first token is asked again."""

    first_token_s: float
    idle_s: float
    total_s: float = float("inf")
    retries: int = 0


@dataclass(slots=True)
class _Attempt:
    """``started``: something has come. ``passing``: what went wrong may be over a moment later."""

    client: openai.OpenAI
    asked: Mapping[str, Any]
    limits: Limits
    deadline: Deadline
    take: Callable[[Event], bool] | None = None
    started: bool = False
    passing: bool = True


def complete(
    client: openai.OpenAI,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    limits: Limits,
    take: Callable[[Event], bool] | None = None,
    **parameters: Any,
) -> Iterator[Event | None]:
    """Yield the model's answer to ``messages`` (OpenAI's shape) as the events named above, None before each wait.

    ``take`` may take a piece of text that comes during a wait, in gevent's loop, where it must neither wait nor raise;
    False: it has not. ``parameters`` are the request's other fields. Raises UpstreamFailed, UpstreamTimeout,
    TooManyRequests, BadRequest before the first event, StreamFailed after it. Closing it, or killing the greenlet that
    waits in it, closes the connection to the model at once.
    """
    asked = {"model": model, "messages": list(messages), **parameters}
    deadline = Deadline(limits.first_token_s, limits.total_s)
    try:
        for retries in range(limits.retries + 1):
            attempt = _Attempt(client, asked, limits, deadline, take)
            try:
                yield from _attempt(attempt)
                return
            except (UpstreamFailed, TooManyRequests) as error:
                wait_s = _retry_wait_s(error)
                if attempt.started or not attempt.passing or wait_s is None or retries == limits.retries:
                    raise
                log.warning("%s is asked again in %.1f s: %s", model, wait_s, error)
                yield json_event({"retries": retries + 1}, "retry")
            yield None
            time.sleep(wait_s)
    finally:
        deadline.close()


def _retry_wait_s(error: Problem) -> float | None:
    """Return how long to wait before the next attempt, None where the server wants more than anybody waits."""
    told_s = error.retry_after_s or 0.0
    return None if told_s > RETRY_AFTER_S else max(told_s, random.uniform(*RETRY_S))


def _attempt(attempt: _Attempt) -> Iterator[Event | None]:
    """Yield the events of one request, and turn whatever can go wrong into an error of our own."""
    try:
        with ExitStack() as stack:
            response = _ask(stack, attempt)
            yield from _answer(response, attempt)
    except (TimeoutError, httpx2.TimeoutException, openai.APITimeoutError) as error:
        if attempt.deadline.passed_total and attempt.started:
            raise StreamFailed("The model took longer for its answer than it may.") from error
        if attempt.started:
            raise StreamFailed("The model fell silent in the middle of its answer.") from error
        raise UpstreamTimeout("The model did not begin its answer in time.") from error
    except openai.APIStatusError as error:
        log.warning("the model's server answered %d: %s", error.status_code, refusals.quote(error))
        attempt.passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        raise refusals.problem(error) from error
    except openai.APIConnectionError as error:
        raise UpstreamFailed("The model's server cannot be reached.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise (StreamFailed if attempt.started else UpstreamFailed)("The connection to the model was lost.") from error
    except StreamFailed as error:
        if attempt.started:
            raise
        raise UpstreamFailed(str(error)) from error


def _ask(stack: ExitStack, attempt: _Attempt) -> openai.APIResponse[Any]:
    """Send the request and return the response, which ``stack`` closes."""
    asked = {**attempt.asked, "stream": True}
    try:
        response = _post(attempt, {**asked, "stream_options": {"include_usage": True}})
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        if "stream_options" not in error.message:
            raise
        # A server that is strict and older than this option: its answers have no usage, and are answers.
        response = _post(attempt, asked)
    stack.callback(response.close)
    return response


def _post(attempt: _Attempt, asked: Mapping[str, Any]) -> openai.APIResponse[Any]:
    """What ``chat.completions.with_streaming_response.create`` sends and returns."""
    read_s = max(attempt.limits.first_token_s, attempt.limits.idle_s)
    post: Any = attempt.client.post  # by this header it returns no stream of objects, but the response itself
    response: openai.APIResponse[Any] = attempt.deadline.call(
        post,
        "/chat/completions",
        cast_to=object,
        content=msgspec.json.encode(asked),
        options={"headers": _RAW, "timeout": httpx2.Timeout(read_s, connect=CONNECT_S)},
        stream=True,
        stream_cls=openai.Stream[object],
    )
    return response


def _body(response: openai.APIResponse[Any]) -> tuple[Body | None, Iterator[bytes]]:
    """Return the body, and its bytes as they come; no body where the client's layers have something to decode."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return None, response.iter_bytes()
    stream: Iterator[bytes] = iter(response.http_response.stream)  # type: ignore[arg-type]  # a sync client's
    return response.http_response.extensions.get(BODY), stream


def _let_take(body: Body | None, decoder: sse.Decoder, attempt: _Attempt) -> None:
    """From now on let pieces of text be taken while the answer waits for more."""
    if body is not None and attempt.take is not None:
        body.take = texts.taker(decoder, attempt.take, lambda: attempt.deadline.renew(attempt.limits.idle_s))


def _answer(response: openai.APIResponse[Any], attempt: _Attempt) -> Iterator[Event | None]:
    reason, usage = "", None
    deadline, idle_s, decoder = attempt.deadline, attempt.limits.idle_s, sse.Decoder()
    body, pieces = _body(response)
    try:
        for message in _messages(pieces, deadline, decoder):
            if message is None:
                yield None
                continue
            if message.data == b"[DONE]":
                if not reason:
                    break
                deadline.renew(EOF_S)
                continue
            chunk = chunks.read(message)
            usage = chunk.usage or usage
            if found := chunks.events(chunk):
                if not attempt.started:
                    _let_take(body, decoder, attempt)
                attempt.started = True
                yield from found
                deadline.renew(idle_s)
            for choice in chunk.choices or ():
                if choice.finish_reason:
                    reason = choice.finish_reason
                    deadline.renew(min(idle_s, USAGE_S))
    except (TimeoutError, httpx2.HTTPError, OSError):
        if not reason:
            raise
    if reason in ("", "error"):
        raise StreamFailed("The model ended its answer without saying that it is complete.")
    attempt.started = True
    yield json_event({"finish_reason": reason, "usage": usage}, "finish")


def _messages(pieces: Iterator[bytes], deadline: Deadline, decoder: sse.Decoder) -> Iterator[sse.Message | None]:
    """Yield the messages as they come, None before each wait."""
    try:
        while True:
            yield None
            if (piece := deadline.call(next, pieces, None)) is None:
                break
            yield from decoder.decode(piece)
        yield from decoder.flush()
    except ValueError as error:
        raise StreamFailed("The model sent more than an answer can hold.") from error

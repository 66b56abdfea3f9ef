"""What a model's server says instead of an answer, as the caller hears it.

Rules:
- The status says whose fault it is: the caller's messages 400, too many requests 429, the server's time-out 504, and
  everything else, also a key that is refused, 502.
- One human sentence, since chat clients show it as it is. The server's own words reach the caller only where they
  are about the caller's messages, and never with a key in them (OpenAI's 401 quotes the key).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import openai

from streaming.errors import BadRequest, Problem, TooManyRequests, UpstreamFailed, UpstreamTimeout

RETRY_AFTER_S = 5.0  # where the server does not say how long
QUOTE_CHARS = 300


def problem(error: openai.APIStatusError) -> Problem:
    """Return the Problem that a 4xx or 5xx of the model's server is to our caller."""
    status = error.status_code
    if status in (400, 413, 422) and (error.param or "messages").startswith("messages"):
        return BadRequest(f"The model refused the messages: {quote(error)}", parameter="messages")
    if status == 429:
        wait_s = retry_after_s(error.response.headers)
        detail = "The model is asked too much at the moment; try again later."
        return TooManyRequests(detail, retry_after_s=RETRY_AFTER_S if wait_s is None else wait_s)
    if status in (408, 504):
        return UpstreamTimeout("The model's server ran into a time-out.")
    if status in (401, 403):
        return UpstreamFailed("The model's server refused this server's key.")
    if status == 404:
        return UpstreamFailed("The model's server does not know this model, or is no model's server.")
    return UpstreamFailed(f"The model's server failed with status {status}.")


def quote(error: openai.APIStatusError) -> str:
    """Return the server's own words as one bounded line without anything that looks like a key."""
    message = error.body.get("message") if isinstance(error.body, Mapping) else None
    words = " ".join(message.split()) if isinstance(message, str) else ""
    if key := error.request.headers.get("authorization", "").removeprefix("Bearer "):
        words = words.replace(key, "…")
    words = re.sub(r"\bsk-[\w*.-]+", "…", words)  # a key that is quoted in part, as OpenAI does
    words = words if len(words) <= QUOTE_CHARS else words[:QUOTE_CHARS] + "…"
    return words or f"status {error.status_code}."


def retry_after_s(headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """Return the wait that Retry-After asks for (RFC 9110, 10.2.3: seconds or a date), None where there is none."""
    text = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):  # OpenAI-compatible servers also send fractions
        return float(text)
    try:
        at_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at_s - (time.time() if now_s is None else now_s))

"""What the routes of chat have in common: whose question it is, and how an answer begins.

Rules:
- Headers wait for the model's first word, or ``CHAT_HEADERS_S`` seconds: what it refuses until then is a real status,
  whichever worker asked it.
- Who asks is known by its token; without access control by its address, or by the header that the operator names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from flask import current_app, request

from settings import Settings
from streaming import callers, errors
from streaming.begun import Begun
from streaming.chat_framings import END
from streaming.chat_index import digest
from streaming.chat_parts import PRELIMINARY
from streaming.chats import Chats
from streaming.durable import PREFIX
from streaming.errors import BadRequest
from streaming.events import Event
from streaming.grants import Action, Need
from streaming.leases import CHATS

KEY_CHARS = 255


def chats() -> Chats:
    found: Chats = current_app.extensions["chats"]
    return found


def find(action: Action, chat: str) -> str:
    """Return the id of the last run of this caller's chat, or of the run that it may read or write. Raises NotFound."""
    run_id = chats().find(chat, callers.mark())
    callers.check(Need(action, f"/{CHATS}{run_id}", run_id))
    return run_id


def caller() -> str:
    """Return what tells this request's caller from others, as a digest."""
    if found := callers.current():
        return digest("caller", found.name)
    settings: Settings = current_app.extensions["settings"]
    name = settings.CHAT_CALLER_HEADER
    if not name or not (value := request.headers.get(name, "")):
        return digest("address", callers.address())
    # Of X-Forwarded-For only the last one was written by our own proxy.
    return digest("header", value.rpartition(",")[2].strip() if name.lower() == "x-forwarded-for" else value)


def idempotency_key() -> str:
    """Return the Idempotency-Key, "" without one. Raises BadRequest."""
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > KEY_CHARS or not key.isascii() or not (key.isprintable() or not key):
        sentence = f"Idempotency-Key must be at most {KEY_CHARS} visible ASCII characters."
        raise BadRequest(sentence, parameter="Idempotency-Key")
    return key


def headers(run_id: str) -> dict[str, str]:
    """Return the headers that say where the run can be read again."""
    return {"Location": f"{PREFIX}{CHATS}{run_id}", "X-Run-Id": run_id}


def begun(run_id: str, within_s: float) -> Begun:
    """Return the run's answer once it has begun. Raises the Problem that the model answered with, and ClientLeft."""
    answer = Begun(chats().read(run_id), within_s, PRELIMINARY)
    if answer.first is None or answer.first.type != "error":
        return answer
    metadata: dict[str, Any] = {}
    sentence = ""
    for part in _parts(answer):
        metadata |= part.get("messageMetadata", {})
        sentence = part.get("errorText", sentence)
    answer.close()
    chats().settle(run_id)
    # Without a status it was interrupted: its worker has gone.
    raise errors.of_status(metadata.get("status", 503), sentence, metadata.get("retryAfter"))


def _parts(answer: Iterator[Event | None]) -> Iterator[dict[str, Any]]:
    for event in answer:
        if event is not None:
            yield msgspec.json.decode(event.data)


def place(run_id: str) -> int:
    """Return the number of the last event that Last-Event-ID says the reader has, -1 for the end, 0 for none of it.

    A cursor of another run is none of this one: it is read from its beginning.
    """
    tag, _, number = request.headers.get("Last-Event-ID", "").partition("-")
    if tag != run_id[-6:]:
        return 0
    if number.endswith(END):
        return -1
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0

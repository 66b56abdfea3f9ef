"""Publishing on a topic: what its name may be, how large a message is, and what the store's refusals mean.

Rules:
- The bound is of what is published, not of the request that brings it: a form takes up to three bytes for one.
- A topic counts among the streams that its caller has made (streaming/kept.py), whoever publishes on it first.
"""

from __future__ import annotations

from flask import current_app

from stores.base import Appended, Config, Log
from stores.errors import KeyReused, StreamClosed
from streaming import callers, topics
from streaming.errors import Conflict, TooLarge, Unprocessable
from streaming.events import Event
from streaming.kept import Kept

NOTIFICATION_BYTES = 64 * 1024
NAME = ("[A-Za-z0-9._-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 . _ -")


def message(text: str) -> dict[str, str]:
    """Return what a text is published as. Raises TooLarge."""
    if len(text.encode()) > NOTIFICATION_BYTES:
        raise TooLarge(f"A message has at most {NOTIFICATION_BYTES} bytes.", parameter="message")
    return {"message": text}


def publish(topic: str, event: Event, key: str = "") -> Appended:
    """Append the event to the topic, once for each ``key``.

    Raises Unprocessable for a key that came with another event, Conflict for a topic that is closed, TooManyRequests.
    """
    log: Log = current_app.extensions["log"]
    kept: Kept = current_app.extensions["kept"]
    path, keep_events = topics.path(topic), current_app.extensions["settings"].NOTIFICATIONS_KEEP
    try:
        with kept.making(callers.key(), path):
            return log.append(path, [event], create=Config("application/json", keep_events=keep_events), key=key)
    except KeyReused as error:
        raise Unprocessable(str(error)) from error
    except StreamClosed as error:
        raise Conflict("This topic is closed.", parameter="topic") from error
